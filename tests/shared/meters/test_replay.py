"""A recording answers as if it were made now; a bad one is named in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shared.errors import BadInput
from shared.meters import MeterError, ReplayMeter
from shared.meters.signal import LATE
from tests.shared.meters.simulated import SimulatedClock


def recording(path: Path, times_s: np.ndarray, watts: np.ndarray) -> Path:
    lines = [f"{time_s!r},{power!r}" for time_s, power in zip(times_s.tolist(), watts.tolist(), strict=True)]
    path.write_text("\n".join(["time_s,watts", *lines, ""]))
    return path


def test_a_recorded_ramp_is_played_from_the_first_start_on(tmp_path: Path) -> None:
    times_s = 1e6 + np.arange(101) * 0.1
    path = recording(tmp_path / "ramp.csv", times_s, 100 + 20 * (times_s - 1e6))
    clock = SimulatedClock(33.0)
    meter = ReplayMeter(path, clock)
    clock.sleep(7.0)  # what comes before the first window does not count
    for start_s, end_s in ((0.0, 1.25), (3.25, 10.0)):
        meter.start()
        clock.sleep(end_s - start_s)
        window = meter.stop()
        assert window.amount == pytest.approx(100 * (end_s - start_s) + 10 * (end_s**2 - start_s**2))
        assert (window.start_s, window.end_s) == (pytest.approx(40 + start_s), pytest.approx(40 + end_s))
        assert abs(window.samples - (end_s - start_s) * 10) <= 1 and window.flags == ()
        clock.sleep(2.0)
    assert meter.simulated and meter.method == "integral" and meter.period_s == pytest.approx(0.1)
    with pytest.raises(MeterError, match=r"the 10 s of .*ramp.csv, got one that ends at 13"):
        meter.start()
        clock.sleep(1.0)
        meter.stop()


def test_late_samples_of_a_recording_are_flagged(tmp_path: Path) -> None:
    times_s = np.array([0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1.0])
    clock = SimulatedClock()
    meter = ReplayMeter(recording(tmp_path / "late.csv", times_s, np.full(8, 50.0)), clock)
    meter.start()
    clock.sleep(1.0)
    window = meter.stop()
    assert window.flags == (LATE,) and window.amount == pytest.approx(50)


def test_a_window_between_two_samples_is_no_number(tmp_path: Path) -> None:
    clock = SimulatedClock()
    meter = ReplayMeter(recording(tmp_path / "a.csv", np.arange(5.0), np.ones(5)), clock)
    meter.start()
    clock.sleep(0.5)
    with pytest.raises(MeterError, match="at least 2 samples"):
        meter.stop()


GOOD = "time_s,watts\n0,10\n0.1,11\n0.2,12\n"
EVEN = "".join(f"{k / 10},10\n" for k in range(30))


@pytest.mark.parametrize("text", [GOOD, "\ufeff" + GOOD, GOOD.replace("\n", "\r\n"), GOOD.replace(",", ", ")])
def test_ways_to_write_the_same_recording(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    clock = SimulatedClock()
    meter = ReplayMeter(path, clock)
    meter.start()
    clock.sleep(0.2)
    assert meter.stop().amount == pytest.approx(2.2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "which is empty"),
        (b"time_s,watts\n", "2 samples or more, got 0 in"),
        (b"time_s,watts\n0,1\n", "2 samples or more, got 1 in"),
        (b"0,1\n1,1\n", "the header time_s,watts, got .*'0,1'"),
        (b"time_ms,watts\n0,1\n1,1\n", "'time_ms,watts'"),
        (b"time_s,milliwatts\n0,1\n1,1\n", "'time_s,milliwatts'"),
        (b"watts,time_s\n0,1\n1,1\n", "'watts,time_s'"),
        (b"time_s;watts\n0;1\n1;1\n", "'time_s;watts'"),
        (b"time_s,watts\n0,1\n1,1\n1,1\n2,1\n", "times that rise from line to line, got 1 s and then 1 s in line 4"),
        (b"time_s,watts\n0,1\n2,1\n1,1\n", "times that rise from line to line, got 2 s and then 1 s in line 4"),
        (b"time_s,watts\n0,1\n1,-2\n", "watts of 0 or more, got '1,-2' in line 3"),
        (b"time_s,watts\n0,1\n1,\n", "watts of 0 or more, got '1,' in line 3"),
        (b"time_s,watts\n0,1\n\n1,2\n", "watts of 0 or more, got '' in line 3"),
        (b"time_s,watts\n0,1\n1,2,3\n", "got '1,2,3' in line 3"),
        (b"time_s,watts\n0,1\nnan,2\n", "got 'nan,2' in line 3"),
        (b"time_s,watts\n0,1\n1,inf\n", "got '1,inf' in line 3"),
        (b"time_s,watts\n0,1\n1,2 W\n", "got '1,2 W' in line 3"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "a recording as CSV text"),
        (b'time_s,watts\n"0,1\n', "a recording as CSV text"),
        (f"time_s,watts\n{EVEN}5.1,10\n".encode(), "no gap above 20 times .*, got 2.9 s and then 5.1 s in line 32"),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        ReplayMeter(path, SimulatedClock())
    assert "\n" not in str(caught.value) and "bad.csv" in str(caught.value)


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(BadInput, match="a recording that can be read") as caught:
            ReplayMeter(path, SimulatedClock())
        assert str(path) in str(caught.value)


def test_what_it_tells_of_a_name_that_is_not_utf_8_fits_in_a_record(tmp_path: Path) -> None:
    meter = ReplayMeter(recording(tmp_path / os.fsdecode(b"\xe9.csv"), np.arange(10.0), np.ones(10)))
    assert meter.scope == r"recording \udce9.csv" and meter.facts()["recording"] == rf"{tmp_path}/\udce9.csv"

"""A meter that replays a recorded power trace."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.cache import content_key
from shared.errors import BadInput, printable
from shared.meters.meter import Meter, MeterError, Window
from shared.meters.signal import FEWEST_SAMPLES, PowerTrace
from shared.meters.timing import Clock

HEADER = ["time_s", "watts"]
GAP_PERIODS = 20  # longest gap in median periods: late samples are accepted, a pause in the recording is not


class ReplayMeter(Meter):
    """Replays a recording as if it were made now. Its first sample is at the first start().

    path: a CSV file in UTF-8 with the header `time_s,watts` and one sample per line. Times rise, from any origin; watts
    are 0 or more. There are at least two samples and no gap above 20 times the median period. Raises BadInput for any
    other file, MeterError for a window that ends after the recording.
    """

    name = "replay"
    method = "integral"
    simulated = True  # the joules belong to the work that was recorded

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path, self.clock = path, clock or Clock()
        self.scope = f"recording {printable(path.name)}"
        self._times_s, self._watts = read_trace(path)
        self.period_s = float(np.median(np.diff(self._times_s)))
        self._origin_s: float | None = None
        self._start_s = 0.0

    def start(self) -> None:
        """See Meter."""
        self._start_s = self.clock.now_s()
        if self._origin_s is None:
            self._origin_s = self._start_s

    def stop(self) -> Window:
        """See Meter."""
        assert self._origin_s is not None, "start() first"
        end_s = self.clock.now_s()
        times_s = self._times_s - self._times_s[0] + self._origin_s
        # the last sample stands for one more period
        if end_s > times_s[-1] + self.period_s:
            lasts_s = times_s[-1] - times_s[0]
            raise MeterError(
                f"a window within the {lasts_s:.3g} s of {printable(self.path)}",
                f"one that ends at {end_s - self._origin_s:.3g} s",
                "a longer recording",
            )
        return PowerTrace(times_s, self._watts, self.period_s).window(self._start_s, end_s)

    def identity(self) -> str:
        """See Meter. Depends on the recorded samples."""
        return content_key(self._times_s.tolist(), self._watts.tolist())

    def facts(self) -> dict[str, object]:
        """See Meter."""
        return {"recording": printable(self.path), "samples": self._times_s.size, "period_s": self.period_s}


def read_trace(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times in seconds (n,) and watts (n,) of a recording, see ReplayMeter. Raises BadInput with file and line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file, strict=True)]
    except OSError as error:
        raise BadInput("a recording that can be read", f"{path} ({error.strerror})", "another path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput("a recording as CSV text", f"{path} ({error})", "a file with columns time_s,watts") from None
    header = rows[0] if rows else []
    if header != HEADER:
        got = f"{path} with {','.join(header)!r:.60}" if header else f"{path}, which is empty"
        raise BadInput("a recording with the header time_s,watts", got, "seconds and watts under that header")
    samples = np.array([_sample(path, line, row) for line, row in enumerate(rows[1:], start=2)]).reshape(-1, 2)
    if len(samples) < FEWEST_SAMPLES:
        raise BadInput(f"{FEWEST_SAMPLES} samples or more", f"{len(samples)} in {path}", "a longer recording")
    times_s, watts = samples.T
    periods_s = np.diff(times_s)
    rules = [
        (periods_s <= 0, "times that rise from line to line"),
        (periods_s > GAP_PERIODS * np.median(periods_s), f"no gap above {GAP_PERIODS} times the median period"),
    ]
    for broken, expected in rules:
        if broken.any():
            k = int(broken.argmax())
            got = f"{times_s[k]:g} s and then {times_s[k + 1]:g} s in line {k + 3} of {path}"
            raise BadInput(expected, got, "a recording without interruptions, by a monotonic clock")
    return times_s, watts


def _sample(path: Path, line: int, row: list[str]) -> tuple[float, float]:
    try:
        time_s, watts = map(float, row)
        sound = np.isfinite(time_s) and np.isfinite(watts) and watts >= 0
    except ValueError:
        sound = False
    if not sound:
        expected = "seconds and watts of 0 or more"
        raise BadInput(expected, f"{','.join(row)!r:.60} in line {line} of {path}", "a complete recording in watts")
    return time_s, watts

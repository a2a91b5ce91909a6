"""From an operation list through the runner, alone on its board, back to joules; and files that are refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared import networks
from shared.board import runner
from shared.board.exchange import operation_list, read_measurement, write_operations
from shared.errors import BadInput

WATTS = 5.0


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Two rows of a small MobileNet, two images per inference, windows short."""
    model = networks.build("mobilenet", width_multiplier=0.25, input_size=28, in_channels=1, num_classes=10)
    structure = networks.structure(model)
    rows = structure.positions([[1] * 14, list(structure.upper_bounds)])
    return operation_list(structure.operations, rows, batch=2, repeats=3, window_s=0.3, warm_up_s=0.1)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A TX2's VDD_IN at 5 W and 20 V, and one temperature."""
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221x/0-0041/iio:device1"
    folder.mkdir(parents=True)
    for name, text in {"rail_name_0": "VDD_IN", "in_power0_input": "5000", "in_voltage0_input": "20000"}.items():
        (folder / name).write_text(text + "\n")
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("41500\n")
    return tmp_path / "sys"


def alone(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The runner's file by itself in `folder`, where none of our packages can be imported."""
    shutil.copy(runner.__file__, folder / "runner.py")
    command = [sys.executable, "-I", "runner.py", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_board_measures_what_the_host_has_written(tmp_path: Path, sysfs: Path, document: dict[str, Any]) -> None:
    write_operations(tmp_path / "operations.json", document)
    options = ("--rail", "VDD_IN", "--sysfs", sysfs, "--period", 0.005, "--idle", 0.1)
    ended = alone(tmp_path, "operations.json", *options)
    assert ended.returncode == 0, ended.stderr
    assert "2 of 2 width vectors" in ended.stderr
    measurement = read_measurement(document, tmp_path / "measured.json")
    assert [window.row for window in measurement.windows] == [0, 1]
    for window in measurement.windows:
        assert window.joules == pytest.approx(WATTS * window.seconds)
        assert window.quantum_joules == pytest.approx((20 * 0.008 + 0.008 * WATTS / 20) * window.seconds)
        assert window.images % 2 == 0 and window.images >= 6 and window.samples >= 2
        assert window.conditions == {"class/thermal/thermal_zone0/temp": 41500}
    assert measurement.idle_watts == (pytest.approx(WATTS), pytest.approx(WATTS))
    assert measurement.scope == "rail VDD_IN (whole module)"
    assert measurement.versions.keys() == {"python", "torch", "cuda", "kernel", "board"}


def test_without_a_rail_there_are_times_alone(tmp_path: Path, document: dict[str, Any]) -> None:
    short = document | {"window_s": 0.0, "repeats": 2}
    write_operations(tmp_path / "operations.json", short)
    ended = alone(tmp_path, "operations.json", "--idle", 0, "--out", "times")
    assert ended.returncode == 0, ended.stderr
    measurement = read_measurement(short, tmp_path / "times.json")
    assert [window.images for window in measurement.windows] == [4, 4]
    assert all(window.seconds > 0 and window.joules is None for window in measurement.windows)
    assert measurement.scope == "wall time" and measurement.idle_watts == ()


def test_rails_are_listed(tmp_path: Path, sysfs: Path) -> None:
    ended = alone(tmp_path, "--list", "--sysfs", sysfs)
    assert ended.returncode == 0 and ended.stdout.split()[:3] == ["VDD_IN", "5.000", "W"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected an operation list or --list, got neither"),
        (["missing.json"], "expected an operation list at missing.json"),
        (["broken.json"], "expected an operation list at broken.json"),
        (["older.json"], "('energy-compression-bench/operations', 1); try the runner.py beside it on the host"),
        (["foreign.json"], "expected an operation list of version 4, got"),
        (["operations.json", "--out", "nowhere/m"], "expected a folder that can be written for --out, got "),
        (["operations.json", "--rail", "VDD_CPU"], "expected a rail labelled VDD_CPU, got rails VDD_IN"),
    ],
)
def test_mistakes_on_the_board_are_one_line(
    tmp_path: Path, sysfs: Path, document: dict[str, Any], arguments: list[str], message: str
) -> None:
    write_operations(tmp_path / "operations.json", document)
    write_operations(tmp_path / "older.json", document | {"version": 1})
    (tmp_path / "broken.json").write_text('{"schema": ')
    (tmp_path / "foreign.json").write_text('{"schema": "something else", "version": 1}')
    ended = alone(tmp_path, *arguments, "--sysfs", sysfs)
    assert ended.returncode == 2 and message in ended.stderr and ended.stderr.count("\n") == 1
    assert not (tmp_path / "measured.json").exists()


def test_stopped_on_the_board_it_says_that_nothing_is_written(tmp_path: Path, document: dict[str, Any]) -> None:
    write_operations(tmp_path / "operations.json", document | {"positions": document["positions"] * 10_000})
    shutil.copy(runner.__file__, tmp_path / "runner.py")
    heeding = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-I", "runner.py", "operations.json", "--idle", "0"]
    board = subprocess.Popen(  # heeding Ctrl-C, as background jobs of a shell do not
        [sys.executable, "-c", heeding, *command],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert board.stderr is not None
    board.stderr.read(1)  # of its progress
    board.send_signal(signal.SIGINT)
    _, rest = board.communicate(timeout=60)
    assert board.returncode == 130 and rest.splitlines()[-1] == "stopped: nothing was written"
    assert not list(tmp_path.glob("measured*"))


@pytest.mark.parametrize("passing", [True, False])
def test_a_reading_lost_in_passing_ends_no_measurement(passing: bool) -> None:
    class Failing:
        """A rail that answers a trial, fails once, and then answers twice."""

        readings = 0
        ended = threading.Event()

        def watts(self) -> float:
            self.readings += 1
            if self.readings == 2:
                if not passing:
                    self.ended.set()
                raise (runner.DroppedSample if passing else runner.MeterError)("an answer", "none", "again")
            if self.readings >= 4:
                self.ended.set()
            return 3.0

    rail: Any = Failing()
    rail.ended.clear()
    sampler = runner.Sampler(rail, 0.001)
    sampler.start()
    assert rail.ended.wait(30)
    if passing:
        sampler.stop()
        assert sampler.dropped == 1 and {watts for _, watts in sampler.samples} == {3.0}
    else:
        with pytest.raises(runner.MeterError, match="an answer"):
            sampler.stop()


def test_a_network_that_is_not_the_list_is_refused(document: dict[str, Any]) -> None:
    """The list says another size of the last tensor than the layers give."""
    operations = [dict(operation) for operation in document["operations"]]
    operations[-1]["output_size"] = [2, 2]
    with pytest.raises(runner.MeterError, match=r"outputs of shape \[2, 10, 2, 2\], got \[2, 10\]"):
        runner.measure_row(document | {"operations": operations}, 0, "cpu", "/nowhere")


def test_a_window_is_as_long_as_its_list_says_though_first_batches_were_slow(
    monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]
) -> None:
    """Batches of 0.2 s until the window has begun, of 10 ms from then on, on a clock that they alone move."""
    now_s, batches_s = [0.0], itertools.chain([0.2] * 8, itertools.repeat(0.01))

    def infer() -> torch.Tensor:
        now_s[0] += next(batches_s)
        return torch.zeros(2, 10)

    monkeypatch.setattr(runner, "build_callable", lambda *_: infer)
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    row = runner.measure_row(document | {"warm_up_s": 0.9}, 1, "cpu", "/nowhere")
    assert row["start_s"] == pytest.approx(5 * 0.2 + 3 * 0.2)  # five of warm-up, three to tell how long one takes
    assert row["end_s"] - row["start_s"] == pytest.approx(0.3)
    assert row["repeats"] == 30 and next(batches_s) == 0.01


def write_measurement(
    folder: Path, document: dict[str, Any], times_s: Any, watts: Any, windows: Any, **changes: Any
) -> Path:
    """Files as the runner writes them, with a trace of power that a test chooses."""
    keys = ("row", "repeats", "start_s", "end_s", "conditions")
    measurement = {
        "schema": runner.MEASUREMENT_SCHEMA,
        "version": 4,
        "operations_sha256": runner.fingerprint(document),
        "batch": document["batch"],
        "windows": [dict(zip(keys, window, strict=True)) for window in windows],
        "idle": [],
        "rail": {"label": "VDD_IN", "generation": "hwmon", "folder": "/", "volts": 5.0, "shunt_ohms": 0.002},
        "period_s": 0.1,
        "dropped_samples": 0,
        "clock": "time.monotonic",
        "device": "board",
        "versions": {"torch": "1.10"},
    }
    runner.write(
        str(folder / "m"), measurement | changes, list(zip(map(float, times_s), map(float, watts), strict=True))
    )
    return folder / "m.json"


@given(
    slope=st.floats(0, 3),
    start_s=st.floats(0.5, 3),
    length_s=st.floats(0.5, 3),
    repeats=st.integers(1, 50),
)
def test_joules_per_image_are_the_integral_over_the_images(
    tmp_path_factory: pytest.TempPathFactory,
    document: dict[str, Any],
    slope: float,
    start_s: float,
    length_s: float,
    repeats: int,
) -> None:
    """Power 4 + slope t is integrated in closed form; the clock may count from anywhere."""
    times_s = 1e6 + np.arange(0, 7, 0.1)
    watts = 4 + slope * (times_s - 1e6)
    end_s = start_s + length_s
    windows = [(1, repeats, 1e6 + start_s, 1e6 + end_s, {})]
    path = write_measurement(tmp_path_factory.mktemp("trace"), document, times_s, watts, windows)
    (window,) = read_measurement(document, path).windows
    joules = 4 * length_s + slope * (end_s**2 - start_s**2) / 2
    assert window.joules == pytest.approx(joules / (2 * repeats), rel=1e-6)
    assert window.seconds == pytest.approx(length_s / (2 * repeats), rel=1e-6)
    mean_watts = 4 + slope * 3.45  # of the whole trace, up to 6.9 s
    step = 5 * 40e-6 / 0.002 + 8e-3 * mean_watts / 5
    assert window.quantum_joules == pytest.approx(step * window.seconds, rel=1e-4)
    assert window.flags == ()


def test_the_guide_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its Python blocks, with a measurement in between whose numbers are known."""
    guide = (Path(runner.__file__).parents[2] / "docs/jetson.md").read_text()
    before, after = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(before, names)
    document = runner.load_operations("operations.json")
    assert document == names["document"] and len(document["positions"]) == 4
    path = write_measurement(tmp_path, document, np.arange(0, 3, 0.1), [6.4] * 30, [(3, 10, 1.0, 2.0, {})])
    path.rename(tmp_path / "measured.json")
    path.with_suffix(".csv").rename(tmp_path / "measured.csv")
    exec(after, names)
    assert capsys.readouterr().out.startswith("3 0.01")  # 6.4 J over 640 images


def test_late_and_lost_samples_are_flagged_and_offsets_are_no_power(tmp_path: Path, document: dict[str, Any]) -> None:
    """One step of this rail is 0.1 W; the offset below zero may be two."""
    times_s = [*np.arange(0, 2, 0.1), *np.arange(2.4, 4, 0.1)]
    windows = [(0, 1, 0.2, 1.5, {}), (1, 1, 1.5, 3.5, {})]
    path = write_measurement(tmp_path, document, times_s, [-0.15] * len(times_s), windows, idle=[(0.0, 1.0)])
    measurement = read_measurement(document, path)
    assert [window.flags for window in measurement.windows] == [(), ("late samples",)]
    assert [window.joules for window in measurement.windows] == [0, 0] and measurement.idle_watts == (0,)
    path = write_measurement(tmp_path, document, times_s, [1] * len(times_s), windows, dropped_samples=1)
    assert read_measurement(document, path).windows[0].flags == ("dropped samples",)


def damage(**changes: Any) -> Callable[[Path], None]:
    """Overwrite entries of the JSON file."""

    def apply(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


def change_csv(text: str) -> Callable[[Path], None]:
    """Another CSV file, with the hash that belongs to it."""

    def apply(path: Path) -> None:
        path.with_suffix(".csv").write_text(text)
        damage(csv_sha256=hashlib.sha256(text.encode()).hexdigest())(path)

    return apply


def cut_short(path: Path) -> None:
    """A CSV file whose end is missing."""
    data = path.with_suffix(".csv").read_bytes()
    path.with_suffix(".csv").write_bytes(data[: len(data) // 2])


WINDOW = {"row": 0, "repeats": 1, "start_s": 1.0, "end_s": 2.0, "conditions": {}}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "a board's measurement at .*No such file"),
        (lambda path: path.write_text("{"), "a board's measurement at"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "a board's measurement at"),
        (lambda path: path.write_text("[]"), "another kind of file"),
        (damage(schema="other"), "another kind of file"),
        (damage(version=1), "version: Input should be 4"),
        (damage(windows=[{"row": 0}]), r"windows\.0\.repeats: Field required"),
        (damage(extra=1), "extra: Extra inputs"),
        (damage(operations_sha256="0"), "one of another list"),
        (damage(batch=3), "one of another list"),
        (damage(windows=[WINDOW | {"row": 2}]), "windows of rows 0 to 1"),
        (damage(windows=[WINDOW | {"end_s": 1.0}]), "windows of rows 0 to 1 .* an empty window"),
        (damage(windows=[WINDOW | {"start_s": 90.0, "end_s": 91.0}]), "at least 2 samples"),
        (lambda path: path.with_suffix(".csv").unlink(), "the samples at .*No such file"),
        (cut_short, "the samples that belong to the JSON file"),
        (change_csv(""), "columns time_s and watts"),
        (change_csv("a,b\n1,2\n"), "columns time_s and watts"),
        (change_csv("time_s,watts\n1,x\n"), "columns time_s and watts"),
        (change_csv("time_s,watts\n1,2,3\n"), "columns time_s and watts"),
        (change_csv("time_s,watts\n1.0,2\n1.5,3\n1.2,4\n"), "times that rise"),
        (change_csv("time_s,watts\n1.0,2\n1.5,nan\n2.0,4\n"), "0 W or more"),
        (change_csv("time_s,watts\n1.0,2\n1.5,-3\n2.0,4\n"), "0 W or more"),
    ],
)
def test_damaged_and_foreign_files_are_refused(
    tmp_path: Path, document: dict[str, Any], spoil: Callable[[Path], object], message: str
) -> None:
    times_s = np.arange(0, 3, 0.1)
    path = write_measurement(tmp_path, document, times_s, times_s, [tuple(WINDOW.values())])
    assert read_measurement(document, path).windows[0].joules == pytest.approx(1.5 / 2)
    spoil(path)
    with pytest.raises(BadInput, match=message) as caught:
        read_measurement(document, path)
    assert "\n" not in str(caught.value)

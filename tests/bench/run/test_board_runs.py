"""A run on a board that measures by itself: errands in a folder until the record has its reading, then no more."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.record.model import read
from bench.setup import workload
from shared.board import runner
from shared.networks import structure
from tests.bench.conftest import Command

WATTS, PERIOD_S = 5.0, 0.5


def measure(operations: Path) -> None:
    """What a board writes whose networks take as long as they have multiply-adds, at 5 W from first to last."""
    document = json.loads(operations.read_text())
    with torch.device("meta"):
        table = structure(workload.get("mobilenet", "fashion-mnist").build())
    dense, now_s = float(table.macs(table.upper_bounds)), 1.0
    windows: list[dict[str, Any]] = []
    for row, positions in enumerate(document["positions"]):
        image_s = 1e-4 * (0.1 + 0.9 * float(table.macs(positions[1:-1])) / dense)
        repeats = 2 + int(document["window_s"] / (image_s * document["batch"]))
        end_s = now_s + repeats * image_s * document["batch"]
        windows.append({"row": row, "repeats": repeats, "start_s": now_s, "end_s": end_s, "conditions": {}})
        now_s = end_s + 0.25
    samples = [(PERIOD_S * place, WATTS) for place in range(int(now_s / PERIOD_S) + 3)]
    measurement = {
        "schema": runner.MEASUREMENT_SCHEMA,
        "version": runner.VERSION,
        "operations_sha256": runner.fingerprint(document),
        "batch": document["batch"],
        "windows": windows,
        "idle": [(0.0, 1.0), (now_s, now_s + 1)],
        "rail": {"label": "VDD_IN", "generation": "iio", "folder": "/", "volts": 19.0, "shunt_ohms": 0.01},
        "period_s": PERIOD_S,
        "dropped_samples": 0,
        "clock": "time.monotonic",
        "device": "NVIDIA Tegra X2",
        "versions": {"torch": "1.10.0", "board": "NVIDIA Jetson TX2 Developer Kit"},
    }
    runner.write(str(operations.with_name(operations.stem.replace("operations", "measured"))), measurement, samples)


def test_errands_until_the_record_has_its_reading(command: Command, short_runs: None, tmp_path: Path) -> None:
    errands, out = tmp_path / "errands", tmp_path / "runs"
    arguments = ["--device", "tx2", "--meter", f"board:VDD_IN@{errands}/", "--protocol", "smoke"]
    again = partial(command, "run", *arguments, "--methods", "uniform", "--out", str(out))
    asked = []
    while (done := again())[0] == 1:
        errors = done[2]
        assert errors.count("\n") == 1 and "the same command goes on" in errors
        (errand,) = (path for path in errands.glob("operations-*.json") if not _result(path).exists())
        assert errand.name in errors
        asked.append(len(json.loads(errand.read_text())["positions"]))
        measure(errand)
    code, printed, errors = done
    assert code == 0, errors
    # The profile's networks in one go, and those of the budget's own profile; the cut network beside the dense one, as
    # it was compressed and in the end. Between them it lands in a few rounds, since the sensor's steps widen its
    # interval.
    assert asked[0] == asked[1] == 4 * 151 and asked[2] == asked[-1] == 8 * 2 and len(asked) <= 8
    assert "tx2: measured joules per image by the board's runner (rail VDD_IN (whole module)) of Jetson TX2" in printed

    (folder,) = (path.parent for path in out.glob("mobilenet-fashion-mnist-tx2-measured-smoke/*/record.json"))
    record = read(folder)
    assert record.measures is not None and record.budget is not None
    assert record.platform.source == "measured"
    assert record.environment["command"].endswith(" --meter board:VDD_IN@./errands")
    with torch.device("meta"):
        table = structure(workload.get("mobilenet", "fashion-mnist").build())
    share = 0.1 + 0.9 * record.measures.macs / float(table.macs(table.upper_bounds))
    low, high = record.measures.interval
    assert low <= WATTS * 1e-4 * share <= high
    assert abs(record.measures.reading / (WATTS * 1e-4 * share) - 1) < 1e-3
    assert record.measures.flags == () and record.measures.reference is not None
    assert "## Landing" in next(out.glob("*.md")).read_text()

    assert "1 of 1 runs are finished already" in again()[1]  # nothing is asked again


def _result(operations: Path) -> Path:
    return operations.with_name(operations.name.replace("operations", "measured"))

"""The files that host and board exchange: operation lists as JSON, measurements as JSON and CSV."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, Field, ValidationError

from shared.board.runner import MEASUREMENT_SCHEMA, OPERATIONS_SCHEMA, VERSION, fingerprint
from shared.board.wiring import wired
from shared.cache import atomic_write
from shared.errors import BadInput
from shared.meters.jetson.rails import quantum_watts, scope, settled_watts, shunt_ohms
from shared.meters.meter import Window
from shared.meters.signal import PowerTrace
from shared.networks.operations import Operation


def operation_list(
    operations: Sequence[Operation],
    positions: ArrayLike,
    *,
    batch: int,
    repeats: int = 32,
    window_s: float = 5.0,
    warm_up_s: float = 2.0,
) -> dict[str, Any]:
    """The operations at each row of positions (n, p), as JSON values for a board's runner.

    batch: images per inference. The runner measures one window per row, in order; rows may repeat. A window lasts at
    least `repeats` inferences and at least `window_s` seconds, after a warm-up of `warm_up_s`. Raises BadInput for
    positions that are not whole numbers of 1 or more, a batch or repeats below 1, and operations that the list can't
    describe completely.
    """
    rows = np.asarray(positions, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or not ((rows >= 1) & (rows == np.floor(rows)) & np.isfinite(rows)).all():
        raise BadInput("positions (n, p) of whole numbers, 1 or more", f"shape {rows.shape}", "a row per width vector")
    sides = [side for operation in operations for side in (operation.inputs, operation.outputs)]
    ends = [part.position or 0 for side in sides for part in side.parts]
    if rows.shape[1] <= max(ends):
        raise BadInput(f"{max(ends) + 1} positions a row", rows.shape[1], "structure.positions(widths)")
    if batch < 1 or repeats < 1 or not (0 <= window_s < math.inf and 0 <= warm_up_s < math.inf):
        got = f"batch {batch}, repeats {repeats}, window_s {window_s}, warm_up_s {warm_up_s}"
        raise BadInput("a batch and repeats of 1 or more, and finite seconds of 0 or more", got, "the defaults")
    return {
        "schema": OPERATIONS_SCHEMA,
        "version": VERSION,
        "batch": batch,
        "repeats": repeats,
        "window_s": window_s,
        "warm_up_s": warm_up_s,
        "image_size": list(operations[0].input_size),
        "positions": rows.astype(int).tolist(),
        "operations": [dict(entry) for entry in wired(tuple(operations))],
    }


def write_operations(path: Path, document: dict[str, Any]) -> None:
    """Write an operation list to a file that the board's runner reads."""
    atomic_write(path, (json.dumps(document) + "\n").encode())


@dataclass(frozen=True)
class BoardWindow:
    """One window that a board has measured.

    Attributes:
        row: Row of the operation list's positions.
        images: Images inferred in the window.
        samples: Power samples in the window.
        seconds: Duration per image.
        joules: Energy per image, idle power not subtracted; None where no rail was sampled.
        quantum_joules: Resolution of `joules`; None where the shunt is unknown.
        conditions: Clocks and temperatures after the window, by path in sysfs.
        flags: Warnings, as in a meter's Window.
    """

    row: int
    images: int
    samples: int
    seconds: float
    joules: float | None
    quantum_joules: float | None
    conditions: dict[str, int]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class BoardMeasurement:
    """The measurement of an operation list on a board.

    Attributes:
        windows: The measured windows, in order.
        idle_watts: Mean idle power before the first and after the last window.
        scope: The part of the board that the joules cover, or "wall time".
        rail: Label of the sampled rail; None where only times were measured.
        device: Name of the GPU, or "cpu" where torch has no GPU.
        versions: Versions of the board's software; "board" is the board's model.
    """

    windows: tuple[BoardWindow, ...]
    idle_watts: tuple[float, ...]
    scope: str
    rail: str | None
    device: str
    versions: dict[str, str]


class _Window(BaseModel, extra="forbid"):
    row: int = Field(ge=0)
    repeats: int = Field(ge=1)
    start_s: float
    end_s: float
    conditions: dict[str, int]


class _Rail(BaseModel, extra="forbid"):
    label: str
    generation: Literal["iio", "hwmon"]
    folder: str
    volts: float = Field(ge=0)
    shunt_ohms: float | None = Field(gt=0)


class _File(BaseModel, extra="forbid"):
    schema_: str = Field(alias="schema")
    version: Literal[4]
    operations_sha256: str
    batch: int
    windows: list[_Window]
    idle: list[tuple[float, float]]
    rail: _Rail | None
    period_s: float = Field(gt=0)
    dropped_samples: int = Field(ge=0)
    clock: str
    device: str
    versions: dict[str, str]
    csv_sha256: str


def read_measurement(document: dict[str, Any], path: Path) -> BoardMeasurement:
    """The measurement that a board's runner wrote to `path` (JSON) and to the CSV file of the same name.

    document: the operation list that was measured. Raises BadInput for files that can't be read or are damaged, for
    files that do not belong to each other or to the document, and for windows with too few samples.
    """
    measured = _read_json(path)
    if measured.operations_sha256 != fingerprint(document) or measured.batch != document["batch"]:
        raise BadInput(
            f"a measurement of this operation list at {path}", "one of another list", "the list that was measured"
        )
    last = len(document["positions"]) - 1
    if any(window.row > last or not window.end_s > window.start_s for window in measured.windows):
        raise BadInput(f"windows of rows 0 to {last} in {path}", "another row, or an empty window", "measuring anew")
    times_s, watts = _read_csv(path.with_suffix(".csv"), measured.csv_sha256)
    rail = measured.rail
    step_w = None  # resolution of the power
    if rail is not None:
        ohms = rail.shunt_ohms or shunt_ohms(rail.label)
        # the step depends little on the power: that at the mean power serves for all windows
        step_w = None if ohms is None else quantum_watts(rail.volts, float(watts.mean()) if watts.size else 0.0, ohms)
        watts = np.array([settled_watts(value, step_w or 0.0) for value in watts])

    trace = PowerTrace(times_s, watts, measured.period_s, step_w or 0.0, measured.dropped_samples)

    def read(start_s: float, end_s: float) -> Window:
        try:
            return trace.window(start_s, end_s)
        except ValueError as error:
            raise BadInput(f"a trace of power in {path.with_suffix('.csv')}", f"({error})", "measuring anew") from error

    windows = []
    for window in measured.windows:
        images = window.repeats * measured.batch
        power = None if rail is None else read(window.start_s, window.end_s)
        windows.append(
            BoardWindow(
                row=window.row,
                images=images,
                samples=power.samples if power else 0,
                seconds=(window.end_s - window.start_s) / images,
                joules=power.amount / images if power else None,
                quantum_joules=power.quantum / images if power and step_w is not None else None,
                conditions=window.conditions,
                flags=power.flags if power else (),
            )
        )
    idle_windows = [] if rail is None else [read(start, end) for start, end in measured.idle]
    idle = tuple(window.amount / window.seconds for window in idle_windows)
    measured_scope = "wall time" if rail is None else scope(rail.label)
    label = None if rail is None else rail.label
    return BoardMeasurement(tuple(windows), idle, measured_scope, label, measured.device, measured.versions)


def _read_json(path: Path) -> _File:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("schema") != MEASUREMENT_SCHEMA:
            raise BadInput(f"a board's measurement at {path}", "another kind of file", "the JSON that runner.py wrote")
        return _File.model_validate(content)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"a board's measurement at {path}", error, "copying both files from the board again") from error
    except ValidationError as error:
        first = error.errors()[0]
        got = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BadInput(
            f"a measurement of version {VERSION} at {path}", got, "the runner.py of this version of the suite"
        ) from error


def _read_csv(path: Path, sha256: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """times_s (n,) and watts (n,)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"the samples at {path}", error.strerror, "copying both files from the board") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BadInput(f"the samples that belong to the JSON file at {path}", "other data", "copying both files again")
    lines = data.decode().splitlines()
    try:
        if lines[0] != "time_s,watts":
            raise ValueError(lines[0])
        pairs = np.array([[float(value) for value in line.split(",")] for line in lines[1:]]).reshape(-1, 2)
    except (IndexError, ValueError) as error:
        raise BadInput(f"columns time_s and watts at {path}", f"({error})", "the file as runner.py wrote it") from error
    return pairs[:, 0], pairs[:, 1]

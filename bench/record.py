"""The record of one run: everything its row in a report is made of, and all it takes to reproduce it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import BadInput

SCHEMA = 2  # 2: amounts carry a unit; readings of hardware
RECORD_FILE, NETWORK_FILE = "record.json", "network.safetensors"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Platform(_Frozen):
    """The hardware that was asked for joules or seconds, and how it answered. All amounts of a record are in `unit`."""

    name: str  # e.g. "1080ti"
    source: Literal["simulated", "measured"]
    unit: Literal["J", "s"]
    meter: str  # e.g. "simulator"
    calibration: str  # version of the simulator's parameters, or hash of what decides the readings of hardware
    host: str | None  # the hardware that was read, None where it is simulated
    inference_batch: int
    input_shape: tuple[int, int, int]


class Budget(_Frozen):
    """The budget per image, and what the fraction is a fraction of."""

    fraction: float
    amount: float
    dense_reading: float  # the platform's reading of the dense network
    dense_estimate: float  # Ê(dense)


class Measures(_Frozen):
    """What the compressed network is. Accuracies are the data set's score (Record.score) in 0..1 on the test split."""

    widths: tuple[int, ...]
    upper_bounds: tuple[int, ...]
    estimate: float  # Ê(φ)
    # the platform's of the cut network: noise-free where it is simulated; on hardware its share of the dense network's,
    # read in turns with it, times the budget's dense reading; None: still to be read
    reading: float | None
    interval: tuple[float, float] | None  # of the reading; None where it is simulated
    flags: tuple[str, ...]  # what a reader of the reading should know, of the dense network's too
    detail: dict[str, Any] | None = None  # hardware's bare reading per image, see shared.meters.Reading
    parameters: int
    macs: int  # per image
    accuracy_before: float  # after batch-norm recalibration, before fine-tuning
    accuracy_after: float

    @property
    def read(self) -> float:
        """The reading. Raises BadInput while there is none: a plan on hardware reads when all its runs are trained."""
        if self.reading is None:
            raise BadInput("records whose networks have been read", "one that is still to be", "the same run once more")
        return self.reading


class FirstPass(_Frozen):
    """Readings of a plan with `--repair` before anything was repaired."""

    reading: float  # as in Measures
    dense: float  # of the dense network, as it was


class Repair(_Frozen):
    """What `--repair` did to a network whose reading was above the budget; the measures are of the repaired one."""

    widths: tuple[int, ...]  # before
    estimate: float
    reading: float
    accuracy_after: float
    removed_channels: int


class Cost(_Frozen):
    """What finding the network took."""

    training_iterations: int
    search_samples: int
    energy_queries: int
    measurements: int
    fine_tune_iterations: int
    method_s: float  # wall seconds of the method itself
    fine_tune_s: float
    distillation_step_s: (
        float  # a plain distillation step of the dense network, timed beside the run in the same process
    )
    forward_s_per_image: float  # a bare forward pass of the dense network, likewise


class EnergyFit(_Frozen):
    """How well the energy model describes the platform."""

    kind: str  # "bilinear" or "bilinear+linear"
    relative_error: float  # held-out, mean |Ê - E| / E
    skill: float  # that over the error of always saying the median
    dense_relative_error: float  # Ê(dense) / reading - 1
    samples: int
    noise: float | None  # mean relative half width of the readings' intervals; None where they have none


class Record(_Frozen):
    """One (method, budget, seed).

    `status` is "miss" when the budget was not kept or the method failed; `measures` may be absent then.
    """

    schema_version: int = SCHEMA
    key: str
    method: str
    title: str
    paper: str
    network: dict[str, Any]  # arguments of shared.networks.build for the network at its widths
    dataset: str
    score: str  # what the accuracies are: "top-1 accuracy", "mean IoU"
    platform: Platform
    protocol: dict[str, Any]
    seed: int
    budget: Budget | None  # None for the dense control
    status: Literal["ok", "miss"]
    reason: str | None
    dense_accuracy: float  # of the dense weights as delivered
    measures: Measures | None
    repair: Repair | None
    first_pass: FirstPass | None = None
    dense_again: float | None  # the dense network, read beside the cut ones: over the dense reading it is the drift
    cost: Cost | None
    energy_fit: EnergyFit
    fingerprints: dict[str, str]  # dataset, dense_weights, profile, energy_model, code, compute
    notes: dict[str, Any]
    trace: dict[str, list[Any]]
    environment: dict[str, Any]  # commit, dirty, versions, host class, threads, compute, command, method_source
    network_sha256: str | None


def read(folder: Path) -> Record:
    """The record in `folder`. Raises BadInput naming its file when there is none or it is no record."""
    return load(folder / RECORD_FILE)


def load(path: Path) -> Record:
    """The record in the file `path`. Raises BadInput naming the file when it is not one."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        if b'"schema_version": 1,' in path.read_bytes():
            hint = "running again: records of before carry no unit"
            raise BadInput(f"a record of schema {SCHEMA} in {path}", "schema 1", hint) from None
        place = ".".join(map(str, first["loc"])) or "its start"
        raise BadInput(f"a record in {path}", f"{first['msg']} at {place}", "removing it or running again") from None
    except OSError as error:
        raise BadInput(f"a record in {path}", error.strerror or str(error), "a folder of a finished run") from None


def to_json(record: Record) -> bytes:
    """Canonical, readable JSON of a record."""
    return (json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()

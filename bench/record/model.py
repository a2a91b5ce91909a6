"""The record of one run: all that its row in a report shows, and all that reproducing the run takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from methods.contract import Granularity
from shared.energy.profiles import AmountUnit
from shared.errors import BadInput
from shared.protocol import Protocol

SCHEMA: Literal[3] = 3  # 2: amounts carry a unit; 3: landing, and a reading of every network
RECORD_FILE, NETWORK_FILE = "record.json", "network.safetensors"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(gt=0)]  # per image, in the platform's unit: joules, seconds, multiply-adds or bytes
Count = Annotated[int, Field(ge=0)]
WallSeconds = Annotated[float, Field(ge=0)]
Widths = tuple[Annotated[int, Field(ge=1)], ...]


class Platform(_Frozen):
    """What was asked for joules or another amount, and how it answered. All amounts of a record are in `unit`."""

    name: str  # e.g. "1080ti"
    source: Literal["simulated", "measured", "counted"]
    unit: AmountUnit
    meter: str  # e.g. "simulator"
    calibration: str  # version of the simulator's parameters, or hash of what decides the readings of hardware
    host: str | None  # the hardware that was read, None where it is simulated
    inference_batch: Annotated[int, Field(ge=1)]
    input_shape: tuple[int, int, int]


class Budget(_Frozen):
    """The budget per image, and what the fraction is a fraction of."""

    fraction: Amount
    amount: Amount
    dense_reading: Amount  # the platform's reading of the dense network
    dense_estimate: Amount  # Ê(dense)


class Reading(_Frozen):
    """What the platform reads of one network, see shared.platforms.PlatformReading."""

    amount: Amount  # corrected for drift on hardware, noise-free where simulated
    interval: tuple[float, float]
    flags: tuple[str, ...]
    reference: Amount | None  # bare, of the dense network in the same turns; None where simulated
    detail: dict[str, Any] | None  # the bare reading; None where simulated


class Landing(_Frozen):
    """How the network's reading was brought within its budget, before fine-tuning."""

    widths: Widths  # of the network before landing
    estimate: Amount  # Ê before landing
    before: Reading
    after: Reading  # the reading that landed it; the same as `before` where nothing was removed
    removed_channels: Count
    removed_weights: Count = 0  # by methods that remove weights
    search_accuracy_before: Share
    search_accuracy_after: Share


class Measures(_Frozen):
    """Size, cost and test scores of the compressed network. Accuracies are in 0..1; Record.score names their kind."""

    widths: Widths
    upper_bounds: Widths
    estimate: Amount  # Ê(φ)
    reading: Amount  # the final one, after fine-tuning: Reading.amount
    interval: tuple[float, float]
    flags: tuple[str, ...]
    reference: Amount | None
    detail: dict[str, Any] | None
    parameters: Count  # without zeros where the method removes weights
    macs: Count  # per image, without those of zero weights likewise
    accuracy_before: Share  # after landing and batch-norm recalibration, before fine-tuning
    accuracy_after: Share


class Cost(_Frozen):
    """The work that finding and fine-tuning the network took."""

    training_iterations: Count
    search_samples: Count
    energy_queries: Count
    landing_readings: Count  # networks that the platform read for landing
    fine_tune_iterations: Count
    method_s: WallSeconds  # in the method itself
    fine_tune_s: WallSeconds
    # the dense network's, timed beside the run in the same process
    distillation_step_s: WallSeconds
    forward_s_per_image: WallSeconds


class EnergyFit(_Frozen):
    """How well the energy model describes the platform."""

    kind: str  # "bilinear" or "bilinear+linear"
    relative_error: float  # held-out, mean |Ê - E| / E
    skill: float  # relative_error over the error of always predicting the median
    dense_relative_error: float  # Ê(dense) / reading - 1
    samples: Count
    noise: float | None  # mean relative half width of the readings' intervals; None where they have none


class LocalFit(_Frozen):
    """How well the energy model of the run's budget describes networks near it, see shared.energy.LocalFit."""

    fingerprint: str  # of the budget's model
    factor: Amount  # on the global model; 1 where the kind of model has no correction
    error: float
    bias: float
    bias_interval: tuple[float, float]
    most_optimistic: float
    samples: Count


class Record(_Frozen):
    """One run: a method at a budget with a seed.

    `status` is "miss" when the budget was exceeded or the method failed; `measures` may be absent then.
    """

    schema_version: Literal[3] = SCHEMA
    key: str
    method: str
    title: str
    paper: str
    network: dict[str, Any]  # arguments of shared.networks.build for the network at its widths
    dataset: str
    score: str  # what the accuracies are: "top-1 accuracy", "mean IoU"
    platform: Platform
    protocol: Protocol
    seed: Count
    granularity: Granularity = "channels"  # what the method removes
    budget: Budget | None  # None for the dense control
    status: Literal["ok", "miss"]
    reason: str | None
    dense_accuracy: Share  # of the dense weights as delivered
    landing: Landing | None  # None without a budget, and for a run that missed before landing
    measures: Measures | None
    cost: Cost | None
    energy_fit: EnergyFit
    local_fit: LocalFit | None = None  # None without a budget, and in records from before there was one
    fingerprints: dict[str, str]  # dataset, dense_weights, profile, energy_model, code, results, compute
    notes: dict[str, Any]
    trace: dict[str, list[Any]]
    environment: dict[str, Any]  # commit, dirty, versions, host class, threads, compute, command, method_source
    network_sha256: str | None

    @model_validator(mode="after")
    def _is_whole(self) -> Record:
        if self.status == "ok" and self.measures is None:
            raise ValueError("a run without a miss has measures")
        if self.measures:
            widths, bounds = self.measures.widths, self.measures.upper_bounds
            if len(widths) != len(bounds):
                raise ValueError("there are not as many widths as upper bounds")
            if any(width > bound for width, bound in zip(widths, bounds, strict=True)):
                raise ValueError("a width is above its upper bound")
        return self


def read(folder: Path) -> Record:
    """The record in `folder`. Raises BadInput as `load` does."""
    return load(folder / RECORD_FILE)


def load(path: Path) -> Record:
    """The record in the file `path`.

    Raises BadInput naming the file when it is missing, is no record, has another schema, or holds values that no run
    can have.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"a record in {path}", error.strerror or str(error), "a folder of a finished run") from None
    hint = "removing it or running again"
    try:
        document = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"a record in {path}", f"no JSON ({error})", hint) from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise BadInput(f"a record in {path}", "JSON without a schema_version", hint)
    if (schema := document["schema_version"]) != SCHEMA:
        again = "the command that made it once more, which repeats the run"
        raise BadInput(f"a record of schema {SCHEMA} in {path}", f"schema {schema!r}", again)
    try:
        return Record.model_validate_json(content, strict=True)  # no number in quotes, no true for 1
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its start"
        raise BadInput(f"a record in {path}", f"{first['msg']} at {place}", hint) from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number that a run can have")


def to_json(record: Record) -> bytes:
    """Canonical, readable JSON of a record.

    A record from a file gives that file again: fields that are younger than it stay away.
    """
    document = record.model_dump(mode="json", exclude_unset=True) | {"schema_version": SCHEMA}
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()

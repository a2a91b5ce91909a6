"""A simulated platform's constants: one TOML file each, every value with its unit, its kind and where it comes from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from shared.errors import BadInput

FOLDER = Path(__file__).parent
MODEL_REVISION = 1  # raise it whenever a formula or a constant of kernels.py or simulator.py changes a joule


@dataclass(frozen=True)
class Parameters:
    """SI units throughout; the data files say where each value comes from."""

    sm_count: float  # streaming multiprocessors
    lanes_per_sm: float  # one multiply-add per lane and clock
    clock_hz: float
    l2_bytes: float
    l2_bytes_per_s: float
    dram_bytes_per_s: float
    power_cap_w: float  # idle power included
    idle_w: float  # what the meter shows with clocks up and nothing running
    busy_w: float  # clock tree and instruction issue while a kernel runs on every multiprocessor
    busy_floor: float  # share of busy_w that a kernel on a single multiprocessor already costs
    flop_j: float
    l2_byte_j: float
    dram_byte_j: float
    gemm_efficiency: float  # of peak, largest tile, aligned operands
    pointwise_efficiency: float  # a 1x1 convolution's relative to a wider kernel's
    dram_efficiency: float  # reachable share of dram_bytes_per_s, streaming
    gemv_efficiency: float  # the same for a matrix-vector product
    depthwise_instructions_per_tap: float
    host_call_s: float  # host time of one operator call of weight 1
    kernel_gap_s: float  # between the end of a kernel and the start of the next that waits for it
    sync_s: float  # from the last kernel's end to the host's noticing it
    reading_noise: float  # relative standard deviation of one reading


class Entry(BaseModel, extra="forbid"):
    """One constant of a data file."""

    value: float
    unit: str
    kind: Literal["published", "specification", "fitted", "assumed"]
    source: str


_SHARES = ("busy_floor", "gemm_efficiency", "pointwise_efficiency", "dram_efficiency", "gemv_efficiency")


def read(path: Path, names: set[str]) -> dict[str, Entry]:
    """The constants of a platform file, which has to have exactly those in `names`.

    Raises BadInput, naming file and entry, for unreadable TOML and for missing or unknown entries.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = {name: Entry.model_validate(table) for name, table in tables.items()}
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        first_line = str(error).splitlines()[0]
        raise BadInput(f"a platform file at {path}", first_line, "the layout of the other files beside it") from error
    if entries.keys() != names:
        wrong = sorted(entries.keys() ^ names)
        raise BadInput(f"exactly the known entries in {path.name}", wrong, "adding or removing these entries")
    return entries


def load(path: Path) -> tuple[Parameters, dict[str, Entry]]:
    """Read and check one platform file; returns the values and, by name, each value's unit, kind and source.

    Raises BadInput as `read` does, and for negative entries and shares above 1.
    """
    entries = read(path, {field.name for field in fields(Parameters)})
    for name, entry in entries.items():
        limit = 1.0 if name in _SHARES else 0.1 if name == "reading_noise" else float("inf")
        if not 0 <= entry.value <= limit or (name in _SHARES and entry.value == 0):
            raise BadInput(f"{name} within 0..{limit:g} in {path.name}", entry.value, "a value in the entry's unit")
    return Parameters(**{name: entry.value for name, entry in entries.items()}), entries

"""What is known of the rails of Jetson boards, and what an INA3221's resolution is worth on them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("jetson_rails.toml")
SHUNT_STEP_V = 40e-6  # data sheet; full scale 163.8 mV
BUS_STEP_V = 8e-3  # full scale 32.76 V
OFFSET_STEPS = 2  # how far below zero a rail without load may read


@dataclass(frozen=True)
class KnownRail:
    """A rail of a board: where its chip answers, its shunt, what hangs on it, and the rail it is part of, or ""."""

    board: str
    i2c_bus: int
    labels: tuple[str, ...]
    address: int
    channel: int
    shunt_ohms: float
    measures: str
    within: str


@cache
def known_rails() -> tuple[KnownRail, ...]:
    """All rails of the data file."""
    return tuple(
        KnownRail(board, entry["i2c_bus"], **(rail | {"labels": tuple(rail["labels"])}))
        for board, entry in tomllib.loads(DATA.read_text(encoding="utf-8")).items()
        for rail in entry["rails"]
    )


def known_rail(label: str) -> KnownRail | None:
    """The rail that a driver calls `label`; None for boards that the data file doesn't hold."""
    return next((rail for rail in known_rails() if label in rail.labels), None)


def shunt_ohms(label: str) -> float | None:
    """The shunt of the rail that a driver calls `label`, where it is known."""
    rail = known_rail(label)
    return None if rail is None else rail.shunt_ohms


def scope(label: str) -> str:
    """What a reading of this rail is of, as column heads say it."""
    rail = known_rail(label)
    return f"rail {label}" if rail is None else f"rail {label} ({rail.measures})"


def quantum_watts(volts: float, watts: float, ohms: float) -> float:
    """The step of power readings around `watts`: one step of the shunt's voltage and one of the rail's together."""
    return volts * SHUNT_STEP_V / ohms + (BUS_STEP_V * watts / volts if volts > 0 else 0.0)


def settled_watts(watts: float, quantum: float) -> float:
    """A reading with the sensor's offset below zero taken as 0 W; what is further below stays, for others to refuse."""
    return 0.0 if -OFFSET_STEPS * quantum <= watts < 0 else watts

"""Power rails of Jetson boards: addresses, shunts and scopes, and the INA3221's resolution on them in watts."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("jetson_rails.toml")
SHUNT_STEP_V = 40e-6  # shunt voltage per step (TI data sheet SBOS576); full scale 163.8 mV
BUS_STEP_V = 8e-3  # bus voltage per step; full scale 32.76 V
OFFSET_STEPS = 2  # an unloaded rail may read this many steps below zero


@dataclass(frozen=True)
class ListedRail:
    """A power rail of a board, as jetson_rails.toml lists it.

    Attributes:
        board: Name of the board.
        i2c_bus: Number of the I2C bus.
        labels: Names that kernel drivers give the rail; the first is L4T's.
        address: I2C address of its INA3221.
        channel: Channel of that chip, 1 to 3.
        shunt_ohms: Resistance of its shunt.
        measures: The hardware that it supplies.
        within: The rail that contains it, "" for none. Never add a rail to the one that contains it.
    """

    board: str
    i2c_bus: int
    labels: tuple[str, ...]
    address: int
    channel: int
    shunt_ohms: float
    measures: str
    within: str


@cache
def listed_rails() -> tuple[ListedRail, ...]:
    """All rails in jetson_rails.toml."""
    return tuple(
        ListedRail(board, entry["i2c_bus"], **(rail | {"labels": tuple(rail["labels"])}))
        for board, entry in tomllib.loads(DATA.read_text(encoding="utf-8")).items()
        for rail in entry["rails"]
    )


def listed_rail(label: str) -> ListedRail | None:
    """The rail with this driver label; None where jetson_rails.toml does not list it."""
    return next((rail for rail in listed_rails() if label in rail.labels), None)


def shunt_ohms(label: str) -> float | None:
    """The shunt of the rail with this driver label; None where jetson_rails.toml does not list it."""
    rail = listed_rail(label)
    return None if rail is None else rail.shunt_ohms


def scope(label: str) -> str:
    """The rail and the hardware that it supplies, for column heads: "rail VDD_IN (whole module)"."""
    rail = listed_rail(label)
    return f"rail {label}" if rail is None else f"rail {label} ({rail.measures})"


def quantum_watts(volts: float, watts: float, ohms: float) -> float:
    """Resolution of the power at `watts`: one step of the shunt voltage plus one step of the bus voltage, in watts.

    Example: 19 V over a shunt of 5 mOhm give 19 V * 40 uV / 5 mOhm = 0.152 W without load.
    """
    return volts * SHUNT_STEP_V / ohms + (BUS_STEP_V * watts / volts if volts > 0 else 0.0)


def settled_watts(watts: float, quantum: float) -> float:
    """`watts`, or 0 W where it is below zero by no more than the sensor's offset (`OFFSET_STEPS` steps of `quantum`).

    Lower values are returned unchanged; the integral refuses them, since they point to a shunt wired backwards.
    """
    return 0.0 if -OFFSET_STEPS * quantum <= watts < 0 else watts

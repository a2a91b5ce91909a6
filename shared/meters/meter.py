"""What a meter is, and what it says of a stretch of work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal


class MeterError(Exception):
    """A sensor that is missing, refuses, or answers nonsense: what was expected, what was got, what to try."""

    def __init__(self, expected: str, got: object, hint: str) -> None:
        self.expected, self.got, self.hint = expected, got, hint
        super().__init__(f"expected {expected}, got {got}; try {hint}")

    def __reduce__(self) -> tuple[object, tuple[str, str, str]]:
        """From one process to another, with what it says."""
        return MeterError, (self.expected, str(self.got), self.hint)


@dataclass(frozen=True)
class Window:
    """One stretch of work as a meter saw it.

    amount: in the meter's unit, gross. start_s, end_s: on the meter's clock. samples: power samples within the
    stretch, 0 for counters. quantum: the step of the amount that the sensor's resolution leaves open, 0 where it is
    negligible. flags: what a reader of the number should know ("throttled", "dropped samples", …).
    """

    amount: float
    start_s: float
    end_s: float
    samples: int = 0
    quantum: float = 0.0
    flags: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Finding:
    """One sensor that was looked for. where: the kind of sensor, or the device. detail: a trial reading, or how to get
    it."""

    where: str
    what: str
    found: bool
    detail: str


@dataclass(frozen=True)
class Source:
    """What a reading says of the meter, or the board, that took it; the fields are those of Meter."""

    name: str
    scope: str
    unit: Literal["J", "s"]
    method: Literal["counter", "integral", "clock"]
    simulated: bool = False


class Meter(ABC):
    """A sensor that is asked for the joules (or seconds) of a stretch of work.

    name: as `--meter` calls it. scope: what its amounts are of, as "GPU board", "module VDD_IN" or "wall time".
    method: how it comes to them. simulated: whether what it says is made up. period_s: between two updates of what it
    reads, 0 where that is of no account; windows are shifted by fractions of it.
    """

    name: str
    scope: str
    unit: Literal["J", "s"] = "J"
    method: Literal["counter", "integral", "clock"]
    simulated: bool = False
    period_s: float = 0.0

    @property
    def source(self) -> Source:
        """The meter as its readings name it."""
        return Source(self.name, self.scope, self.unit, self.method, self.simulated)

    @abstractmethod
    def start(self) -> None:
        """Begin a window. Raises MeterError when the sensor does not answer."""

    @abstractmethod
    def stop(self) -> Window:
        """End the window. Raises MeterError when it is not worth a number (fewer than two samples, say): never 0 J."""

    def facts(self) -> dict[str, object]:
        """What a record keeps of the sensor: driver, update period, rails, clocks, temperature; JSON values."""
        return {}

    def identity(self) -> str:
        """What tells this very sensor from others of its name and scope, and stays while it is the same."""
        return ""

    def close(self) -> None:
        """Let go of the sensor; closing twice does no harm."""
        return None

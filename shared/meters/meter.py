"""The interface of a meter, and the window that it measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from shared.board.runner import DroppedSample, MeterError  # noqa: F401 - defined in the one file that a board gets


@dataclass(frozen=True)
class Window:
    """What a meter measured between start() and stop().

    Attributes:
        amount: Joules or seconds, in the meter's unit. Idle power is not subtracted.
        start_s: Start of the window on the meter's clock.
        end_s: End of the window on the meter's clock.
        samples: Number of power samples in the window; 0 for counters and clocks.
        quantum: Resolution of the amount, in its unit: the step between two amounts that the sensor can tell apart.
            0 where it is negligible.
        flags: Warnings about the amount, such as "throttled: …" or "dropped samples".
    """

    amount: float
    start_s: float
    end_s: float
    samples: int = 0
    quantum: float = 0.0
    flags: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Duration of the window."""
        return self.end_s - self.start_s


@dataclass(eq=False)
class Source:
    """Where a reading comes from: a meter, or a board that measures by itself.

    Attributes:
        name: The meter's name on the command line (`--meter`).
        scope: The part of the hardware that the amounts cover, such as "GPU board" or "rail VDD_IN (whole module)".
        unit: "J" or "s".
        method: "counter" for the difference of an energy counter, "integral" for sampled power integrated over the
            window, "clock" for time.
        simulated: Whether the amounts do not come from the hardware that does the work.
    """

    name: str
    scope: str
    unit: Literal["J", "s"]
    method: Literal["counter", "integral", "clock"]
    simulated: bool = False


class Meter(Source, ABC):
    """A sensor that measures the joules or the seconds of whatever runs between start() and stop().

    Attributes:
        period_s: Seconds between two updates of the sensor, 0 where that does not matter. Visits start at different
            fractions of it, so that no part of the work always falls between two updates.
    """

    unit: Literal["J", "s"] = "J"
    period_s: float = 0.0

    @abstractmethod
    def start(self) -> None:
        """Begin a window. Raises MeterError when the sensor does not answer."""

    @abstractmethod
    def stop(self) -> Window:
        """End the window. Raises MeterError when it holds too little data for a number, instead of returning 0 J."""

    def facts(self) -> dict[str, object]:
        """State of the sensor for the record: driver, update period, rails, clocks, temperature; JSON values."""
        return {}

    def identity(self) -> str:
        """A text that differs between two sensors of the same name and scope, and is stable for one sensor."""
        return ""

    def close(self) -> None:
        """Release the sensor. A second call has no effect."""
        return None

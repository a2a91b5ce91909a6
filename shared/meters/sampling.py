"""What all meters share that read a power and integrate it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

from shared.meters.meter import Meter, MeterError, Window
from shared.meters.signal import integral_joules
from shared.meters.timing import Clock, MachineClock


class SampledMeter(Meter):
    """Polls `read_watts` beside the work and integrates over exactly the window.

    period_s: between two polls. Sampling begins before the window and ends after it, `margin_s` each, so that power at
    the window's edges is known from both sides.
    """

    unit: Literal["J"] = "J"
    method: Literal["integral"] = "integral"

    def __init__(self, period_s: float, *, margin_s: float | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or MachineClock()
        self.period_s, self.margin_s = period_s, 2 * period_s if margin_s is None else margin_s
        self._times_s: list[float] = []
        self._watts: list[float] = []
        self._stop: Callable[[], None] | None = None
        self._start_s = 0.0

    @abstractmethod
    def read_watts(self) -> float:
        """One reading in watts. Raises MeterError when the sensor does not answer."""

    def start(self) -> None:
        """See Meter."""
        self._times_s, self._watts = [], []
        self._stop = self.clock.every(self.period_s, self._sample)
        self.clock.sleep(self.margin_s)
        self._start_s = self.clock.now_s()

    def stop(self) -> Window:
        """See Meter."""
        assert self._stop is not None, "start() first"
        end_s = self.clock.now_s()
        self.clock.sleep(self.margin_s)
        self._stop()
        try:
            joules = integral_joules(self._times_s, self._watts, self._start_s, end_s)
        except ValueError as error:
            raise MeterError(f"a trace of power from {self.name}", error, "a longer window") from error
        inside = sum(self._start_s <= moment <= end_s for moment in self._times_s)
        return Window(joules, self._start_s, end_s, samples=inside)

    def _sample(self) -> None:
        before_s = self.clock.now_s()
        watts = self.read_watts()
        self._times_s.append((before_s + self.clock.now_s()) / 2)  # reading takes its time
        self._watts.append(watts)

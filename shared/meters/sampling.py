"""What all meters share that read a power and integrate it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

from shared.meters.meter import Meter, MeterError, Window
from shared.meters.signal import sampled_window
from shared.meters.timing import Clock, MachineClock


class DroppedSample(MeterError):
    """One reading that failed where the next one may not (a bus that was busy, say): skipped, and flagged."""


class SampledMeter(Meter):
    """Polls `read_watts` beside the work and integrates over exactly the window.

    period_s: between two polls. The first poll is just before the window and the last one past its end, so that power
    is known at both. Nothing waits in between: where the same work ran just before, a sensor that lags shows its power
    from the start. quantum_watts: the step of the readings; a subclass sets it where it is not negligible.

    Flags: "late samples" where the window has a gap of more than 2.5 periods, "dropped samples" where readings failed.
    """

    unit: Literal["J"] = "J"
    method: Literal["integral"] = "integral"
    quantum_watts: float = 0.0

    def __init__(self, period_s: float, *, clock: Clock | None = None) -> None:
        self.clock = clock or MachineClock()
        self.period_s = period_s
        self._times_s: list[float] = []
        self._watts: list[float] = []
        self._dropped = 0
        self._stop: Callable[[], None] | None = None
        self._start_s = 0.0

    @abstractmethod
    def read_watts(self) -> float:
        """One reading in watts. Raises MeterError when the sensor does not answer, DroppedSample if it soon may."""

    def start(self) -> None:
        """See Meter."""
        self._times_s, self._watts, self._dropped = [], [], 0
        self._stop = self.clock.every(self.period_s, self._sample)
        self._start_s = self.clock.now_s()

    def stop(self) -> Window:
        """See Meter."""
        assert self._stop is not None, "start() first"
        end_s = self.clock.now_s()
        self._stop()
        if not self._times_s or self.clock.now_s() > self._times_s[-1]:
            self._sample()
        return sampled_window(
            self._times_s,
            self._watts,
            self._start_s,
            end_s,
            period_s=self.period_s,
            quantum_watts=self.quantum_watts,
            dropped=self._dropped,
        )

    def _sample(self) -> None:
        before_s = self.clock.now_s()
        try:
            watts = self.read_watts()
        except DroppedSample:
            self._dropped += 1
            return
        self._times_s.append((before_s + self.clock.now_s()) / 2)  # reading takes its time
        self._watts.append(watts)

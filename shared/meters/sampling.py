"""The base class of meters that sample power and integrate it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from shared.meters.meter import DroppedSample, Meter, Window
from shared.meters.signal import PowerTrace
from shared.meters.timing import Clock


class SampledMeter(Meter):
    """Samples `read_watts` every `period_s` while the work runs, and integrates over exactly the window.

    The first sample is taken just before the window and the last one after it, so power is known at both edges. The
    meter does not wait at the edges for a slow sensor to settle: the warm-up just before the window is the same work.
    quantum_watts: resolution of a sample; a subclass sets it where it is not negligible.

    Flags: "late samples" for a gap of more than 2.5 periods in the window, "dropped samples" for samples that failed.
    """

    method = "integral"
    quantum_watts: float = 0.0

    def __init__(self, period_s: float, *, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.period_s = period_s
        self._times_s: list[float] = []
        self._watts: list[float] = []
        self._dropped = 0
        self._stop: Callable[[], None] | None = None
        self._start_s = 0.0

    @abstractmethod
    def read_watts(self) -> float:
        """One sample in watts. Raises DroppedSample for a fault that may pass, MeterError for any other."""

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
        trace = PowerTrace(self._times_s, self._watts, self.period_s, self.quantum_watts, self._dropped)
        return trace.window(self._start_s, end_s)

    def _sample(self) -> None:
        before_s = self.clock.now_s()
        try:
            watts = self.read_watts()
        except DroppedSample:
            self._dropped += 1
            return
        # a read may take milliseconds; the middle is the best guess of when the sensor was sampled
        self._times_s.append((before_s + self.clock.now_s()) / 2)
        self._watts.append(watts)

"""Wall-clock time as a meter, for latency."""

from __future__ import annotations

from shared.meters.meter import Meter, MeterError, Window
from shared.meters.timing import Clock


class ClockMeter(Meter):
    """Seconds between start() and stop(). Work on an accelerator must synchronise before it returns."""

    name = "clock"
    scope = "wall time"
    unit = "s"
    method = "clock"

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._start_s: float | None = None

    def start(self) -> None:
        """See Meter."""
        self._start_s = self.clock.now_s()

    def stop(self) -> Window:
        """See Meter. Raises MeterError when the clock has not moved."""
        end_s = self.clock.now_s()
        assert self._start_s is not None, "start() first"
        if end_s <= self._start_s:
            raise MeterError("a window longer than 0 s", "0 s by the clock", "more runs per window")
        return Window(end_s - self._start_s, self._start_s, end_s)

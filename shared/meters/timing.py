"""The clock that meters and measurements run on. Tests pass one that nobody has to wait for."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable


class Clock(ABC):
    """Seconds that never go back, waiting, and work that repeats beside the caller's."""

    @abstractmethod
    def now_s(self) -> float:
        """Seconds since some moment, never less than before."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Wait."""

    @abstractmethod
    def every(self, period_s: float, work: Callable[[], None]) -> Callable[[], None]:
        """Call `work` now and then each `period_s`, beside what the caller does, until the result is called.

        Calls that are late are not made up for. What the first `work` raises is raised here, by every clock. What a
        later one raises ends the repeating and is raised by the result.
        """


class MachineClock(Clock):
    """The machine's monotonic clock; `every` works in a thread."""

    def now_s(self) -> float:
        """See Clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See Clock."""
        time.sleep(seconds)

    def every(self, period_s: float, work: Callable[[], None]) -> Callable[[], None]:
        """See Clock."""
        ended, failures = threading.Event(), list[BaseException]()
        work()

        def loop() -> None:
            due = time.monotonic() + period_s
            try:
                while not ended.wait(max(0.0, due - time.monotonic())):
                    work()
                    due = max(due + period_s, time.monotonic())
            except BaseException as error:  # for the caller, in its own thread
                failures.append(error)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()

        def stop() -> None:
            ended.set()
            thread.join()
            if failures:
                raise failures[0]

        return stop

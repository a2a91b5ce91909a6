"""The clock that meters and measurements run on. Tests pass a subclass that nobody has to wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Clock:
    """The monotonic clock of this machine, which can also wait and repeat a function in the background."""

    def now_s(self) -> float:
        """Seconds since an arbitrary moment; never decreases."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for this long."""
        time.sleep(seconds)

    def every(self, period_s: float, work: Callable[[], None]) -> Callable[[], None]:
        """Call `work` now and then every `period_s` in the background; returns a function that ends this.

        Late calls are not made up for. An exception of the first call is raised here. An exception of a later call
        ends the repetition and is raised by the returned function.
        """
        ended, failures = threading.Event(), list[BaseException]()
        work()  # here and not in the thread, so that a fault surfaces at once

        def loop() -> None:
            due = time.monotonic() + period_s
            try:
                while not ended.wait(max(0.0, due - time.monotonic())):
                    work()
                    due = max(due + period_s, time.monotonic())
            except BaseException as error:  # stop() raises it in the caller's thread
                failures.append(error)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()

        def stop() -> None:
            ended.set()
            thread.join()
            if failures:
                raise failures[0]

        return stop

"""Measures the joules or seconds of one run of a work, by a protocol for sensors that see only part of the time.

After Z. Yang, K. Adamek, W. Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention", SC 2024: windows of
at least 5 s and 32 runs, several of them, each at another phase of the sensor's update period.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from shared.meters.meter import Meter, MeterError, Window
from shared.meters.reading import Reading, Visit, precise, summarise
from shared.meters.settings import Settings
from shared.meters.timing import Clock

Work = Callable[[], object]  # one run, complete when it returns
Part = TypeVar("Part", bound=Visit | Window)  # result of one attempt; the window of an idle measurement

ATTEMPTS, REPEATED = 3, "window repeated"  # one sensor fault must not end hours of measuring


def measure_all(works: Mapping[str, Work], meter: Meter, settings: Settings, clock: Clock) -> dict[str, Reading]:
    """One reading of each work. Works are visited there and back (A B C C B A), so that drift affects all alike.

    clock: the clock of the meter. Raises MeterError when the sensor fails `ATTEMPTS` times in a row, and any exception
    of a work. An example with two works and the wall clock as the meter:

    >>> import time
    >>> from shared.meters import Clock, ClockMeter, Settings, measure_all
    >>> clock = Clock()
    >>> rests = {"warmup_s": 0.01, "cool_down_s": 0.0, "idle_s": 0.0}
    >>> settings = Settings("example", visits=4, window_s=0.02, runs=3, **rests, target=0.05, limit_s=1.0)
    >>> works = {"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.03)}
    >>> readings = measure_all(works, ClockMeter(clock), settings, clock)
    >>> readings["short"].amount < readings["long"].amount  # seconds of one run
    True
    >>> low, high = readings["long"].interval
    >>> print(f"{readings['long'].amount:.3f} {readings['long'].unit}, {low:.3f} to {high:.3f}")  # doctest: +SKIP
    0.030 s, 0.030 to 0.031
    """
    visits: dict[str, list[Visit]] = {name: [] for name in works}
    start_s = clock.now_s()
    idle = [_idle(meter, settings, clock)]
    while True:  # each pass adds two visits to every work
        for name in (*works, *reversed(list(works))):
            # The sensor may see only part of its period. Visits at different phases let it see every part of the work.
            shift = len(visits[name]) % settings.visits / settings.visits
            clock.sleep(settings.cool_down_s + shift * meter.period_s)
            visits[name].append(_with_retries(partial(_visit, works[name], meter, settings, clock), settings, clock))
        if min(map(len, visits.values())) < settings.visits:
            continue
        enough = all(precise(meter, own, settings.target) for own in visits.values())
        if enough or clock.now_s() - start_s >= settings.limit_s * len(works):
            break
    sensor = meter.facts()  # asked before the idle window, in which clocks and temperature are lower
    idle.append(_idle(meter, settings, clock))
    idle_windows = [window for window in idle if window]
    watts = tuple(window.amount / window.seconds for window in idle_windows)
    flags = {flag for window in idle_windows for flag in window.flags}
    return {name: summarise(meter, own, watts, settings, sensor, flags) for name, own in visits.items()}


def _read(run: Work, meter: Meter) -> Window:
    """One window around `run`. The meter is stopped even when `run` raises."""
    meter.start()
    try:
        run()
    except BaseException:
        with contextlib.suppress(MeterError):
            meter.stop()
        raise
    return meter.stop()


def _idle(meter: Meter, settings: Settings, clock: Clock) -> Window | None:
    if meter.method == "clock":
        return None

    def rest() -> Window:
        clock.sleep(settings.cool_down_s)
        return _read(lambda: clock.sleep(settings.idle_s), meter)

    return _with_retries(rest, settings, clock)


def _with_retries(attempt: Callable[[], Part], settings: Settings, clock: Clock) -> Part:
    """The result of `attempt`, repeated where the sensor failed; it then has the flag `REPEATED`.

    Raises MeterError when the last of `ATTEMPTS` fails too.
    """
    failures = 0
    while True:
        try:
            part = attempt()
            return replace(part, flags=(*part.flags, REPEATED)) if failures else part
        except MeterError:
            failures += 1
            if failures == ATTEMPTS:
                raise
            clock.sleep(settings.cool_down_s)


def _visit(work: Work, meter: Meter, settings: Settings, clock: Clock) -> Visit:
    warm_s = clock.now_s() + settings.warmup_s
    while clock.now_s() < warm_s:
        work()
    window_start_s, runs = clock.now_s(), 0

    def enough() -> bool:
        return runs >= settings.runs and clock.now_s() - window_start_s >= settings.window_s

    if meter.method == "clock":  # a clock resolves single runs, and their median ignores interruptions
        windows = []
        while not enough():
            windows.append(_read(work, meter))
            runs += 1
        median_s = float(np.median([window.amount for window in windows]))
        flags = {flag for window in windows for flag in window.flags}
        return Visit(median_s, windows[0].quantum, median_s, runs, 0, tuple(flags))

    def work_on() -> None:
        nonlocal window_start_s, runs
        window_start_s = clock.now_s()  # without the time that starting the meter took
        while not enough():
            work()
            runs += 1

    window = _read(work_on, meter)
    per_run = (window.amount / runs, window.quantum / runs, window.seconds / runs)
    return Visit(*per_run, runs, window.samples, window.flags)

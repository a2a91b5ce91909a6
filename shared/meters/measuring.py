"""Joules or seconds of one run of a piece of work, by a protocol that sensors with blind spots need.

After Z. Yang, K. Adamek, W. Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention", SC 2024: windows of
5 s and 32 runs at least, several of them, each shifted against the sensor's updates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from shared.meters.meter import Meter, MeterError, Window
from shared.meters.reading import Reading, Visit, precise, reading
from shared.meters.settings import Settings
from shared.meters.timing import Clock

Work = Callable[[], object]  # one run, over when it returns
Part = TypeVar("Part")  # what is read in one go: a visit, or the window of a rest

ATTEMPTS, REPEATED = 3, "window repeated"  # a sensor that failed once must not end hours of readings


def measure_all(works: Mapping[str, Work], meter: Meter, settings: Settings, clock: Clock) -> dict[str, Reading]:
    """What one run of each piece of work costs, visited there and back (A B C C B A) so that a drift meets all alike.

    clock: the one that the meter runs on. Raises MeterError when the sensor fails, and what a work raises.
    """
    visits: dict[str, list[Visit]] = {name: [] for name in works}
    began_s = clock.now_s()
    idle = [_idle(meter, settings, clock)]
    while True:
        for name in (*works, *reversed(list(works))):
            shift = len(visits[name]) % settings.visits / settings.visits
            clock.sleep(settings.cool_down_s + shift * meter.period_s)
            visits[name].append(_visited(works[name], meter, settings, clock))
        if min(map(len, visits.values())) < settings.visits:
            continue
        enough = all(precise(meter.source, done, settings.target) for done in visits.values())
        if enough or clock.now_s() - began_s >= settings.limit_s * len(works):
            break
    sensor = meter.facts()  # of now: at rest its clocks are others
    idle.append(_idle(meter, settings, clock))
    rests = [window for window in idle if window]
    watts = tuple(window.amount / window.seconds for window in rests)
    flags = {flag for window in rests for flag in window.flags}
    return {name: reading(meter.source, done, watts, settings, sensor, flags) for name, done in visits.items()}


def _read(run: Work, meter: Meter) -> Window:
    """One window around `run`; the meter is stopped whatever happens."""
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

    window, repeated = _insisted(rest, settings, clock)
    return replace(window, flags=(*window.flags, REPEATED)) if repeated else window


def _visited(work: Work, meter: Meter, settings: Settings, clock: Clock) -> Visit:
    visit, repeated = _insisted(lambda: _visit(work, meter, settings, clock), settings, clock)
    return replace(visit, flags=(*visit.flags, REPEATED)) if repeated else visit


def _insisted(attempt: Callable[[], Part], settings: Settings, clock: Clock) -> tuple[Part, bool]:
    """What `attempt` gives, begun anew where the sensor failed, and whether it was; raises MeterError when it fails
    again and again.
    """
    for failures in range(ATTEMPTS - 1):
        try:
            return attempt(), failures > 0
        except MeterError:
            clock.sleep(settings.cool_down_s)
    return attempt(), True


def _visit(work: Work, meter: Meter, settings: Settings, clock: Clock) -> Visit:
    warm_s = clock.now_s() + settings.warmup_s
    while clock.now_s() < warm_s:
        work()
    begin_s, runs = clock.now_s(), 0

    def enough() -> bool:
        return runs >= settings.runs and clock.now_s() - begin_s >= settings.window_s

    if meter.method == "clock":  # resolves each run, and its median is safe from interruptions
        windows = []
        while not enough():
            windows.append(_read(work, meter))
            runs += 1
        median_s = float(np.median([window.amount for window in windows]))
        flags = {flag for window in windows for flag in window.flags}
        return Visit(median_s, windows[0].quantum, median_s, runs, 0, tuple(flags))

    def work_on() -> None:
        nonlocal begin_s, runs
        begin_s = clock.now_s()
        while not enough():
            work()
            runs += 1

    window = _read(work_on, meter)
    each = (window.amount / runs, window.quantum / runs, window.seconds / runs)
    return Visit(*each, runs, window.samples, window.flags)

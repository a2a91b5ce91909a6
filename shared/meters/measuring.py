"""Joules or seconds of one run of a piece of work, by a protocol that sensors with blind spots need.

After Z. Yang, K. Adamek, W. Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention", SC 2024: windows of
5 s and 32 runs at least, several of them, each shifted against the sensor's updates.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar
from typing import Protocol as TypingProtocol

import numpy as np
from numpy.typing import ArrayLike

from shared.meters.meter import Meter, MeterError, Window
from shared.meters.timing import Clock

Work = Callable[[], object]  # one run, over when it returns
Part = TypeVar("Part")  # what is read in one go: a visit, or the window of a rest

CONFIDENCE = 0.98  # a nominal 0.95 falls short of itself for eight visits to a sensor with drop-outs
RESAMPLES = 5000
IDLE_DRIFT = 0.10
DRIFTED = "idle power drifted"
ATTEMPTS, REPEATED = 3, "window repeated"  # a sensor that failed once must not end hours of readings


@dataclass(frozen=True)
class Settings:
    """How long, how often, until when.

    visits: to each piece of work at least, an even number; they start at as many phases of the sensor's period.
    A visit: cool_down_s of rest, warmup_s of the work unread, then at least window_s and `runs` of it read.
    idle_s: of rest read before the first and after the last visit. target: relative half width of the bootstrap
    interval at which visits end; limit_s: for each piece of work, after which they end too, but not below `visits`.
    """

    name: str
    visits: int
    window_s: float
    runs: int
    warmup_s: float
    cool_down_s: float
    idle_s: float
    target: float
    limit_s: float

    def __post_init__(self) -> None:
        if self.visits < 2 or self.visits % 2:
            raise ValueError(f"expected an even number of visits, 2 or more, got {self.visits}; try 8")


FULL = Settings("full", 8, window_s=5.0, runs=32, warmup_s=2.0, cool_down_s=5.0, idle_s=5.0, target=0.01, limit_s=300.0)
SHORT = Settings("short", 4, window_s=1.0, runs=8, warmup_s=0.5, cool_down_s=1.0, idle_s=1.0, target=0.03, limit_s=30.0)


@dataclass(frozen=True)
class Reading:
    """What one run costs; `dataclasses.asdict` of it is JSON.

    amount: in `unit`, gross; joules: mean over visits; seconds: median over visits of each one's median run.
    idle_subtracted: amount less the idle power over the run's time; None for a clock. idle_watts: before and after.
    interval: by bootstrap over visits, widened on both sides by half the sensor's quantum; nominally 98 %, so that 95 %
    of them hold the truth. spread: standard deviation over visits. seconds: of one run. repeats: runs read. samples: of
    power, in all. ended: what ended the visits. settings: their name. sensor: the meter's facts, asked after
    the last visit.
    """

    amount: float
    idle_subtracted: float | None
    unit: Literal["J", "s"]
    interval: tuple[float, float]
    spread: float
    quantum: float
    seconds: float
    repeats: int
    visits: int
    samples: int
    ended: Literal["target", "limit"]
    settings: str
    meter: str
    scope: str
    method: Literal["counter", "integral", "clock"]
    simulated: bool
    idle_watts: tuple[float, float] | None
    flags: tuple[str, ...]
    sensor: dict[str, object]

    def per(self, count: int) -> Reading:
        """The same for one of the `count` images that a run takes at once."""
        low, high = self.interval
        idle_subtracted = None if self.idle_subtracted is None else self.idle_subtracted / count
        return replace(
            self,
            amount=self.amount / count,
            idle_subtracted=idle_subtracted,
            interval=(low / count, high / count),
            spread=self.spread / count,
            quantum=self.quantum / count,
            seconds=self.seconds / count,
        )


@dataclass(frozen=True)
class Visit:
    """What was read of one piece of work at one time. Per run: amount, quantum, seconds. In all: runs, samples of
    power, flags.
    """

    amount: float
    quantum: float
    seconds: float
    runs: int
    samples: int
    flags: tuple[str, ...]


class Source(TypingProtocol):
    """What a reading says of who has read it, as `Meter` explains it."""

    name: str
    scope: str
    unit: Literal["J", "s"]
    method: Literal["counter", "integral", "clock"]
    simulated: bool


def measure(work: Work, meter: Meter, settings: Settings, clock: Clock) -> Reading:
    """What one run of `work` costs, see measure_all."""
    return measure_all({"work": work}, meter, settings, clock)["work"]


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
        precise = all(_precise(meter, done, settings.target) for done in visits.values())
        if precise or clock.now_s() - began_s >= settings.limit_s * len(works):
            break
    sensor = meter.facts()  # of now: at rest its clocks are others
    idle.append(_idle(meter, settings, clock))
    rests = [window for window in idle if window]
    watts = tuple(window.amount / window.seconds for window in rests)
    flags = {flag for window in rests for flag in window.flags}
    return {name: reading(meter, done, watts, settings, sensor, flags) for name, done in visits.items()}


def bootstrap_interval(
    values: ArrayLike, statistic: Literal["mean", "median"] = "mean", *, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean or the median of `values` (n,), n >= 2, widened for few values.

    Plain percentiles are too narrow for small n. Their distances from the estimate are scaled so that the interval of
    the mean becomes Student's where resampled means are normal, and stays uneven where they are. After the remedy of
    T. Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015, which moves the
    percentiles instead and so needs far more resamples.
    """
    from scipy import stats

    from shared.rng import numpy_generator  # brings torch along, which takes seconds

    sample = np.asarray(values, dtype=np.float64)
    n, tail = sample.size, (1 - confidence) / 2
    drawn = sample[numpy_generator(seed, "bootstrap").integers(0, n, (RESAMPLES, n))]
    take = np.mean if statistic == "mean" else np.median
    estimate, percentiles = float(take(sample)), np.quantile(take(drawn, axis=1), [tail, 1 - tail])
    widening = math.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1) / stats.norm.ppf(tail)
    low, high = estimate + widening * (percentiles - estimate)
    return float(low), float(high)


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


def _statistic(meter: Source) -> Literal["mean", "median"]:
    return "median" if meter.method == "clock" else "mean"


def _precise(meter: Source, visits: list[Visit], target: float) -> bool:
    """Whether the interval is narrow enough; without the quantum, which more visits would not shrink."""
    amounts = [visit.amount for visit in visits]
    low, high = bootstrap_interval(amounts, _statistic(meter))
    return (high - low) / 2 <= target * abs(float(np.mean(amounts)))


def reading(
    meter: Source,
    visits: list[Visit],
    idle_watts: Sequence[float],
    settings: Settings,
    sensor: dict[str, object],
    flags: Iterable[str] = (),
) -> Reading:
    """The reading that two or more visits make.

    idle_watts: before the first and after the last visit; empty where no power was read. flags: beside the visits' own.
    """
    amounts = np.array([visit.amount for visit in visits])
    seconds_each = [visit.seconds for visit in visits]
    median = _statistic(meter) == "median"
    amount = float(np.median(amounts) if median else amounts.mean())
    seconds = float(np.median(seconds_each) if median else np.mean(seconds_each))
    quantum = float(np.mean([visit.quantum for visit in visits]))
    low, high = bootstrap_interval(amounts, _statistic(meter))
    told = {flag for visit in visits for flag in visit.flags} | set(flags)
    rest = None
    if idle_watts:
        rest = before, after = idle_watts[0], idle_watts[-1]
        if abs(after - before) > IDLE_DRIFT * before:
            told.add(DRIFTED)
    return Reading(
        amount=amount,
        idle_subtracted=amount - sum(rest) / 2 * seconds if rest else None,
        unit=meter.unit,
        interval=(low - quantum / 2, high + quantum / 2),
        spread=float(amounts.std(ddof=1)),
        quantum=quantum,
        seconds=seconds,
        repeats=sum(visit.runs for visit in visits),
        visits=len(visits),
        samples=sum(visit.samples for visit in visits),
        ended="target" if _precise(meter, visits, settings.target) else "limit",
        settings=settings.name,
        meter=meter.name,
        scope=meter.scope,
        method=meter.method,
        simulated=meter.simulated,
        idle_watts=rest,
        flags=tuple(sorted(told)),
        sensor=sensor,
    )

"""A reading: what visits to one piece of work, whoever took them, say of one run, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from shared.meters.meter import MeterError, Source
from shared.meters.settings import Settings

CONFIDENCE = 0.98  # a nominal 0.95 falls short of itself for eight visits to a sensor with drop-outs
RESAMPLES = 5000
IDLE_DRIFT = 0.10
DRIFTED = "idle power drifted"


class Held(NamedTuple):
    """A reading held against another one, in its unit; error: the standard error of the amount over visits."""

    amount: float
    interval: tuple[float, float]
    error: float


@dataclass(frozen=True)
class Reading:
    """What one run costs; `dataclasses.asdict` of it is JSON.

    amount: in `unit`, gross; joules: mean over visits; seconds: median over visits of each one's median run.
    idle_subtracted: amount less the idle power over the run's time; None for a clock. idle_watts: before and after.
    interval: by bootstrap over visits, widened on both sides by half the sensor's quantum; nominally 98 %, so that 95 %
    of them hold the truth. spread: standard deviation over visits. seconds: of one run. repeats: runs read. amounts:
    of each visit. samples: of power, in all. ended: what ended the visits. settings: their name. sensor: the meter's
    facts, asked after the last visit.
    """

    amount: float
    idle_subtracted: float | None
    unit: Literal["J", "s"]
    interval: tuple[float, float]
    spread: float
    quantum: float
    seconds: float
    repeats: int
    amounts: tuple[float, ...]
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
            amounts=tuple(amount / count for amount in self.amounts),
        )

    def held_against(self, other: Reading, standard: float) -> Held:
        """What this reading would be on a day when `other`, visited in turns with it, reads `standard`.

        A machine that slows or warms up does so for both, so that its drift is gone: each visit is taken as a share of
        the other's visit of the same turn, and the interval is that of the shares, with half of both quanta. Raises
        MeterError where the other was read as nothing, ValueError where they were not visited equally often.
        """
        if min(other.amounts) <= 0:
            got = f"{min(other.amounts):g} {other.unit} by {other.meter}"
            raise MeterError("amounts above 0 that others can be held against", got, "another meter or rail")
        from scipy import stats

        shares = np.array(self.amounts) / np.array(other.amounts)
        statistic = _statistic(self)
        share = float(np.median(shares) if statistic == "median" else shares.mean())
        low, high = bootstrap_interval(shares, statistic)
        blur = (self.quantum + share * other.quantum) / other.amount / 2
        error = (high - low) / 2 / stats.t.ppf((1 + CONFIDENCE) / 2, len(shares) - 1)
        return Held(share * standard, ((low - blur) * standard, (high + blur) * standard), error * standard)


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


def _statistic(source: Source | Reading) -> Literal["mean", "median"]:
    return "median" if source.method == "clock" else "mean"


def precise(source: Source, visits: list[Visit], target: float) -> bool:
    """Whether the interval is narrow enough; without the quantum, which more visits would not shrink."""
    amounts = [visit.amount for visit in visits]
    low, high = bootstrap_interval(amounts, _statistic(source))
    return (high - low) / 2 <= target * abs(float(np.mean(amounts)))


def reading(
    source: Source,
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
    median = _statistic(source) == "median"
    amount = float(np.median(amounts) if median else amounts.mean())
    seconds = float(np.median(seconds_each) if median else np.mean(seconds_each))
    quantum = float(np.mean([visit.quantum for visit in visits]))
    low, high = bootstrap_interval(amounts, _statistic(source))
    told = {flag for visit in visits for flag in visit.flags} | set(flags)
    rest = None
    if idle_watts:
        rest = before, after = idle_watts[0], idle_watts[-1]
        if abs(after - before) > IDLE_DRIFT * before:
            told.add(DRIFTED)
    return Reading(
        amount=amount,
        idle_subtracted=amount - sum(rest) / 2 * seconds if rest else None,
        unit=source.unit,
        interval=(low - quantum / 2, high + quantum / 2),
        spread=float(amounts.std(ddof=1)),
        quantum=quantum,
        seconds=seconds,
        repeats=sum(visit.runs for visit in visits),
        amounts=tuple(amounts.tolist()),
        samples=sum(visit.samples for visit in visits),
        ended="target" if precise(source, visits, settings.target) else "limit",
        settings=settings.name,
        meter=source.name,
        scope=source.scope,
        method=source.method,
        simulated=source.simulated,
        idle_watts=rest,
        flags=tuple(sorted(told)),
        sensor=sensor,
    )

"""A reading: what one run of a work costs, computed from several visits, with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from shared.meters.meter import MeterError, Source
from shared.meters.settings import Settings

CONFIDENCE = 0.98  # nominal; for eight visits and a sensor that drops samples, 0.95 covers the truth too rarely
RESAMPLES = 5000  # of the bootstrap
IDLE_DRIFT = 0.10  # relative change of idle power that gets a flag
DRIFTED = "idle power drifted"


class DriftCorrected(NamedTuple):
    """A drift-corrected reading."""

    amount: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Reading:
    """The joules or seconds that one run of a work costs. `dataclasses.asdict` of it holds JSON values only.

    Attributes:
        amount: Cost of one run, in `unit`; idle power is not subtracted. Joules are the mean over visits, seconds the
            median over visits of each visit's median run.
        idle_subtracted: The amount minus mean idle power times `seconds`; None for a clock.
        unit: "J" or "s".
        interval: Bootstrap confidence interval of the amount over visits, widened on both sides by half the quantum.
            Nominally 98 %, so that at least 95 % of such intervals cover the true amount.
        spread: Standard deviation of the amounts over visits.
        quantum: The sensor's resolution of the amount, in `unit`.
        seconds: Duration of one run.
        repeats: Number of measured runs, over all visits.
        amounts: The amount of each visit, in order.
        samples: Number of power samples, over all visits; 0 for counters and clocks.
        ended: Whether the visits reached the precision of the settings ("target") or their time limit ("limit").
        settings: Name of the settings.
        meter: Name of the meter.
        scope: The part of the hardware that the amount covers.
        method: "counter", "integral" or "clock", as in Meter.
        simulated: Whether the amount does not come from the hardware that did the work.
        idle_watts: Idle power before the first and after the last visit; None for a clock.
        flags: Warnings about the amount.
        sensor: The meter's facts, asked after the last visit.
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
        """The reading per image, where one run infers a batch of `count` images."""
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

    def relative_to(self, other: Reading, standard: float) -> DriftCorrected:
        """Drift correction: the ratio of this reading to `other`, times `standard`.

        Both works must have been visited in turns. A machine that slows down or warms up does so for both, and the
        ratio of two visits of the same turn cancels it. The result is the mean of these ratios, for clocks the median;
        the interval is that of the ratios, widened by half of both quanta. Example: `other` is the dense network, which
        read 0.80 J when budgets were fixed (`standard`). Now it reads 1.00 J and this network 0.60 J, so this network
        counts as 0.60 / 1.00 * 0.80 J = 0.48 J.

        Raises MeterError where a visit to `other` read 0, ValueError where the numbers of visits differ.
        """
        if min(other.amounts) <= 0:
            got = f"{min(other.amounts):g} {other.unit} by {other.meter}"
            raise MeterError("amounts above 0 in the reference for drift correction", got, "another meter or rail")
        ratios = np.array(self.amounts) / np.array(other.amounts)
        average = _average(self.method)
        ratio = float(average(ratios))
        low, high = bootstrap_interval(ratios, average)
        half_quanta = (self.quantum + ratio * other.quantum) / other.amount / 2
        return DriftCorrected(ratio * standard, ((low - half_quanta) * standard, (high + half_quanta) * standard))


@dataclass(frozen=True)
class Visit:
    """One visit to a work.

    Attributes:
        amount: Joules or seconds per run; idle power is not subtracted.
        quantum: The sensor's resolution of the amount, per run.
        seconds: Duration of one run.
        runs: Number of measured runs.
        samples: Number of power samples in the visit.
        flags: Warnings of the meter.
    """

    amount: float
    quantum: float
    seconds: float
    runs: int
    samples: int
    flags: tuple[str, ...]


def bootstrap_interval(
    values: ArrayLike, average: Callable[..., Any] = np.mean, *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile bootstrap interval of the average (np.mean, np.median) of `values` (n,), n >= 2, widened for few.

    Plain percentile intervals are too narrow for small n. Here their distances from the estimate are scaled by
    sqrt(n / (n - 1)) times the ratio of Student's to the normal quantile. Where resampled means are normal, the result
    is Student's interval; where they are skewed, it stays asymmetric. This follows T. Hesterberg, "What Teachers Should
    Know About the Bootstrap", The American Statistician 69, 2015, which shifts the percentiles instead and needs far
    more resamples for that.
    """
    from scipy import stats

    from shared.rng import numpy_generator  # imports torch, which takes seconds

    sample = np.asarray(values, dtype=np.float64)
    n, tail = sample.size, (1 - confidence) / 2
    drawn = sample[numpy_generator(0, "bootstrap").integers(0, n, (RESAMPLES, n))]  # (RESAMPLES, n)
    estimate, percentiles = float(average(sample)), np.quantile(average(drawn, axis=1), [tail, 1 - tail])
    widening = math.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1) / stats.norm.ppf(tail)
    low, high = estimate + widening * (percentiles - estimate)
    return float(low), float(high)


def _average(method: str) -> Callable[..., Any]:
    return np.median if method == "clock" else np.mean


def precise(source: Source, visits: list[Visit], target: float) -> bool:
    """Whether the interval is within the relative `target`. The quantum is left out: more visits do not shrink it."""
    amounts = [visit.amount for visit in visits]
    low, high = bootstrap_interval(amounts, _average(source.method))
    return (high - low) / 2 <= target * abs(float(np.mean(amounts)))


def summarise(
    source: Source,
    visits: list[Visit],
    idle_watts: Sequence[float],
    settings: Settings,
    sensor: dict[str, object],
    flags: Iterable[str] = (),
) -> Reading:
    """The reading of two or more visits.

    idle_watts: idle power before the first and after the last visit; empty for a clock. flags: further warnings, beside
    those of the visits.
    """
    amounts = np.array([visit.amount for visit in visits])
    average = _average(source.method)
    amount, seconds = float(average(amounts)), float(average([visit.seconds for visit in visits]))
    quantum = float(np.mean([visit.quantum for visit in visits]))
    low, high = bootstrap_interval(amounts, average)
    all_flags = {flag for visit in visits for flag in visit.flags} | set(flags)
    idle = None
    if idle_watts:
        idle = before, after = idle_watts[0], idle_watts[-1]
        if abs(after - before) > IDLE_DRIFT * before:
            all_flags.add(DRIFTED)
    return Reading(
        amount=amount,
        idle_subtracted=amount - sum(idle) / 2 * seconds if idle else None,
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
        idle_watts=idle,
        flags=tuple(sorted(all_flags)),
        sensor=sensor,
    )

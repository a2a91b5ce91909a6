"""What differences between two methods say about new seeds: the exchangeable unit is the seed.

Runs of one seed at several budgets share their batches, so their figures are not independent: a seed gives one
difference. Arrays have the seeds last and may have any axes before them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
LEVEL = 0.95  # of intervals; tests call a difference significant below 1 - LEVEL
NO_SPREAD = 1e-12  # standard deviation below which figures are equal but for rounding
MOST_FLIPPED = 20  # seeds; a million choices of signs


class Interval(NamedTuple):
    """A mean with both ends of its interval, (...)."""

    mean: Array
    low: Array
    high: Array


def t_interval(values: ArrayLike) -> Interval:
    """Mean of values (..., seeds) and its 95 % interval by Student's t; without ends (NaN) below two seeds."""
    numbers = np.asarray(values, dtype=float)
    count, mean = numbers.shape[-1], numbers.mean(-1)
    if count < 2:
        return Interval(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    half = scipy.stats.t.ppf((1 + LEVEL) / 2, count - 1) * numbers.std(-1, ddof=1) / np.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def paired_t(differences: ArrayLike) -> Array:
    """Two-sided p of the paired t test of differences (..., seeds); NaN without spread and below two seeds.

    Without spread nothing can be tested: two networks at chance level are equal in every seed.
    """
    numbers = np.asarray(differences, dtype=float)
    count = numbers.shape[-1]
    if count < 2:
        return np.full(numbers.shape[:-1], np.nan)
    deviation = numbers.std(-1, ddof=1)
    spread = np.where(deviation > NO_SPREAD, deviation, np.nan)
    return np.asarray(2 * scipy.stats.t.sf(np.abs(numbers.mean(-1)) / (spread / np.sqrt(count)), count - 1))


def sign_flip(differences: ArrayLike) -> float:
    """Exact two-sided p of the differences (seeds,) under flips of whole seeds' signs; at least `least_sign_flip`.

    Of all 2^n choices of signs it is the share with a sum at least as far from 0 as the observed one. NaN above
    `MOST_FLIPPED` seeds.
    """
    if np.size(differences) > MOST_FLIPPED:
        return float("nan")
    sums = np.zeros(1)
    for difference in np.abs(np.asarray(differences, dtype=float)):
        sums = np.concatenate([sums + difference, sums - difference])
    observed = abs(float(np.sum(differences)))
    return float(np.mean(np.abs(sums) >= observed - 1e-12 * sums.max()))


def least_sign_flip(count: int) -> float:
    """The smallest p that `sign_flip` can give with so many seeds, 2^(1 - n)."""
    return float(2.0 ** (1 - count))


def holm(p: ArrayLike) -> Array:
    """Holm's adjusted p of a family (..., tests). What was not tested (NaN) stays so, but counts in the family.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    raw = np.asarray(p, dtype=float)
    filled = np.where(np.isnan(raw), 1.0, raw)
    order = filled.argsort(-1)
    factors = np.arange(raw.shape[-1], 0, -1)
    steps = np.maximum.accumulate(np.take_along_axis(filled, order, -1) * factors, -1).clip(max=1)
    adjusted = np.empty_like(filled)
    np.put_along_axis(adjusted, order, steps, -1)
    return np.where(np.isnan(raw), np.nan, adjusted)


def resolvable(deviation: float, count: int, tests: int) -> float:
    """The smallest mean difference of `count` seeds that Holm's first step calls significant among `tests`.

    deviation: sample standard deviation of the differences over seeds.
    """
    return float(scipy.stats.t.ppf(1 - (1 - LEVEL) / (2 * tests), count - 1) * deviation / np.sqrt(count))


def improvement(differences: ArrayLike, lost: int = 0) -> float:
    """The share of seeds whose difference is positive; ties count half, `lost` further seeds count as negative."""
    signs = np.sign(np.asarray(differences, dtype=float))
    return float((signs > 0).sum() + (signs == 0).sum() / 2) / (signs.size + lost)

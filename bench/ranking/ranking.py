"""Ranks the methods of a page at equal measured joules (or seconds, where the metric is latency).

Within a seed accuracy is linear between a method's operating points. Two methods are compared by their mean accuracy
over the joules that both cover in every seed; over the seeds that gives a mean difference, its 95 % interval and a
paired t test. Holm's correction runs over two families: every method against the reference, and all pairs. Both are
fixed beforehand: a comparison that could not be made counts as a test. A method's rank is 1 + the number of methods
that are significantly better in the family of all pairs, so methods that can't be told apart share a rank.

All seeds share a dense network, a test split and a platform: intervals speak of new seeds alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.ranking.curves import Curve, curves
from bench.ranking.inference import (
    LEVEL,
    holm,
    improvement,
    paired_t,
    resolvable,
    sign_flip,
    t_interval,
)

REFERENCE = "uniform-gradual"
FEWEST_TO_TEST, FEWEST_TO_RANK = 3, 5  # seeds
COLUMNS = [
    *("page", "method", "rank", "n", "misses", "mean", "low", "high", "difference", "difference_low"),
    *("difference_high", "p", "sign_flip", "improvement", "reason", "compared"),
]


class Range(NamedTuple):
    """Joules or seconds per image that curves have in common."""

    low: float
    high: float

    def covers(self, other: Range) -> bool:
        """Whether `other` lies within this range."""
        return self.low <= other.low and other.high <= self.high


@dataclass(frozen=True, eq=False)
class Entry:
    """A method's runs on a page.

    curves: by seed, for the seeds whose run at every budget ended. misses: by seed, the reasons of missed runs.
    incomplete: seeds that lack a run at a budget that the method has in another seed.
    """

    method: str
    curves: dict[int, list[Curve]]
    misses: dict[int, list[str]]
    incomplete: tuple[int, ...]

    def within(self, seed: int, joules: Range) -> Curve | None:
        """The seed's curve that covers `joules`; None when the seed has none."""
        pieces = self.curves.get(seed, [])
        return next((piece for piece in pieces if span([piece]).covers(joules)), None)


@dataclass(frozen=True, eq=False)
class Pair:
    """The paired comparison of two methods: mean accuracy of `first` minus that of `second`, 0..1, per seed.

    joules: the range of the means, None where the curves share no joules. lost: seeds in which `first` has no curve
    over that range, though `second` has one.
    """

    first: str
    second: str
    joules: Range | None
    differences: tuple[float, ...] = ()
    lost: int = 0

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the differences; NaN below two seeds."""
        return float(np.std(self.differences, ddof=1)) if len(self.differences) > 1 else math.nan


@dataclass(frozen=True, eq=False)
class Ranking:
    """The ranking of one page.

    table: a row per method, see `rank`. pairs: the comparisons of all ranked methods. joules: the range over which the
    table's means are taken, None without one. reason: why there are no ranks, else "". resolvable: the smallest
    difference that the family of all pairs could call significant, NaN without one.
    """

    table: pd.DataFrame
    pairs: tuple[Pair, ...]
    joules: Range | None
    reason: str
    resolvable: float


def span(pieces: Iterable[Curve]) -> Range:
    """The readings from the lowest to the highest of the curves' points."""
    pieces = list(pieces)
    return Range(min(piece.readings[0] for piece in pieces), max(piece.readings[-1] for piece in pieces))


def common(entries: Iterable[Entry]) -> Range | None:
    """From the largest of the lowest readings to the smallest of the highest, over all seeds; None where they cross."""
    spans = [span(pieces) for entry in entries for pieces in entry.curves.values() if pieces]
    if not spans:
        return None
    low, high = max(one.low for one in spans), min(one.high for one in spans)
    return Range(low, high) if low < high else None


def entries(page: pd.DataFrame) -> dict[str, Entry]:
    """Method -> its runs, in the page's order; without methods that have no budget, or remove single weights.

    The latter have budgets of their own, since they leave the feature maps.
    """
    bound = page[page["budget.amount"].notna() & (page["granularity"] == "channels")]
    result = {}
    for method, runs in bound.groupby("method", sort=False):
        full = set(runs["budget"])
        seeds = {int(seed): group for seed, group in runs.groupby("seed")}
        complete = {seed: group for seed, group in seeds.items() if set(group["budget"]) == full}
        missed = {seed: group[~group["ok"]] for seed, group in seeds.items() if not group["ok"].all()}
        result[str(method)] = Entry(
            str(method),
            {seed: curves(group) for seed, group in complete.items()},
            {
                seed: [f"{row['budget']}: {row['reason']}" for _, row in group.iterrows()]
                for seed, group in missed.items()
            },
            tuple(sorted(set(seeds) - set(complete))),
        )
    return result


def compare(first: Entry, second: Entry, joules: Range | None) -> Pair:
    """The paired differences over `joules`, from the seeds in which both methods cover them."""
    if joules is None:
        return Pair(first.method, second.method, None)
    seeds = sorted(set(first.curves) & set(second.curves))
    both = [(first.within(seed, joules), second.within(seed, joules)) for seed in seeds]
    differences = [one.mean(*joules) - other.mean(*joules) for one, other in both if one and other]
    lost = sum(one is None and other is not None for one, other in both)
    return Pair(first.method, second.method, joules, tuple(differences), lost)


def ranking(page: pd.DataFrame) -> Ranking:
    """The ranking of a page: runs that share network, data, platform and protocol. Columns as in `rank`.

    The page's range is common to all methods without a miss. A method is compared where all its seeds cover that range.
    """
    every = entries(page)
    joules = common(entry for entry in every.values() if not entry.misses)
    ours = [
        entry
        for entry in every.values()
        if joules and entry.curves and all(entry.within(seed, joules) for seed in entry.curves)
    ]
    pairs = tuple(compare(first, second, common([first, second])) for first, second in combinations(ours, 2))
    count = min((len(pair.differences) for pair in pairs), default=0)
    reason = _why_none(page, every, joules, count)
    better = _better(pairs, math.comb(len(every), 2))
    reference = every.get(REFERENCE)
    rows = []
    for entry in every.values():
        compared = entry in ours
        row = {
            "page": page["page"].iloc[0],
            "method": entry.method,
            "rank": pd.NA if reason or not compared else 1 + better.get(entry.method, 0),
            "reason": reason if compared or not joules else _why_apart(entry),
            "compared": compared,
        }
        row |= _means(entry, joules)
        if reference in ours and entry is not reference and joules:
            row |= _against(entry, reference, common([entry, reference]) if compared else joules)
        rows.append(row)
    table = pd.DataFrame(rows, columns=COLUMNS)
    family = table["method"] != REFERENCE  # fixed beforehand: a method that misses counts, too
    table.loc[family, "p"] = holm(table.loc[family, "p"].astype(float))
    table = table.sort_values(["compared", "mean"], ascending=False, kind="stable").reset_index(drop=True)
    least = _resolvable(pairs, count, math.comb(len(every), 2))
    return Ranking(table.astype({"rank": "Int64"}), pairs, joules, reason, least)


def rank(frame: pd.DataFrame) -> pd.DataFrame:
    """The methods of every page in `frame` by mean accuracy at equal measured joules: a row per page and method.

    frame: runs as `bench.load_records` gives them.

    page, method        which runs
    rank                1 + the number of significantly better methods; missing where `reason` says why
    n                   seeds with a curve over the page's range
    misses              runs that missed
    mean, low, high     mean accuracy (0..1) over the page's range, and its 95 % interval over seeds
    difference          mean difference to `uniform-gradual` over the joules of both, 0..1
    difference_low, difference_high    its 95 % interval over seeds
    p                   of that difference, paired t test, corrected by Holm for all methods of the page
    sign_flip           exact p of that difference under flips of whole seeds' signs, not corrected
    improvement         share of seeds in which the method is better than `uniform-gradual`, ties half, misses lost
    reason              why the method has no rank, else ""

    Rows of a page are in the order of their means, those without comparison last. What can't be computed is missing.
    """
    tables = [ranking(page).table for _, page in frame.groupby("page")]
    ranks = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    return ranks.drop(columns="compared")


def _means(entry: Entry, joules: Range | None) -> dict[str, float]:
    """A method's own columns."""
    own = [entry.within(seed, joules) for seed in entry.curves] if joules else []
    means = [curve.mean(*joules) for curve in own if curve and joules]
    values: dict[str, float] = {"n": len(means), "misses": sum(map(len, entry.misses.values()))}
    if not means:
        return values
    interval = t_interval(means)
    return values | {"mean": float(interval.mean), "low": float(interval.low), "high": float(interval.high)}


def _against(entry: Entry, reference: Entry, joules: Range | None) -> dict[str, float]:
    """The columns of the comparison with the reference, none below `FEWEST_TO_TEST` seeds.

    A method that misses has no more than `improvement`.
    """
    pair = compare(entry, reference, joules)
    if len(pair.differences) + pair.lost < FEWEST_TO_TEST:
        return {}
    better = {"improvement": improvement(pair.differences, pair.lost)}
    if pair.lost:
        return better
    interval = t_interval(pair.differences)
    return better | {
        "difference": float(interval.mean),
        "difference_low": float(interval.low),
        "difference_high": float(interval.high),
        "p": float(paired_t(pair.differences)),
        "sign_flip": sign_flip(pair.differences),
    }


def _better(pairs: Sequence[Pair], tests: int) -> dict[str, int]:
    """Method -> the number of methods that are significantly better, in a family of so many tests."""
    p = [float(paired_t(pair.differences)) if pair.differences else math.nan for pair in pairs]
    adjusted = holm([*p, *[math.nan] * (tests - len(p))])
    worse = [
        pair.second if np.mean(pair.differences) > 0 else pair.first
        for pair, p_adjusted in zip(pairs, adjusted, strict=False)
        if p_adjusted < 1 - LEVEL
    ]
    return {method: worse.count(method) for method in worse}


def _why_none(page: pd.DataFrame, every: dict[str, Entry], joules: Range | None, count: int) -> str:
    """Why the page has no ranks, else ""."""
    if not page["protocol.ranks"].all():
        return f"protocol {page['protocol.name'].iloc[0]} is not made to rank"
    if len(every) < 2:
        return f"a ranking needs two or more methods with budgets, got {len(every)}"
    if joules is None:
        if all(entry.misses for entry in every.values()):
            return "every method missed a budget"
        return "the methods' readings have no range in common; try two or more budgets, the same for all"
    if count < FEWEST_TO_RANK:
        return f"ranks need {FEWEST_TO_RANK} seeds that all methods have, got {count}"
    return ""


def _why_apart(entry: Entry) -> str:
    """Why a method is not compared with the others."""
    if entry.misses:
        causes = [f"seed {seed} at {reason}" for seed, reasons in entry.misses.items() for reason in reasons]
        return f"missed: {'; '.join(causes)}"
    if not entry.curves:
        return f"runs at some budgets are lacking in seeds {', '.join(map(str, entry.incomplete))}"
    return "its readings do not cover the range that the others have in common"


def _resolvable(pairs: Sequence[Pair], count: int, tests: int) -> float:
    """See Ranking.resolvable; from the root mean square of the pairs' standard deviations."""
    deviations = [pair.deviation for pair in pairs if not math.isnan(pair.deviation)]
    if count < FEWEST_TO_RANK or not deviations:
        return math.nan
    return resolvable(float(np.sqrt(np.mean(np.square(deviations)))), count, tests)

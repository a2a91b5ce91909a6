"""The section of a page that ranks its methods at equal readings, from three seeds on."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bench.ranking.curves import Curve
from bench.ranking.inference import LEVEL, least_sign_flip, t_interval
from bench.ranking.ranking import FEWEST_TO_TEST, REFERENCE, Range, Ranking, entries, ranking
from bench.report.tables import first, seeds
from bench.report.text import ABSENT, AMOUNTS, Table, Unit, escape, fill, percent, signed_percent

MOST_LEVELS = 5  # columns of the table of joules for an accuracy


def section(page: pd.DataFrame, unit: Unit) -> str | None:
    """The section in Markdown, without its heading; None below `FEWEST_TO_TEST` seeds."""
    if len(seeds(page)) < FEWEST_TO_TEST:
        return None
    result = ranking(page)
    compared, others = (result.table[result.table["compared"] == state] for state in (True, False))
    titles = _titles(page)
    curves = _curves(page, result, list(compared["method"]))
    count = int(compared["n"].min()) if len(compared) else 0
    return fill(
        "ranks.md.jinja",
        reason=result.reason,
        joules=result.joules,
        unit=unit,
        amounts=AMOUNTS[first(page).platform.unit],
        score=first(page).score,
        reference=titles.get(REFERENCE),
        level=LEVEL,
        seeds=count,
        least=least_sign_flip(count) if count else math.nan,
        resolvable=result.resolvable,
        order=order(page),
        apart=[(titles[run["method"]], escape(run["reason"])) for _, run in others.iterrows()],
        at=_at(curves, titles, unit, _stated(page, result.joules)) if result.joules else None,
        needed=_needed(curves, titles, unit) if result.joules else None,
    )


def _curves(page: pd.DataFrame, result: Ranking, methods: list[str]) -> dict[str, list[Curve]]:
    """Method -> the curves of its seeds over the page's range, in the ranking's order."""
    every, joules = entries(page), result.joules
    found = {}
    for method in methods:
        curves = [every[method].within(seed, joules) for seed in every[method].curves] if joules else []
        found[method] = [curve for curve in curves if curve is not None]
    return found


def order(page: pd.DataFrame) -> Table | None:
    """The compared methods by their means, with ranks, intervals and differences; None below `FEWEST_TO_TEST` seeds.

    None as well where no methods can be compared.
    """
    table = ranking(page).table if len(seeds(page)) >= FEWEST_TO_TEST else pd.DataFrame({"compared": []})
    compared, titles = table[table["compared"].astype(bool)], _titles(page)
    if compared.empty:
        return None
    head = ["Method", "rank", "seeds", "mean, %", "95 % interval", "difference, points", "95 % interval of it"]
    head += ["p (Holm)", "p (sign flip)", "better in"]
    rows = []
    for _, row in compared.iterrows():
        ends = (_percents(row["low"], row["high"]), _points(row["difference_low"], row["difference_high"]))
        rows.append(
            [
                titles[row["method"]],
                ABSENT if pd.isna(row["rank"]) else str(row["rank"]),
                str(int(row["n"])),
                percent(row["mean"]),
                ends[0],
                _points(row["difference"]),
                ends[1],
                _p(row["p"]),
                _p(row["sign_flip"]),
                ABSENT if pd.isna(row["improvement"]) else f"{row['improvement']:.0%}".replace("%", " %"),
            ]
        )
    return head, rows


def _titles(page: pd.DataFrame) -> dict[str, str]:
    return {run.method: run.title for run in page["record"]}


def _stated(page: pd.DataFrame, joules: Range) -> list[float]:
    """The amounts at which accuracies are stated: the page's budgets within the range, and its upper end."""
    inside = [amount for amount in set(page["budget.amount"].dropna()) if joules.low <= amount < joules.high]
    return [*sorted(inside), joules.high]


def _at(curves: dict[str, list[Curve]], titles: dict[str, str], unit: Unit, amounts: list[float]) -> Table:
    """Accuracy at stated amounts: mean and half width of its interval over the seeds."""
    rows = []
    for method, of_seeds in curves.items():
        intervals = [t_interval([curve.at(amount) for curve in of_seeds]) for amount in amounts]
        cells = [f"{percent(float(one.mean))} ± {percent(float(one.high - one.mean))}" for one in intervals]
        rows.append([titles[method], *cells])
    return ["Method", *map(unit.named, amounts)], rows


def _needed(curves: dict[str, list[Curve]], titles: dict[str, str], unit: Unit) -> Table | None:
    """The least amount from which on a method stays at or above an accuracy: its mean over the seeds."""
    ends = [float(accuracy) for of_seeds in curves.values() for curve in of_seeds for accuracy in curve.accuracies]
    levels = _levels(min(ends), max(ends)) if ends else []
    if not levels:
        return None
    rows = []
    for method, of_seeds in curves.items():
        cells = []
        for level in levels:
            needed = [curve.amount_for(level) for curve in of_seeds]
            reached = [amount for amount in needed if amount is not None]
            missed = len(needed) - len(reached)
            most = "≤ " if any(curve.accuracies[0] >= level for curve in of_seeds) else ""
            mean = most + unit(float(np.mean(reached))) if reached else ""
            cells.append(f"not reached ({missed} of {len(needed)})" if missed else mean)
        rows.append([titles[method], *cells])
    return ["Method", *(f"{percent(level, 0)} %" for level in levels)], rows


def _levels(low: float, high: float) -> list[float]:
    """At most MOST_LEVELS whole percents between two accuracies (0..1), the highest ones."""
    whole = range(math.ceil(100 * low), math.floor(100 * high) + 1)
    return [number / 100 for number in whole][-MOST_LEVELS:]


def _points(*shares: float) -> str:
    """Differences in points with their signs, two of them as a range."""
    if any(pd.isna(share) for share in shares):
        return ABSENT
    return " to ".join(signed_percent(share, 2).removesuffix(" %") for share in shares)


def _percents(low: float, high: float) -> str:
    return ABSENT if pd.isna(low) else f"{percent(low)} to {percent(high)}"


def _p(value: float) -> str:
    return ABSENT if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"

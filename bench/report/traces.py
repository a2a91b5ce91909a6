"""The course of a run: what its trace says of energy, widths, duals and loss over the iterations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.record.model import Record
from bench.report.style import budget_legend, budget_style, page_figure
from bench.report.tables import budgets
from bench.report.text import Unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRACE_POINTS = 120
# title -> columns of a trace, the first drawn solid, the second dashed: Ê, widths φ, bounds s, duals y and z, loss
_TRACE_PANELS = {
    "Ê": ("energy",),
    "φ and s (dashed), share": ("phi", "s"),
    "dual y, mean over units": ("y",),
    "dual z": ("z",),
    "loss": ("loss",),
}


def courses(page: pd.DataFrame, method: str, unit: Unit) -> pd.DataFrame:
    """The course of one run of `method` per budget, the first seed with a trace; empty without any."""
    parts = []
    for fraction, runs in page[page["method"] == method].groupby("budget", sort=False):
        drawable = [course for run in runs["record"] if not (course := _course(run, unit)).empty]
        parts += [course.assign(budget=fraction) for course in drawable[:1]]
    return pd.concat(parts) if parts else pd.DataFrame()


def _course(run: Record, unit: Unit) -> pd.DataFrame:
    """Some 120 points of a trace: vectors as means over units, φ and s as shares of the dense widths.

    Empty for a trace that can't be drawn.
    """
    trace = run.trace
    length = len(trace.get("iteration", []))  # without it the rows are something else, such as AMC's episodes
    names = [name for panel in _TRACE_PANELS.values() for name in panel if trace.get(name)]
    if "energy" not in names or any(len(trace[name]) != length for name in names):
        return pd.DataFrame()
    rows = sorted({0, *range(length - 1, -1, -max(1, length // TRACE_POINTS))})
    bounds = run.measures.upper_bounds if run.measures else ()
    scales: dict[str, Sequence[float]] = {"energy": [unit.size], "phi": bounds, "s": bounds}
    course = pd.DataFrame({"iteration": [trace["iteration"][row] for row in rows]})
    for name in names:
        course[name] = [_mean(trace[name][row], scales.get(name)) for row in rows]
    if "loss" in names:  # noisy from batch to batch: the mean since the point before
        course["loss"] = [_mean(trace["loss"][last + 1 : row + 1]) for last, row in pairwise([-1, *rows])]
    course = course.dropna(axis=1, how="all")
    return course if "energy" in course else pd.DataFrame()


def _mean(value: Any, scale: Sequence[float] | None = None) -> float:
    """The mean of a number or a list of numbers, each over its `scale`.

    NaN for a value that is no finite number, for an empty list, and for one of another length than `scale`.
    """
    values = value if isinstance(value, list) else [value]
    scales = [1.0] * len(values) if scale is None else scale
    finite = all(isinstance(number, int | float) and math.isfinite(number) for number in values)
    if not values or not finite or len(values) != len(scales):
        return math.nan
    return fmean(number / size for number, size in zip(values, scales, strict=True))


def trace(page: pd.DataFrame, unit: Unit, data: pd.DataFrame) -> Figure:
    """A panel per group of a trace's columns, a colour per budget."""
    panels = {title: names for title, names in _TRACE_PANELS.items() if set(names) & set(data)}
    figure = page_figure(page, 2.6)
    amounts, legend = budgets(page), dict[str, Any]()
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.set_title(f"Ê, {unit.symbol} per image" if title == "Ê" else title, fontsize=8.5)
        for fraction, course in data.groupby("budget", sort=False):
            colour, _ = budget_style(list(amounts).index(fraction))
            for name, dash in zip(names, ("-", (0, (3, 2))), strict=False):
                if name in course and course[name].notna().any():
                    (line,) = axes.plot(course["iteration"], course[name], color=colour, lw=1.3, ls=dash)
                    legend.setdefault(fraction, line)
            if title == "Ê":
                axes.axhline(amounts[fraction] / unit.size, color=colour, lw=0.9, ls=(0, (1, 2)))
        axes.set_xlabel("training iteration")
        axes.xaxis.get_major_locator().set_params(nbins=3)
    budget_legend(figure, legend)
    return figure

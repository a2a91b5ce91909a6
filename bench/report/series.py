"""The data of a page's plots as plain JSON values.

A plot is drawn from these values alone, and its SVG carries them. So a committed plot can be compared with its records
by value also where another version of the plotting library would draw other bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

from bench.record import Measures, Record
from bench.report.cells import TEST_IMAGES, dense_reading
from bench.report.collect import CONTROLS, Page, kept
from bench.report.text import Unit

TRACE_POINTS = 120
# Columns of a method's trace that are drawn: Ê, widths φ, bounds s, duals y and z, loss.
TRACE_COLUMNS = ("energy", "phi", "s", "y", "z", "loss")


def _rounded(value: float) -> float | None:
    """Twelve digits: enough to draw, few enough not to depend on the order of a sum. None for NaN and infinity."""
    return float(f"{value:.12g}") if math.isfinite(value) else None


def _caption(page: Page) -> str:
    first = page.first
    workload = f"{first.network['name']} on {first.dataset}"
    platform = f"{first.platform.name}, {first.platform.source}"
    seeds = f"{len(page.seeds)} seed{'s' * (len(page.seeds) > 1)}"
    parts = [workload, platform, f"protocol {first.protocol['name']}", seeds]
    return "  ·  ".join(parts if page.ranks else [*parts, "ranks nothing"])


def accuracy_data(page: Page, unit: Unit) -> dict[str, Any] | None:
    """Accuracy before and after fine-tuning against the reading per image, a line per method; None without a run.

    A point is the mean over the seeds that kept the budget; its error is their sample standard deviation, or with one
    seed the binomial standard error of the test accuracy where the number of test images is known.
    """
    lines = []
    for method in page.methods:
        points = []
        for fraction in page.budgets:
            measures = [m for _, m in kept(page.runs(method, fraction))]
            if measures:
                after, error = _mean_and_error([m.accuracy_after for m in measures], page.first.dataset)
                before, before_error = _mean_and_error([m.accuracy_before for m in measures], page.first.dataset)
                reading = fmean(m.read for m in measures) / unit.size
                points.append([_rounded(v) for v in (reading, after, error, before, before_error)])
        if points:
            style = {"method": method, "title": page.title(method), "control": method in CONTROLS}
            lines.append(style | {"points": points})
    if not lines:
        return None
    of_dense = dense_reading(page)
    retrained = [m for _, m in kept(page.dense_runs)]
    return {
        "figure": "accuracy",
        "caption": _caption(page),
        "score": page.first.score,
        "x_label": f"{page.first.platform.source} {unit.symbol} per image",
        "columns": [page.first.platform.source, "after", "error after", "before", "error before"],
        "budgets": {fraction: _rounded(budget.amount / unit.size) for fraction, budget in page.budgets.items()},
        "dense": {
            "reading": None if of_dense is None else unit.named(of_dense),
            "delivered": _rounded(100 * page.first.dense_accuracy),
            "before": _rounded(100 * fmean(m.accuracy_before for m in retrained)) if retrained else None,
            "after": _rounded(100 * fmean(m.accuracy_after for m in retrained)) if retrained else None,
        },
        "lines": lines,
    }


def _mean_and_error(accuracies: Sequence[float], dataset: str) -> tuple[float, float]:
    """In percent."""
    mean = fmean(accuracies)
    if len(accuracies) > 1:
        return 100 * mean, 100 * stdev(accuracies)
    images = TEST_IMAGES.get(dataset)
    return 100 * mean, 100 * math.sqrt(max(0.0, mean * (1 - mean)) / images) if images else 0.0


def widths_data(page: Page) -> dict[str, Any] | None:
    """Normalised width of every unit, a panel per method and a line per budget (the layout of the paper's Figure 6).

    Lines are means over the seeds that kept the budget, with the least and the largest beside them.
    """
    panels = []
    for method in page.methods:
        lines = {}
        for fraction in page.budgets:
            shares = [_shares(m) for _, m in kept(page.runs(method, fraction))]
            if shares:
                units = list(zip(*shares, strict=True))
                lines[fraction] = [[_rounded(v) for v in (fmean(unit), min(unit), max(unit))] for unit in units]
        if lines:
            panels.append({"method": method, "title": page.title(method), "lines": lines})
    if not panels:
        return None
    return {"figure": "widths", "caption": _caption(page), "budgets": list(page.budgets), "panels": panels}


def _shares(measures: Measures) -> list[float]:
    return [width / bound for width, bound in zip(measures.widths, measures.upper_bounds, strict=True)]


def trace_data(page: Page, method: str, unit: Unit) -> dict[str, Any] | None:
    """The course of `method`, one run per budget (its first seed), thinned to some 120 points; None if none has one."""
    courses = {}
    for fraction in page.budgets:
        for run in page.runs(method, fraction):
            course = _course(run, unit)
            if course:
                courses[fraction] = course
                break
    if not courses:
        return None
    return {
        "figure": "trace",
        "caption": _caption(page),
        "title": page.title(method),
        "y_label": f"Ê, {unit.symbol} per image",
        "budgets": {fraction: _rounded(page.budgets[fraction].amount / unit.size) for fraction in courses},
        "courses": courses,
    }


def _course(run: Record, unit: Unit) -> dict[str, Any] | None:
    """The drawn columns of a run: means over units for the vectors, φ and s as shares of the dense widths."""
    columns = {name: run.trace[name] for name in TRACE_COLUMNS if run.trace.get(name)}
    length = len(columns.get("energy", ()))
    iterations = run.trace.get("iteration", [])  # without it the rows are something else, such as AMC's episodes
    if not length or any(len(column) != length for column in (iterations, *columns.values())):
        return None
    rows = sorted({0, *range(length - 1, -1, -max(1, length // TRACE_POINTS))})
    course: dict[str, Any] = {"iteration": [iterations[i] for i in rows]}
    for name, column in columns.items():
        if name == "energy":
            course[name] = [_number(column[i], unit.size) for i in rows]
        elif name in ("phi", "s"):
            if run.measures:
                course[name] = [_share(column[i], run.measures.upper_bounds) for i in rows]
        elif name == "loss":  # noisy from batch to batch: the mean since the point before
            course[name] = [_mean(column[last:i]) for last, i in pairwise([0, *(row + 1 for row in rows)])]
        else:
            course[name] = [_mean(column[i]) if isinstance(column[i], list) else _number(column[i]) for i in rows]
    return course


def _number(value: Any, unit: float = 1.0) -> float | None:
    return _rounded(float(value) / unit) if isinstance(value, int | float) else None


def _mean(values: Sequence[Any]) -> float | None:
    numbers = [_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    return _rounded(fmean(known)) if known and len(known) == len(numbers) else None


def _share(widths: Any, bounds: Sequence[int]) -> float | None:
    """Mean width over dense width; None where the row is not one width per unit."""
    if not isinstance(widths, list) or len(widths) != len(bounds):
        return None
    return _mean([None if width is None else width / bound for width, bound in zip(widths, bounds, strict=True)])

"""A page's plots. Each is a small frame of what is drawn, and the figure of that frame."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.ranking.inference import t_interval
from bench.ranking.ranking import REFERENCE, ranking
from bench.report.style import (
    FAINT,
    INK,
    Marker,
    budget_legend,
    budget_style,
    house_style,
    method_style,
    page_figure,
    svg,
)
from bench.report.tables import binomial_error, budgets, cut, dense, first, reading_head
from bench.report.text import Unit
from bench.report.traces import courses, trace
from methods.registry import BUILT_IN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAR = 5  # times the median loss: points with a larger one are left out of view
# lines of controls, which are hollow and dashed, and of compared methods
_CONTROL: dict[str, Any] = {"mfc": "white", "mew": 1.3, "ms": 6, "lw": 1.2, "ls": (0, (4, 2)), "zorder": 3}
_COMPARED: dict[str, Any] = {"mec": "white", "mew": 0.8, "ms": 7.5, "lw": 1.8, "zorder": 4}


def draw(page: pd.DataFrame, unit: Unit) -> dict[str, bytes]:
    """Name ("accuracy", "widths", "trace-<method>") -> SVG of every plot for which the page has figures."""
    against = f"{first(page).score} on test against {reading_head(page, unit)} per image"
    with house_style():
        plots = {
            "accuracy": (against, accuracy, points(page, unit)),
            "differences": (f"Difference of {first(page).score} to {REFERENCE}", forest, differences(page)),
            "widths": ("Normalised width of every unit", widths, unit_widths(page)),
        }
        for method in page.loc[page["budget.amount"].notna(), "method"].unique():
            title = f"Course of {first(page[page['method'] == method]).title}"
            plots[f"trace-{method}"] = (title, trace, courses(page, method, unit))
        return {
            name: svg(figure(page, unit, data), title, data)
            for name, (title, figure, full) in plots.items()
            if not (data := _rounded(full)).empty
        }


def _rounded(data: pd.DataFrame) -> pd.DataFrame:
    """The data with numbers of twelve digits, so that a plot's bytes don't depend on the order of a sum."""
    return data.assign(**data.select_dtypes("float").map(lambda value: float(f"{value:.12g}")))


def points(page: pd.DataFrame, unit: Unit) -> pd.DataFrame:
    """Reading in `unit` and accuracy in % of every method and budget: means over the seeds within the budget.

    Errors are half widths of 95 % intervals over the seeds, or with one seed the binomial standard error of the
    accuracy where the number of test images is known, else 0. Rows of the budget "dense" are controls that no budget
    binds.
    """
    runs = page[page["ok"]]
    values = runs[["method", "title", "control", "budget"]].assign(
        reading=runs["measures.reading"] / unit.size,
        after=100 * runs["measures.accuracy_after"],
        before=100 * runs["measures.accuracy_before"],
    )
    groups = values.groupby(["method", "title", "control", "budget"], sort=False)
    means, whens = groups.mean(), ["after", "before"]
    halves = groups[whens].agg(lambda scores: float(t_interval(scores).high) - scores.mean())
    binomial = means[whens].map(lambda percent: 100 * binomial_error(percent / 100, first(page)))
    return means.join(halves.fillna(binomial).fillna(0.0).add_suffix(" error")).reset_index()


def accuracy(page: pd.DataFrame, unit: Unit, data: pd.DataFrame) -> Figure:
    """Accuracy before and after fine-tuning against the reading per image, a line per method."""
    figure = page_figure(page, 4.5)
    others = [method for method in data["method"].unique() if method not in BUILT_IN]
    of_dense = data["budget"] == "dense"
    axes_of = dict(zip(("after", "before"), figure.subplots(1, 2), strict=True))
    for when, axes in axes_of.items():
        axes.set_title(f"{when.capitalize()} fine-tuning", pad=17)
        axes.set_xlabel(f"{reading_head(page, unit)} per image")
        axes.set_ylabel(f"{first(page).score} on test, %")
        for method, line in data[~of_dense].groupby("method", sort=False):
            _method_line(axes, line, when, method_style(method, others))
        reading = dense(page)
        where = "" if reading is None else f" ({unit.named(reading)})"
        axes.axhline(100 * first(page).dense_accuracy, color=INK, lw=1.1, zorder=2, label=f"Dense, as delivered{where}")
        if of_dense.any():
            level, dash = data.loc[of_dense, when].mean(), (0, (5, 2, 1, 2))
            axes.axhline(level, color=INK, lw=1.1, ls=dash, zorder=2, label="Dense, same iterations")
        axes.margins(x=0.1, y=0.08)
        _leave_out_low(axes, data[~of_dense], when, 100 * first(page).dense_accuracy)
        _budget_lines(axes, {fraction: amount / unit.size for fraction, amount in budgets(page).items()})
    lines = [line for line in axes_of["after"].get_lines() if not str(line.get_label()).startswith("_")]
    columns = legend_columns([str(line.get_label()) for line in lines])
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, handlelength=2.8, columnspacing=1.8)
    return figure


def differences(page: pd.DataFrame) -> pd.DataFrame:
    """Mean paired difference of every compared method to the reference in points, with its 95 % interval.

    Best first; empty below three seeds and without the reference.
    """
    runs = page.drop_duplicates("method")[["method", "title", "control"]]
    table = ranking(page).table.dropna(subset="difference")
    ends = {"difference": "mean", "difference_low": "low", "difference_high": "high"}
    shares = 100 * table[list(ends)].astype(float).rename(columns=ends)
    return table[["method"]].join(shares).merge(runs, on="method").sort_values("mean", ascending=False)


def forest(page: pd.DataFrame, unit: Unit, data: pd.DataFrame) -> Figure:
    """A forest plot: a row per method with its paired difference to the reference and the interval.

    A method that lies far below the others has its numbers at the left edge, so that intervals can be read.
    """
    figure = page_figure(page, 0.95 + 0.28 * len(data))
    axes = figure.subplots()
    others = [method for method in data["method"] if method not in BUILT_IN]
    axes.axvline(0, color=FAINT, lw=0.9, ls=(0, (1, 3)), zorder=1)
    lowest = FAR * min(0.0, data["mean"].median())
    for place, row in enumerate(data.itertuples()):
        colour, marker = method_style(str(row.method), others)
        if row.high < lowest:
            text = f"← {row.mean:.2f} ({row.low:.2f} to {row.high:.2f})".replace("-", "−")
            at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
            axes.annotate(text, (0, place), xytext=(6, 0), va="center", fontsize=7.5, color=colour, **at)
            continue
        look = {"mec": colour} | (_CONTROL if row.control else _COMPARED) | {"ls": "none"}
        axes.hlines(place, row.low, row.high, color=colour, lw=1.6, zorder=2)
        axes.plot([row.mean], [place], color=colour, marker=marker, **look)
    axes.set_yticks(range(len(data)), data["title"])
    axes.set_ylim(len(data) - 0.5, -0.5)
    axes.set_xlabel(f"{first(page).score} on test minus that of {REFERENCE}, points, and 95 % interval over the seeds")
    return figure


def legend_columns(labels: list[str], most: int = 5, characters: int = 125) -> int:
    """The most columns, filled downwards, whose longest labels fit into the width; fewer where that saves no row.

    characters: width of the figure in letters.
    """
    for columns in range(min(most, len(labels)), 1, -1):
        rows = math.ceil(len(labels) / columns)
        starts = range(0, len(labels), rows)
        longest = [max(map(len, labels[start : start + rows])) + 9 for start in starts]  # 9: its line
        if sum(longest) <= characters:
            return len(longest)
    return 1


def _method_line(axes: Axes, line: pd.DataFrame, when: str, style: tuple[str, Marker]) -> None:
    colour, marker = style
    look = {"mec": colour} | (_CONTROL if line["control"].any() else _COMPARED)
    if line[f"{when} error"].any():
        bars: dict[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 1, "capsize": 2}
        axes.errorbar(line["reading"], line[when], yerr=line[f"{when} error"], zorder=look["zorder"], **bars)
    axes.plot(line["reading"], line[when], label=line["title"].iloc[0], color=colour, marker=marker, **look)


def _leave_out_low(axes: Axes, data: pd.DataFrame, when: str, dense_percent: float) -> None:
    """End the axis above points that lie far below the others, and name their methods there."""
    lowest = dense_percent - FAR * (dense_percent - data[when].median())
    low = data[data[when] < lowest]
    if low.empty:
        return
    axes.set_ylim(bottom=lowest)
    text = "below the plot: " + "; ".join(low["title"].unique())
    place: dict[str, Any] = {"xycoords": "axes fraction", "xytext": (6, 6), "textcoords": "offset points"}
    axes.annotate(text, (0, 0), fontsize=7.5, color=FAINT, **place)


def _budget_lines(axes: Axes, amounts: dict[str, float]) -> None:
    label = "Budget, share of dense"
    for fraction, amount in amounts.items():
        axes.axvline(amount, color=FAINT, lw=0.9, ls=(0, (1, 3)), zorder=1, label=label)
        label = "_another"
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
        axes.annotate(fraction, (amount, 1), ha="center", va="bottom", fontsize=7.5, color=FAINT, **place)


def unit_widths(page: pd.DataFrame) -> pd.DataFrame:
    """Width over dense width of every unit: the mean over the seeds within the budget, the least and the most."""
    both = ["measures.widths", "measures.upper_bounds"]
    units = cut(page)[["method", "title", "budget", *both]].explode(both)
    units["unit"] = units.groupby(level=0).cumcount() + 1
    units["share"] = (units["measures.widths"] / units["measures.upper_bounds"]).astype(float)
    groups = units.groupby(["method", "title", "budget", "unit"], sort=False)
    return groups["share"].agg(["mean", "min", "max"]).reset_index()


def widths(page: pd.DataFrame, unit: Unit, data: pd.DataFrame) -> Figure:
    """A panel per method and a line per budget (the layout of the paper's Figure 6)."""
    panels = list(data.groupby("method", sort=False))
    rows = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / rows)
    figure = page_figure(page, 0.95 + 1.75 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    fractions, legend = list(budgets(page)), dict[str, Any]()
    for axes, (_, panel) in zip(grid.flat, panels, strict=False):
        axes.set_title(panel["title"].iloc[0])
        for fraction, line in panel.groupby("budget", sort=False):
            colour, marker = budget_style(fractions.index(fraction))
            axes.fill_between(line["unit"], line["min"], line["max"], color=colour, alpha=0.18, lw=0)
            look = {"marker": marker, "ms": 4.2, "mec": "white", "mew": 0.5}
            (legend[fraction],) = axes.plot(line["unit"], line["mean"], color=colour, lw=1.4, **look)
        axes.set_ylim(0, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        axes.xaxis.get_major_locator().set_params(integer=True, steps=[1, 2, 5, 10])
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid.flat[len(panels) - columns : len(panels)]:  # the lowest of every column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("unit, in execution order")
    for axes in grid[:, 0]:
        axes.set_ylabel("width / dense width")
    budget_legend(figure, {fraction: legend[fraction] for fraction in fractions if fraction in legend})
    return figure

"""Draws a page's plots from their data (bench.report.series) alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.report.style import (
    FAINT,
    INK,
    METHODS,
    bare,
    budget_style,
    house_style,
    method_style,
    new_figure,
    svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_IN = 9.4
_HALO: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.8}


def draw(data: dict[str, Any]) -> bytes:
    """The SVG of the plot that `data` describes."""
    with house_style():
        figure, title = _DRAWERS[data["figure"]](data)
        return svg(figure, title, data)


def _caption(figure: Figure, data: dict[str, Any]) -> None:
    figure.suptitle(data["caption"], fontsize=8.5, color=FAINT, x=0.012, ha="left")


def _accuracy(data: dict[str, Any]) -> tuple[Figure, str]:
    figure = new_figure(_WIDTH_IN, 4.5)
    _caption(figure, data)
    after, before = figure.subplots(1, 2)
    others = [line["method"] for line in data["lines"] if line["method"] not in METHODS]
    for axes, title, column in ((after, "After fine-tuning", 1), (before, "Before fine-tuning", 3)):
        axes.set_title(title, pad=17)
        axes.set_xlabel(data["x_label"])
        axes.set_ylabel(f"{data['score']} on test, %")
        for line in data["lines"]:
            _method_line(axes, line, column, method_style(line["method"], others))
        _dense_lines(axes, data["dense"], "after" if column == 1 else "before")
        bare(axes)
        axes.margins(x=0.1, y=0.08)
        _budget_lines(axes, data["budgets"])
    lines = [line for line in after.get_lines() if not line.get_label().startswith("_")]
    columns = legend_columns([str(line.get_label()) for line in lines])
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, handlelength=2.8, columnspacing=1.8)
    return figure, f"{data['score']} on test against {data['x_label']}"


def legend_columns(labels: list[str], most: int = 5, characters: int = 125) -> int:
    """The most columns, filled downwards, whose longest labels fit into the width; fewer where that saves no row."""
    for columns in range(min(most, len(labels)), 1, -1):
        rows = math.ceil(len(labels) / columns)
        longest = [
            max(map(len, labels[start : start + rows])) + 9 for start in range(0, len(labels), rows)
        ]  # 9: its line
        if sum(longest) <= characters:
            return len(longest)
    return 1


def _method_line(axes: Axes, line: dict[str, Any], column: int, style: tuple[str, str]) -> None:
    colour, marker = style
    points = [point for point in line["points"] if point[0] is not None and point[column] is not None]
    x, y = [point[0] for point in points], [point[column] for point in points]
    error = [point[column + 1] or 0.0 for point in points]
    control = line["control"]
    hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 1.3}
    dash, order = ((0, (4, 2)) if control else "-"), (3 if control else 4)
    if any(error):
        axes.errorbar(x, y, yerr=error, fmt="none", ecolor=colour, elinewidth=1, capsize=2, zorder=order)
    size, thickness = (6, 1.2) if control else (7.5, 1.8)
    look = (hollow if control else _HALO) | {"color": colour, "marker": marker, "ms": size, "lw": thickness, "ls": dash}
    axes.plot(x, y, label=line["title"], zorder=order, **look)


def _dense_lines(axes: Axes, dense: dict[str, Any], stage: str) -> None:
    where = f" ({dense['reading']})" if dense["reading"] else ""
    axes.axhline(dense["delivered"], color=INK, lw=1.1, zorder=2, label=f"Dense, as delivered{where}")
    if dense[stage] is not None:
        axes.axhline(dense[stage], color=INK, lw=1.1, ls=(0, (5, 2, 1, 2)), zorder=2, label="Dense, same iterations")


def _budget_lines(axes: Axes, budgets: dict[str, float]) -> None:
    label = "Budget, share of dense"
    for fraction, joules in budgets.items():
        axes.axvline(joules, color=FAINT, lw=0.9, ls=(0, (1, 3)), zorder=1, label=label)
        label = "_another"
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (0, 3), "textcoords": "offset points"}
        axes.annotate(fraction, (joules, 1), ha="center", va="bottom", fontsize=7.5, color=FAINT, **place)


def _widths(data: dict[str, Any]) -> tuple[Figure, str]:
    panels = data["panels"]
    rows = math.ceil(len(panels) / 3)
    columns = math.ceil(len(panels) / rows)
    figure = new_figure(_WIDTH_IN, 0.95 + 1.75 * rows)
    _caption(figure, data)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    legend: dict[str, Any] = {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_title(panel["title"])
        for fraction, units in panel["lines"].items():
            colour, marker = budget_style(data["budgets"].index(fraction))
            x = list(range(1, len(units) + 1))
            mean, low, high = ([math.nan if unit[i] is None else unit[i] for unit in units] for i in range(3))
            axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
            look = {"marker": marker, "ms": 4.2, "markeredgecolor": "white", "markeredgewidth": 0.5}
            (legend[fraction],) = axes.plot(x, mean, color=colour, lw=1.4, **look)
        axes.set_ylim(0, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        axes.xaxis.get_major_locator().set_params(integer=True, steps=[1, 2, 5, 10])
        bare(axes)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for column in range(columns):
        lowest = grid[(len(panels) - 1 - column) // columns, column]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel("unit, in execution order")
    for row in grid:
        row[0].set_ylabel("width / dense width")
    ordered = [fraction for fraction in data["budgets"] if fraction in legend]
    figure.legend([legend[f] for f in ordered], [f"budget {f}" for f in ordered], loc="outside lower center", ncols=6)
    return figure, "Normalised width of every unit"


def _trace(data: dict[str, Any]) -> tuple[Figure, str]:
    present = {name for course in data["courses"].values() for name in course}
    panels = [panel for panel in _TRACE_PANELS if present & set(panel[1])]
    figure = new_figure(_WIDTH_IN, 2.6)
    _caption(figure, data)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    budgets, legend = list(data["budgets"]), {}
    for axes, (title, names) in zip(grid, panels, strict=True):
        axes.set_title(data["y_label"] if title is None else title, fontsize=8.5)
        for fraction, course in data["courses"].items():
            colour, _ = budget_style(budgets.index(fraction))
            for name, dash in zip(names, ("-", (0, (3, 2))), strict=False):
                if name in course:
                    values = [math.nan if value is None else value for value in course[name]]
                    (line,) = axes.plot(course["iteration"], values, color=colour, lw=1.3, ls=dash)
                    if dash == "-":
                        legend[fraction] = line
            if title is None:
                axes.axhline(data["budgets"][fraction], color=colour, lw=0.9, ls=(0, (1, 2)))
        axes.set_xlabel("training iteration")
        bare(axes)
        axes.xaxis.get_major_locator().set_params(nbins=3)
    labels = [f"budget {fraction}" for fraction in legend]
    figure.legend(list(legend.values()), labels, loc="outside lower center", ncols=6)
    return figure, f"Course of {data['title']}"


# (title, columns: the first drawn solid, the second dashed); a title of None takes the energy's label
_TRACE_PANELS: tuple[tuple[str | None, tuple[str, ...]], ...] = (
    (None, ("energy",)),
    ("φ and s (dashed), share", ("phi", "s")),
    ("dual y, mean over units", ("y",)),
    ("dual z", ("z",)),
    ("loss", ("loss",)),
)
_DRAWERS = {"accuracy": _accuracy, "widths": _widths, "trace": _trace}

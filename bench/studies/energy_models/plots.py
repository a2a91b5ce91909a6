"""Plots of the energy-model study, made from its figures alone.

A plot is a frame with a row per point. `row` and `panel` are its place, `line` is the label, `colour` and `dash` are
the line's style, `x` and `error` (%) the point, and `level` is the error of the panel's least squares, NaN to hide it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.report.style import BUDGETS, FAINT, INK, house_style, new_figure, svg
from bench.studies.energy_models.claims import CHAIN, claimed
from bench.studies.energy_models.frame import of_study
from bench.studies.energy_models.plan import DEFAULT_DECAY, Plan
from shared.energy.terms import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN = 9.4
_DASHES = ("-", (0, (4, 2)))
_COLUMNS = ["row", "panel", "line", "colour", "dash", "x", "error", "level"]


def plots(figures: pd.DataFrame, plan: Plan) -> dict[str, bytes]:
    """Name -> SVG of every plot of the page."""
    adam = "No hidden layer, all training rows; targets and weight decay."
    depth = f"{plan.depth_rows:,} rows, targets {{}}, weight decay {DEFAULT_DECAY:g}."
    made = {
        "adam": ("Error of Adam against its iterations", adam, adam_lines(figures, plan)),
        "samples": ("Error against training rows", "Non-negative least squares.", samples_lines(figures, plan)),
    }
    for name, scaled, targets in (("depth-raw", False, "in joules"), ("depth-scaled", True, "of mean 1")):
        lines = depth_lines(figures, scaled)
        made[name] = ("Error by hidden layers against iterations", depth.format(targets), lines)
    return {
        name: draw(
            title, f"{caption} Simulated joules.", "training rows" if name == "samples" else "Adam iterations", of
        )
        for name, (title, caption, of) in made.items()
    }


def adam_lines(figures: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Adam without hidden layers on the first network: a line per reading of the decay, least squares as a level."""
    parts = claimed(figures, "adam")
    colours = [plan.decays.index(decay) for decay in parts["decay"]]
    return _curves(figures, parts.assign(row=0, line=parts["way"], colour=colours, dash=parts["scaled"].astype(int)))


def depth_lines(figures: pd.DataFrame, scaled: bool) -> pd.DataFrame:
    """Depths with the published code's decay: a row of panels per network."""
    parts = of_study(figures, "depth", kind=CHAIN, scaled=scaled, decay=DEFAULT_DECAY)
    labels = [f"{depth or 'no'} hidden layer{'s' * (depth != 1)}" for depth in parts["depth"]]
    return _curves(figures, parts.assign(row=parts["network"], line=labels, colour=parts["depth"], dash=0))


def _curves(figures: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
    levels = of_study(figures, "fit", kind=CHAIN)[["network", "platform", "error"]]
    lines = parts.drop(columns="error").merge(levels, on=["network", "platform"]).explode("curve")
    points = pd.DataFrame(lines["curve"].tolist(), lines.index, columns=["x", "percent"])
    panels = lines["network"] + ", " + lines["platform"]
    lines = lines.assign(panel=panels, x=points["x"], level=100 * lines["error"], error=100 * points["percent"])
    return lines[_COLUMNS]


def samples_lines(figures: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Least squares by number of rows: a panel per platform, a line per network and kind of terms."""
    networks, fits = [name for name, _ in plan.networks], of_study(figures, "fit")
    style = {
        "row": 0,
        "panel": fits["platform"],
        "line": fits["network"] + ", " + fits["kind"],
        "colour": fits["network"].map(networks.index),
        "dash": fits["kind"].map(KINDS.index),
        "level": float("nan"),
    }
    sizes = {f"sizes.{size}": size for size in plan.sizes if f"sizes.{size}" in fits}
    by_size = [fits.assign(**style, x=size, error=100 * fits[column]) for column, size in sizes.items()]
    return pd.concat(by_size).dropna(subset="error").sort_values(["panel", "colour", "dash", "x"])[_COLUMNS]


def draw(title: str, caption: str, x_label: str, lines: pd.DataFrame) -> bytes:
    """The SVG of a plot: panels of lines on logarithmic axes."""
    panels = lines.groupby(["row", "panel"], sort=False)
    rows = lines["row"].nunique()
    with house_style():
        figure = new_figure(WIDTH_IN, 1.15 + 2.25 * rows)
        figure.suptitle(caption, fontsize=8.5, color=FAINT, x=0.012, ha="left")
        grid = figure.subplots(rows, len(panels) // rows, squeeze=False, sharex=True, sharey="row")
        for axes, ((_, panel), of_panel) in zip(grid.flat, panels, strict=True):
            _panel(axes, panel, of_panel)
        for row in grid:
            row[0].set_ylabel("held-out error, %")
            # The panels of a row share this axis. Errors above 100 % are of no interest.
            row[0].set_ylim(top=min(100, row[0].get_ylim()[1]))
        for axes in grid[-1]:
            axes.set_xlabel(x_label)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=2.8)
        return svg(figure, title, lines)


def _panel(axes: Axes, title: str, lines: pd.DataFrame) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_title(title)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for index, (label, line) in enumerate(lines.groupby("line", sort=False)):
        colour, marker = BUDGETS[line["colour"].iloc[0] % len(BUDGETS)]
        every = max(1, len(line) // 8)  # offset by line, so that lines on top of each other stay visible
        look: dict[str, Any] = {"marker": marker, "ms": 3.6, "markevery": (index % every, every)}
        axes.plot(line["x"], line["error"], color=colour, lw=1.4, ls=_DASHES[line["dash"].iloc[0]], label=label, **look)
    level = lines["level"].iloc[0]
    if pd.notna(level):
        axes.axhline(level, color=INK, lw=1.1, ls=(0, (1, 2)), label="least squares, all training rows")
    plain: Callable[[float, int], str] = lambda value, _: f"{value:,.10g}"  # noqa: E731
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(plain))
        axis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.grid(True, axis="x")

"""Where a network's joules go, layer by layer: a table, and a figure with a bar per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from bench.report.style import CARD, FAINT, WIDTH_IN, house_style, new_figure, svg
from bench.report.text import Table, Unit, percent, unit_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shared.platforms import Breakdown

# of causes, neighbours differ in hue and lightness
COLOURS = ("#24292f", "#8a63b8", "#16808c", "#b07400", "#e0a63d", "#c2477f", "#7fa35c")


def frame(breakdown: Breakdown) -> pd.DataFrame:
    """The amounts of the breakdown's first network: a row per layer that costs any, a column per cause that has any."""
    amounts = pd.DataFrame(breakdown.amounts[0], index=list(breakdown.layers), columns=list(breakdown.causes))
    return amounts.loc[amounts.sum(axis=1) > 0, amounts.sum() > 0]


def layers_table(amounts: pd.DataFrame, base: str) -> Table:
    """A row per layer with its amount, its share and the share of each cause in it; the whole network at last."""
    sums, unit = amounts.sum(axis=1), unit_for(amounts.sum(axis=1), base)
    rows = [_row(str(name), row, sums.sum(), unit) for name, row in amounts.iterrows()]
    rows.append(_row("all layers", amounts.sum(), sums.sum(), unit))
    return ["layer", unit.symbol, "% of all", *(f"{cause}, %" for cause in amounts)], rows


def _row(name: str, amounts: pd.Series, everything: float, unit: Unit) -> list[str]:
    own = amounts.sum()
    return [name, unit(own), percent(own / everything, 1), *(percent(amount / own, 1) for amount in amounts)]


def plot(amounts: pd.DataFrame, base: str, title: str) -> bytes:
    """The figure as SVG: a stacked bar per layer, a colour per cause."""
    unit = unit_for(amounts.sum(axis=1), base)
    with house_style():
        return svg(_figure(amounts / unit.size, unit, title), title, amounts.rename_axis("layer").reset_index())


def _figure(amounts: pd.DataFrame, unit: Unit, title: str) -> Figure:
    figure = new_figure(WIDTH_IN, 1.2 + 0.17 * len(amounts))
    figure.suptitle(title, fontsize=8.5, color=FAINT, x=0.012, ha="left")
    axes, left = figure.subplots(), pd.Series(0.0, amounts.index)
    for colour, cause in zip(COLOURS[: len(amounts.columns)], amounts, strict=True):
        axes.barh(range(len(amounts)), amounts[cause], left=left, color=colour, ec=CARD, lw=0.3, label=cause)
        left += amounts[cause]
    axes.set_yticks(range(len(amounts)), amounts.index, fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel(f"{unit.symbol} per image")
    figure.legend(loc="outside lower center", ncols=4)
    return figure

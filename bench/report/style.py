"""How plots look, and how they become the same bytes every time.

A plot brings its own light card, so that its contrast does not depend on the page: text stays above 7:1 and data above
3:1 on it, on light and on dark pages alike. Colours follow the palette of Okabe and Ito (2008), darkened where it is
too light for a line. Markers and dashes make the same distinctions without colour.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pandas as pd

from bench.report.tables import first, seeds, workload
from bench.report.text import plural
from methods.registry import BUILT_IN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CARD, EDGE, INK, FAINT = "#f8f9fb", "#d0d7de", "#24292f", "#4d555e"  # bench.mplstyle repeats the last two

WIDTH_IN = 9.4  # of a page's plots

Marker = str | tuple[int, int, int]  # as matplotlib names one: a letter, or a star of so many points
# (colour, marker) of every built-in method in the registry's order, then of third parties. Controls are drawn hollow
# and dashed, the dense control as a level.
PALETTE: tuple[tuple[str, Marker], ...] = (
    *(("#0067a6", "o"), ("#2b8cbe", "h"), ("#1b3a8c", "H"), ("#d1560a", "s"), ("#b5651d", "D"), ("#007a56", "^")),
    *(("#8c2d6b", (4, 1, 0)), ("#a8588f", (4, 1, 45)), ("#3f7f3a", (6, 1, 0)), ("#2a6b55", (6, 1, 30))),
    ("#3f8f78", (8, 1, 0)),
    *(("#7d8f1f", (3, 1, 0)), ("#55691a", (3, 1, 180)), ("#5b4a9e", (7, 1, 0))),
    (INK, "*"),
    *(("#82868c", "v"), ("#5a1846", "p"), ("#8a6d1b", "X"), ("#1f1f1f", "P")),
    *(("#b8447f", "<"), ("#6f4fd1", ">"), ("#a03033", "d"), ("#3d7a8a", "8")),
)
# (colour, marker) of budgets, tightest first. No method has such a colour; neighbours differ in hue and lightness.
BUDGETS = (("#4b1d7a", "o"), ("#16808c", "s"), ("#b07400", "^"), ("#c2477f", "D"), ("#2f5f2f", "v"), ("#5f6fd0", "P"))


def method_style(method: str, others: Sequence[str]) -> tuple[str, Marker]:
    """(colour, marker) of a method; `others` are the page's methods that are not built in, in order."""
    known = [*BUILT_IN, *others]
    return PALETTE[known.index(method) % len(PALETTE)]


def budget_style(index: int) -> tuple[str, str]:
    """(colour, marker) of the budget in column `index`, tightest first."""
    return BUDGETS[index % len(BUDGETS)]


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure on a card with rounded corners. Call within `house_style()`."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, wspace=0.02, hspace=0.04)  # type: ignore[union-attr,call-arg]
    figure.patch.set_visible(False)
    outline = "round,pad=0,rounding_size=8"
    width, height = 72 * width_in - 1.5, 72 * height_in - 1.5
    card = FancyBboxPatch((0.75, 0.75), width, height, outline, transform=None, fc=CARD, ec=EDGE, lw=1, zorder=-10)
    card.set_in_layout(False)
    figure.add_artist(card)
    return figure


def house_style() -> Any:
    """Context with the settings of bench.mplstyle, whatever a user's matplotlibrc says."""
    import matplotlib.style

    return matplotlib.style.context(["default", "bench.report.bench"])  # bench.mplstyle beside this module


def svg(figure: Figure, title: str, data: pd.DataFrame) -> bytes:
    """The figure as SVG without a date, with the library's version as its creator and `data` as its description.

    The data are CSV of twelve digits. With them a committed plot can be compared with its records although another
    version of the library draws other bytes.
    """
    stream = io.BytesIO()
    description = data.to_csv(index=False, float_format="%.12g", lineterminator="\n")
    figure.savefig(stream, format="svg", metadata={"Date": None, "Title": title, "Description": description})
    return re.sub(rb"[ \t]+\n", b"\n", stream.getvalue())


_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"


def creator_and_data(content: bytes) -> tuple[str, str]:
    """(drawing library and version, description) of an SVG written by `svg`. Raises ValueError when it is not one."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"expected an SVG, got text that is no XML ({error}); try regenerating it") from None
    creator = "".join(next(root.iter(f"{_DUBLIN_CORE}creator"), ElementTree.Element("none")).itertext()).strip()
    return creator, root.findtext(f".//{_DUBLIN_CORE}description") or ""


def same_plot(committed: bytes, fresh: bytes) -> bool:
    """Whether two SVGs show the same: the same bytes, or, drawn by different versions of the library, the same data."""
    if committed == fresh:
        return True
    try:
        (creator, data), (fresh_creator, fresh_data) = creator_and_data(committed), creator_and_data(fresh)
    except ValueError:
        return False
    return creator != fresh_creator and data == fresh_data


def page_figure(page: pd.DataFrame, height_in: float) -> Figure:
    """An empty figure with a caption: workload, platform and source, protocol, seeds."""
    record, number = first(page), len(seeds(page))
    parts = [workload(page), f"{record.platform.name}, {record.platform.source}", f"protocol {record.protocol.name}"]
    parts.append(f"{number} {plural('seed', number)}")
    figure = new_figure(WIDTH_IN, height_in)
    caption = "  ·  ".join(parts if page["protocol.ranks"].all() else [*parts, "ranks nothing"])
    figure.suptitle(caption, fontsize=8.5, color=FAINT, x=0.012, ha="left")
    return figure


def budget_legend(figure: Figure, lines: dict[str, Any]) -> None:
    """A legend of budgets below a figure: label -> line."""
    labels = [f"budget {fraction}" for fraction in lines]
    figure.legend(list(lines.values()), labels, loc="outside lower center", ncols=6)

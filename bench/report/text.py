"""Numbers, units and Markdown as text: how a report writes what a record holds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

ABSENT = "–"
_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
SIGNIFICANT_DIGITS = 4


@dataclass(frozen=True)
class Unit:
    """One unit and one number of decimals for all amounts of a page, so that its columns can be compared by eye."""

    symbol: str  # "mJ"
    size: float  # one of this unit in joules or seconds
    decimals: int

    def __call__(self, amount: float | None) -> str:
        """`amount` (joules or seconds) as a bare number in this unit."""
        if amount is None or not math.isfinite(amount):
            return ABSENT
        return f"{amount / self.size:.{self.decimals}f}"

    def named(self, amount: float) -> str:
        """`amount` with the unit behind it."""
        return f"{self(amount)} {self.symbol}"


def unit_for(values: Iterable[float], base: str = "J") -> Unit:
    """The unit in which the largest of `values` is at least 1, with the smallest at four significant digits.

    base: the unit of the values, "J" or "s". Values that are not positive and finite are left out of the choice;
    without any it is a thousandth.
    """
    positive = [value for value in values if math.isfinite(value) and value > 0]
    if not positive:
        return Unit(f"m{base}", 1e-3, 3)
    factor, prefix = next((pair for pair in _PREFIXES if max(positive) >= pair[0]), _PREFIXES[-1])
    magnitude = math.floor(math.log10(min(positive) / factor))
    return Unit(prefix + base, factor, min(6, max(0, SIGNIFICANT_DIGITS - 1 - magnitude)))


def percent(value: float | None, decimals: int = 2) -> str:
    """A fraction in percent, without the sign."""
    return ABSENT if value is None or not math.isfinite(value) else f"{100 * value:.{decimals}f}"


def signed_percent(value: float, decimals: int = 1) -> str:
    """A relative difference in percent with its sign; a typographic minus."""
    return f"{100 * value:+.{decimals}f} %".replace("-", "−") if math.isfinite(value) else ABSENT


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return ABSENT if value is None or not math.isfinite(value) else f"{round(value):,}"


def seconds(value: float | None) -> str:
    """Wall seconds: one decimal below a hundred."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def mean_std(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Mean, and behind ± the sample standard deviation (n - 1) where there are several values."""
    if not values or not all(map(math.isfinite, values)):
        return ABSENT
    mean = form.format(fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {form.format(stdev(values))}"


def span(values: Sequence[float]) -> str:
    """A whole number that should be the same in all runs; "least–most" where it is not."""
    if not values:
        return ABSENT
    low, high = count(min(values)), count(max(values))
    return low if low == high else f"{low}–{high}"


def superscript(number: int) -> str:
    """The mark of a footnote."""
    return str(number).translate(_SUPERSCRIPTS)


def escape(text: object) -> str:
    """`text` on one line with everything that Markdown or HTML would read as markup escaped."""
    line = " ".join(str(text).split())
    line = re.sub(r"([\\`*\[\]<>|~$])", r"\\\1", line)
    line = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)
    return re.sub(r"&(?=#?\w+;)", r"\\&", line)


def code(text: object) -> str:
    """`text` as inline code that is safe in a table cell."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "¦") + "`"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table padded to equal widths; the first `left` columns are aligned left, the others right.

    Raises ValueError when a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"expected {len(header)} cells in a row, got {len(row)}: {list(row)}; try one per column")
    widths = [max(3, *(len(line[i]) for line in (header, *rows))) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


Table = tuple[list[str], list[list[str]]]  # head and rows as plain text; the first column names the rows


def markdown(cells: Table, left: int = 1) -> str:
    """The table in Markdown, the names in its first column escaped."""
    head, rows = cells
    return table(head, [[escape(row[0]), *row[1:]] for row in rows], left)


@cache
def environment() -> Environment:
    """The templates that lie in this package."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("bench.report", "."),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, escaped cell by cell
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"escape_md": escape, "count": count, "percent": percent, "signed": signed_percent}
    templates.filters |= {"markdown": markdown, "table": lambda cells, left: table(cells[0], cells[1], left)}
    return templates


def fill(template: str, **values: object) -> str:
    """The Markdown of a template: at most one empty line in a row, one newline at the end."""
    text = environment().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

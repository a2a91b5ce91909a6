"""Numbers, units and Markdown as text: how a report writes what a record holds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

ABSENT = "–"
# a platform's unit -> what budgets and readings are in
AMOUNTS = {"J": "joules", "s": "seconds", "MAC": "multiply-adds", "B": "bytes"}
SIGNIFICANT_DIGITS = 4
_LARGE = ((1e9, "G"), (1e6, "M"), (1e3, "k"))  # of multiply-adds and bytes, which are counted
_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
Table = tuple[list[str], list[list[str]]]  # column heads, and rows of as many cells; the first column names the rows


@dataclass(frozen=True)
class Unit:
    """One unit and one number of decimals for all amounts of a page, so that its columns can be compared by eye."""

    symbol: str  # "mJ"
    size: float  # one of this unit in the base unit, such as joules
    decimals: int

    def __call__(self, amount: float | None) -> str:
        """`amount` (in the base unit) as a bare number in this unit."""
        return ABSENT if amount is None else _number(amount / self.size, f".{self.decimals}f")

    def named(self, amount: float) -> str:
        """`amount` (in the base unit) as a number in this unit, followed by the unit."""
        return f"{self(amount)} {self.symbol}"


def unit_for(values: Iterable[float], base: str = "J") -> Unit:
    """The unit in which the largest of `values` is at least 1, with the smallest at four significant digits.

    base: the unit of the values, "J", "s", "MAC" or "B". Values that are not positive and finite have no part in the
    choice. Without a positive one the unit is a thousandth of the base.
    """
    positive = [value for value in values if math.isfinite(value) and value > 0]
    if not positive:
        return Unit(f"m{base}", 1e-3, 3)
    prefixes = (*(_LARGE if base in ("MAC", "B") else ()), *_PREFIXES)
    factor, prefix = next((pair for pair in prefixes if max(positive) >= pair[0]), prefixes[-1])
    magnitude = math.floor(math.log10(min(positive) / factor))
    return Unit(prefix + base, factor, min(6, max(0, SIGNIFICANT_DIGITS - 1 - magnitude)))


def _number(value: float | None, form: str) -> str:
    """`value` in a format of Python's; a dash stands for a missing or infinite one."""
    return ABSENT if value is None or not math.isfinite(value) else format(value, form)


def percent(value: float | None, decimals: int = 2) -> str:
    """A fraction in percent, without the sign."""
    return _number(value, f".{decimals}%").removesuffix("%")


def signed_percent(value: float, decimals: int = 1) -> str:
    """A relative difference in percent with its sign; a typographic minus."""
    return _number(value, f"+.{decimals}%").replace("-", "−").replace("%", " %")


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return _number(value, ",.0f")


def seconds(value: float | None) -> str:
    """Wall seconds: one decimal below a hundred."""
    return _number(value, ",.1f" if value is not None and value < 100 else ",.0f")


def mean_std(values: Iterable[float], form: str = "{:.2f}") -> str:
    """The mean; with several values also ± and the sample standard deviation (n - 1)."""
    numbers = list(values)
    if not numbers or not all(map(math.isfinite, numbers)):
        return ABSENT
    mean = form.format(fmean(numbers))
    return mean if len(numbers) == 1 else f"{mean} ± {form.format(stdev(numbers))}"


def span(values: Iterable[float]) -> str:
    """A whole number that should be the same in all runs; "least–most" where it is not."""
    numbers = list(values)
    if not numbers:
        return ABSENT
    low, high = count(min(numbers)), count(max(numbers))
    return low if low == high else f"{low}–{high}"


def plural(noun: str, number: int) -> str:
    """The noun, with an s unless `number` is 1."""
    return noun if number == 1 else f"{noun}s"


def superscript(number: int) -> str:
    """The mark of a footnote."""
    return str(number).translate(_SUPERSCRIPTS)


@dataclass
class Notes:
    """Numbered notes below a page's first table."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The superscript that stands for `text`; the same text keeps its number."""
        if text not in self.texts:
            self.texts.append(text)
        return superscript(self.texts.index(text) + 1)

    def lines(self) -> list[str]:
        """The notes, each behind its mark."""
        return [f"{superscript(number)} {text}" for number, text in enumerate(self.texts, start=1)]


def escape(text: object) -> str:
    """`text` on one line with everything escaped that Markdown or HTML would read as markup."""
    line = " ".join(str(text).split())
    line = re.sub(r"([\\`*\[\]<>|~$])", r"\\\1", line)
    line = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)
    return re.sub(r"&(?=#?\w+;)", r"\\&", line)


def code(text: object) -> str:
    """`text` as inline code that is safe in a table cell."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "¦") + "`"


def by_head(rows: Sequence[Mapping[str, str]]) -> Table:
    """The table of one or more rows that map the same column heads to their cells."""
    return list(rows[0]), [list(row.values()) for row in rows]


def table(cells: Table, left: int = 1) -> str:
    """A Markdown table padded to equal widths; the first `left` columns are aligned left, the others right.

    Raises ValueError when a row has another number of cells than the head.
    """
    head, rows = cells
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"expected {len(head)} cells in a row, got {len(row)}: {row}; try one per column")
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    sides = ["<" if place < left else ">" for place in range(len(head))]

    def line(texts: Sequence[str]) -> str:
        padded = [f"{text:{side}{width}}" for text, side, width in zip(texts, sides, widths, strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if side == "<" else "-" * (width - 1) + ":" for side, width in zip(sides, widths, strict=True)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def markdown(cells: Table, left: int = 1) -> str:
    """The table in Markdown, the names in its first column escaped."""
    head, rows = cells
    return table((head, [[escape(row[0]), *row[1:]] for row in rows]), left)


@cache
def environment() -> Environment:
    """The Jinja environment of the templates in this package."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("bench.report", "."),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, escaped cell by cell
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"escape_md": escape, "count": count, "percent": percent, "signed": signed_percent}
    templates.filters |= {"markdown": markdown, "table": table}
    return templates


def fill(template: str, **values: object) -> str:
    """The Markdown of a template, with at most one empty line in a row and one newline at the end."""
    text = environment().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

"""Pages in other formats than Markdown: CSV with a row per run, LaTeX with the tables that a paper prints."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.page import AMOUNTS, caption
from bench.report.provenance import digest
from bench.report.tables import Notes, budgets, figures_table, first, main_table, page_unit
from bench.report.text import Table
from shared.cache import atomic_write
from shared.errors import BadInput

MARKDOWN = "markdown"  # rendered with its plots, by bench.report.render


def write(runs: pd.DataFrame, form: str, folder: Path) -> list[Path]:
    """Write a file per page of `runs` in this format into `folder`; returns their paths. Raises BadInput for no run."""
    if runs.empty:
        raise BadInput("records to make pages of", "none", "python -m bench report --to first")
    suffix, text_of = FORMATS[form]
    texts = {folder / f"{name}.{suffix}": text_of(page) for name, page in runs.groupby("page")}
    for path, text in texts.items():
        atomic_write(path, text.encode())
    return list(texts)


def check_name(name: str) -> None:
    """Raises BadInput when `name` is no format."""
    if name not in (MARKDOWN, *FORMATS):
        raise BadInput(f"--format {', '.join((MARKDOWN, *FORMATS))}", repr(name), "--format csv")


def csv_text(page: pd.DataFrame) -> str:
    """A row per run with every figure of the page's tables, unrounded; units stand in the heads.

    Amounts are in J or s per image, shares and accuracies in %. A cell is empty where the run has no such figure.
    """
    platform, amount, plain_s = first(page).platform, page["budget.amount"], page["cost.plain_s"]

    def each(column: str, form: Callable[[Any], Any]) -> pd.Series:
        return page[column].map(form, na_action="ignore")

    figures = page.assign(
        ranks=page["protocol.ranks"].all(),
        unused=1 - page["measures.estimate"] / amount,
        to_budget=page["measures.reading"] / amount - 1,
        low=each("measures.interval", min),
        high=each("measures.interval", max),
        compressed=each("landing.before", lambda reading: reading["amount"]),
        landed=each("landing.after", lambda reading: reading["amount"]),
        widths=each("measures.widths", lambda row: " ".join(map(str, row))),
        upper_bounds=each("measures.upper_bounds", lambda row: " ".join(map(str, row))),
        overhead=page["cost.method_s"] / plain_s.where(plain_s > 0),
        sha256=each("record", digest),
    )
    names = {"amounts": AMOUNTS[platform.unit], "unit": platform.unit, "source": platform.source}
    columns = tomllib.loads(files("bench.report").joinpath("columns.toml").read_text(encoding="utf-8"))
    cells = {
        head.format(**names, score=first(page).score): _percent(figures[column]) if "(%" in head else figures[column]
        for head, column in columns.items()
    }
    text: str = pd.DataFrame(cells).to_csv(index=False, lineterminator="\n")
    return text


def _percent(shares: pd.Series) -> pd.Series:
    """Twelve digits: the noise of multiplying by 100 is none of the figure's."""
    return (100 * shares).map(lambda percent: float(f"{percent:.12g}"))


def latex_text(page: pd.DataFrame) -> str:
    """The main table and each budget's figures as booktabs tabulars in floats, with captions that name the source."""
    name, unit, notes = page["page"].iloc[0], page_unit(page), Notes()
    parts = [_float(main_table(page, unit, notes), caption(page), f"{name}-main")]
    for fraction, amount in budgets(page).items():
        title = f"Networks for {fraction} of dense = {unit.named(amount)} per image. {caption(page)}"
        parts.append(_float(figures_table(page, fraction, unit, notes), title, f"{name}-{fraction}"))
    below = [f"\\noindent {latex(_plain(line))}\\par" for line in notes.lines()]
    return "\n".join([f"% {name}; needs \\usepackage{{booktabs}}", *parts, *below]) + "\n"


def _float(table: Table, title: str, label: str) -> str:
    head, *rows = (" & ".join(map(latex, cells)) + r" \\" for cells in (table[0], *table[1]))
    lines = ["\\begin{table}", "\\centering", f"\\caption{{{latex(title)}}}", f"\\label{{tab:{label}}}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}", "\\toprule", head, "\\midrule"]
    return "\n".join([*lines, *rows, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


_LATEX = (
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # behind \\ it would open an argument
        "]": "{]}",
        "–": "--",
        "−": "$-$",
        "±": r"$\pm$",
        "×": r"$\times$",
        "·": r"$\cdot$",
        "µ": r"$\mu$",
        "Ê": r"$\hat{E}$",
        "φ": r"$\varphi$",
        "▲": r"$\uparrow$",
        "˒": r"$^{,}$",
        "…": r"\dots{}",
    }
    | {mark: f"$^{{{digit}}}$" for digit, mark in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
)


def latex(text: str) -> str:
    """`text` on one line with everything that LaTeX would read as a command escaped."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _plain(note: str) -> str:
    """A note of a page without its Markdown."""
    return re.sub(r"\\([\\`*\[\]<>|~$_&])", r"\1", note.replace("**", ""))


FORMATS: dict[str, tuple[str, Callable[[pd.DataFrame], str]]] = {"csv": ("csv", csv_text), "latex": ("tex", latex_text)}

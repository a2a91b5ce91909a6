"""Pages in other formats than Markdown: CSV has a row per run and a ranking, LaTeX the tables that a paper prints."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pandas as pd

from bench.ranking.ranking import rank
from bench.report import ranks, tables
from bench.report.provenance import digest
from bench.report.tables import budgets, caption, figures_table, first, main_table, page_unit
from bench.report.text import AMOUNTS, Notes, Table
from shared.cache import atomic_write
from shared.errors import BadInput

MARKDOWN = "markdown"  # bench.report.render writes it, with plots
_DATA = tomllib.loads(files("bench.report").joinpath("export.toml").read_text(encoding="utf-8"))


def write(runs: pd.DataFrame, form: str, folder: Path) -> list[Path]:
    """Write a file per page of `runs` in the format `form` (see FORMATS) into `folder`; returns the files' paths.

    Raises BadInput without a run.
    """
    if runs.empty:
        raise BadInput("records to make pages of", "none", "python -m bench report --to first")
    suffix, text_of = FORMATS[form]
    texts = {folder / f"{name}.{suffix}": text_of(page) for name, page in runs.groupby("page")}
    if form == "csv":
        texts |= {folder / f"{name}-ranking.csv": ranking_text(page) for name, page in runs.groupby("page")}
    for path, text in texts.items():
        atomic_write(path, text.encode())
    return list(texts)


def check_name(name: str) -> None:
    """Raises BadInput when `name` is not the name of a format."""
    if name not in (MARKDOWN, *FORMATS):
        raise BadInput(f"--format {', '.join((MARKDOWN, *FORMATS))}", repr(name), "--format csv")


def csv_text(page: pd.DataFrame) -> str:
    """A row per run with every figure of the page's tables, unrounded; units stand in the heads.

    Amounts are in J or s per image, shares and accuracies in %. A cell is empty where the run has no such figure.
    """
    platform, amount, plain_s = first(page).platform, page["budget.amount"], page["cost.plain_s"]
    cells = page.astype(object)  # pandas has no .str for a column whose numbers are all missing

    def numbers(column: str) -> pd.Series:
        return page[column].map(lambda row: " ".join(map(str, row)), na_action="ignore")

    figures = page.assign(
        ranks=page["protocol.ranks"].all(),
        unused=1 - page["measures.estimate"] / amount,
        to_budget=page["measures.reading"] / amount - 1,
        low=cells["measures.interval"].str[0],
        high=cells["measures.interval"].str[1],
        compressed=cells["landing.before"].str["amount"],
        landed=cells["landing.after"].str["amount"],
        widths=numbers("measures.widths"),
        upper_bounds=numbers("measures.upper_bounds"),
        overhead=page["cost.method_s"] / plain_s.where(plain_s > 0),
        sha256=page["record"].map(digest),
    )
    names = {"amounts": AMOUNTS[platform.unit], "unit": platform.unit, "source": platform.source}
    columns = {
        head.format(**names, score=first(page).score): _percent(figures[column]) if "(%" in head else figures[column]
        for head, column in _DATA["columns"].items()
    }
    return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")


def ranking_text(page: pd.DataFrame) -> str:
    """A row per method as `bench.rank` gives it: means, differences and their intervals as shares of 1."""
    return rank(page).to_csv(index=False, lineterminator="\n")


def _percent(shares: pd.Series) -> pd.Series:
    """Shares in percent with twelve digits, which leave out the rounding error of multiplying by 100."""
    return (100 * shares).map(lambda percent: float(f"{percent:.12g}"))


def latex_text(page: pd.DataFrame) -> str:
    """The main table and each budget's figures as booktabs tabulars in floats, with captions that name the source."""
    name, unit, notes = page["page"].iloc[0], page_unit(page), Notes()
    parts = [
        _float(main_table(runs, unit, notes), caption(page), f"{name}-{'main' if part == 'channels' else part}")
        for part, runs in tables.parts(page).items()
    ]
    if (order := ranks.order(page)) is not None:
        title = f"Methods by mean accuracy at equal {AMOUNTS[first(page).platform.unit]}. {caption(page)}"
        parts.append(_float(order, title, f"{name}-ranking"))
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


def latex(text: str) -> str:
    """`text` on one line with everything that LaTeX would read as a command escaped."""
    return " ".join(text.split()).translate(str.maketrans(_DATA["latex"]))


def _plain(note: str) -> str:
    """A note of a page without its Markdown."""
    return re.sub(r"\\([\\`*\[\]<>|~$_&])", r"\1", note.replace("**", ""))


FORMATS: dict[str, tuple[str, Callable[[pd.DataFrame], str]]] = {"csv": ("csv", csv_text), "latex": ("tex", latex_text)}

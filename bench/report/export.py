"""Pages in other formats than Markdown: CSV with a row per run, LaTeX with the tables that a paper prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

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
    platform, score = first(page).platform, first(page).score
    unit, source = platform.unit, platform.source
    amount, reading = page["budget.amount"], page["measures.reading"]
    low, high = (page["measures.interval"].map(lambda ends, i=i: ends[i], na_action="ignore") for i in (0, 1))
    widths, bounds = (
        page[f"measures.{name}"].map(lambda row: " ".join(map(str, row)), na_action="ignore")
        for name in ("widths", "upper_bounds")
    )
    columns = {
        "network": page["network.name"],
        "data set": page["dataset"],
        "platform": page["platform.name"],
        f"{AMOUNTS[unit]} are": page["platform.source"],
        "protocol": page["protocol.name"],
        "protocol ranks": page["protocol.ranks"].all(),
        **{name: page[name] for name in ("method", "title", "seed", "status", "reason")},
        "budget (share of dense)": page["budget.fraction"],
        f"budget ({unit})": amount,
        f"dense, {source} ({unit})": page["budget.dense_reading"],
        f"dense, estimated ({unit})": page["budget.dense_estimate"],
        f"dense as delivered, {score} (%)": _percent(page["dense_accuracy"]),
        f"before fine-tuning, {score} (%)": _percent(page["measures.accuracy_before"]),
        f"after fine-tuning, {score} (%)": _percent(page["measures.accuracy_after"]),
        f"estimated ({unit})": page["measures.estimate"],
        "unused (% of budget)": _percent(1 - page["measures.estimate"] / amount),
        f"{source} ({unit})": reading,
        f"interval from ({unit})": low,
        f"interval to ({unit})": high,
        "reading to budget (%)": _percent(reading / amount - 1),
        "parameters": page["measures.parameters"],
        "MACs per image": page["measures.macs"],
        "widths": widths,
        "dense widths": bounds,
        f"before repair, {source} ({unit})": page["repair.reading"],
        f"before repair, {score} (%)": _percent(page["repair.accuracy_after"]),
        "channels taken by repair": page["repair.removed_channels"],
        f"dense read again, {source} ({unit})": page["dense_again"],
        "training iterations": page["cost.training_iterations"],
        "fine-tuning iterations": page["cost.fine_tune_iterations"],
        "search images": page["cost.search_samples"],
        "energy-model queries": page["cost.energy_queries"],
        "readings": page["cost.measurements"],
        "method (s)": page["cost.method_s"],
        "fine-tuning (s)": page["cost.fine_tune_s"],
        "overhead (ratio)": page["cost.method_s"] / page["cost.plain_s"].where(page["cost.plain_s"] > 0),
        "energy model": page["energy_fit.kind"],
        "energy model's held-out error (%)": _percent(page["energy_fit.relative_error"]),
        "energy model's skill (ratio)": page["energy_fit.skill"],
        "SHA-256 of the record": page["record"].map(digest),
    }
    text: str = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")
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
    head, rows = table
    lines = ["\\begin{table}", "\\centering", f"\\caption{{{latex(title)}}}", f"\\label{{tab:{label}}}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", "\\toprule", _line(head), "\\midrule"]
    lines += [*map(_line, rows), "\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(latex, cells)) + r" \\"


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

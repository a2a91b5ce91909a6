"""Pages in other formats than Markdown: CSV with a row per run, LaTeX with the tables that a paper prints."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.record import Record
from bench.report.cells import Notes, overhead, page_unit
from bench.report.collect import Page
from bench.report.provenance import digest
from bench.report.render import caption
from bench.report.tables import Cells, figures_cells, main_cells
from shared.cache import atomic_write
from shared.errors import BadInput

MARKDOWN = "markdown"  # rendered with its plots, by bench.report.render


def write(made: Sequence[Page], name: str, folder: Path) -> list[Path]:
    """Write a file per page in the format `name` into `folder`; returns their paths. Raises BadInput without a page."""
    if not made:
        raise BadInput("records to make pages of", "none", "python -m bench report --to first")
    suffix, text_of = FORMATS[name]
    paths = [folder / f"{page.name}.{suffix}" for page in made]
    for page, path in zip(made, paths, strict=True):
        atomic_write(path, text_of(page).encode())
    return paths


def check_name(name: str) -> None:
    """Raises BadInput when `name` is no format."""
    if name not in (MARKDOWN, *FORMATS):
        raise BadInput(f"--format {', '.join((MARKDOWN, *FORMATS))}", repr(name), "--format csv")


def csv_text(page: Page) -> str:
    """A row per run with every figure of the page's tables, unrounded; units stand in the heads.

    Amounts are in J or s per image, shares and accuracies in %. A cell is empty where the run has no such figure.
    """
    lines = io.StringIO()
    rows = [_row(page, run) for run in page.records]
    writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


def _row(page: Page, run: Record) -> dict[str, Any]:
    platform, budget, measures, repair, cost = run.platform, run.budget, run.measures, run.repair, run.cost
    unit, source = platform.unit, platform.source
    amount, reading = budget and budget.amount, measures and measures.read
    low, high = (measures and measures.interval) or (None, None)
    return {
        "network": run.network["name"],
        "data set": run.dataset,
        "platform": platform.name,
        f"{page.amounts} are": source,
        "protocol": run.protocol["name"],
        "protocol ranks": page.ranks,
        "method": run.method,
        "title": run.title,
        "seed": run.seed,
        "status": run.status,
        "reason": run.reason,
        "budget (share of dense)": budget and budget.fraction,
        f"budget ({unit})": amount,
        f"dense, {source} ({unit})": budget and budget.dense_reading,
        f"dense, estimated ({unit})": budget and budget.dense_estimate,
        f"dense as delivered, {run.score} (%)": _percent(run.dense_accuracy),
        f"before fine-tuning, {run.score} (%)": _percent(measures.accuracy_before if measures else None),
        f"after fine-tuning, {run.score} (%)": _percent(measures.accuracy_after if measures else None),
        f"estimated ({unit})": measures and measures.estimate,
        "unused (% of budget)": _percent(1 - measures.estimate / amount if measures and amount else None),
        f"{source} ({unit})": reading,
        f"interval from ({unit})": low,
        f"interval to ({unit})": high,
        "reading to budget (%)": _percent(reading / amount - 1 if reading and amount else None),
        "parameters": measures and measures.parameters,
        "MACs per image": measures and measures.macs,
        "widths": measures and " ".join(map(str, measures.widths)),
        "dense widths": measures and " ".join(map(str, measures.upper_bounds)),
        f"before repair, {source} ({unit})": repair and repair.reading,
        f"before repair, {run.score} (%)": _percent(repair.accuracy_after if repair else None),
        "channels taken by repair": repair and repair.removed_channels,
        f"dense read again, {source} ({unit})": run.dense_again,
        "training iterations": cost and cost.training_iterations,
        "fine-tuning iterations": cost and cost.fine_tune_iterations,
        "search images": cost and cost.search_samples,
        "energy-model queries": cost and cost.energy_queries,
        "readings": cost and cost.measurements,
        "method (s)": cost and cost.method_s,
        "fine-tuning (s)": cost and cost.fine_tune_s,
        "overhead (ratio)": overhead([run]),
        "energy model": run.energy_fit.kind,
        "energy model's held-out error (%)": _percent(run.energy_fit.relative_error),
        "energy model's skill (ratio)": run.energy_fit.skill,
        "SHA-256 of the record": digest(run),
    }


def _percent(value: float | None) -> float | None:
    """Twelve digits: the noise of multiplying by 100 is none of the figure's."""
    return None if value is None else float(f"{100 * value:.12g}")


def latex_text(page: Page) -> str:
    """The main table and each budget's figures as booktabs tabulars in floats, with captions that name the source."""
    unit, notes, parts = page_unit(page), Notes(), []
    parts.append(_float(main_cells(page, unit, notes), caption(page), f"{page.name}-main"))
    for fraction, budget in page.budgets.items():
        told = f"Networks for {fraction} of dense = {unit.named(budget.amount)} per image. {caption(page)}"
        parts.append(_float(figures_cells(page, fraction, unit, notes), told, f"{page.name}-{fraction}"))
    below = [f"\\noindent {latex(_plain(line))}\\par" for line in notes.lines()]
    return "\n".join([f"% {page.name}; needs \\usepackage{{booktabs}}", *parts, *below]) + "\n"


def _float(cells: Cells, title: str, label: str) -> str:
    lines = ["\\begin{table}", "\\centering", f"\\caption{{{latex(title)}}}", f"\\label{{tab:{label}}}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * (len(cells.head) - 1)}}}", "\\toprule", _line(cells.head), "\\midrule"]
    lines += [*map(_line, cells.rows), "\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
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


FORMATS: dict[str, tuple[str, Callable[[Page], str]]] = {"csv": ("csv", csv_text), "latex": ("tex", latex_text)}

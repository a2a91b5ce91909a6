"""Turns pages into files: Markdown by jinja2, plots as SVG beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from bench.record.model import Record
from bench.report import claims, landing, near, provenance, ranks, tables
from bench.report.frame import checked
from bench.report.plots import draw
from bench.report.tables import budgets, caption, first, main_table, page_unit, protocol_name, seeds, workload
from bench.report.text import AMOUNTS, Notes, by_head, escape, fill, markdown
from shared import data
from shared.cache import atomic_write


def render(records: Iterable[Record], folder: Path) -> list[Path]:
    """Write the pages of `records` and their plots into `folder`, each file in one step; returns the pages' paths.

    Raises BadInput when records can't share a page (see bench.report.frame.checked); nothing is written then.
    """
    contents = {name: page_files(page) for name, page in checked(records).groupby("page")}
    for name, files in contents.items():
        write(name, files, folder)
    return [folder / f"{name}.md" for name in contents]


def write(name: str, files: dict[str, bytes], folder: Path) -> None:
    """Write a page's files into `folder` and remove plots that an earlier version of the page had."""
    for file, content in files.items():
        atomic_write(folder / file, content)
    for pattern in ("-accuracy.svg", "-differences.svg", "-widths.svg", "-trace-*.svg"):
        for old in folder.glob(name + pattern):
            if old.name not in files:
                old.unlink()


def summary_table(records: Iterable[Record]) -> str:
    """The main table of every page with its caption and notes, as text that is Markdown too."""
    parts = []
    for _, page in checked(records).groupby("page"):
        notes, unit = Notes(), page_unit(page)
        bodies = [markdown(main_table(part, unit, notes)) for part in tables.parts(page).values()]
        parts.append(
            "\n".join([caption(page), "", "\n\n".join(bodies), *(["", *notes.lines()] if notes.texts else [])])
        )
    return "\n\n".join(parts)


def page_files(page: pd.DataFrame, records_folder: str | None = None) -> dict[str, bytes]:
    """File name -> content of a page and its plots. records_folder: of the page's records, relative to the page."""
    name = page["page"].iloc[0]
    plots = draw(page, page_unit(page))
    files = {f"{name}-{plot}.svg": content for plot, content in plots.items()}
    return files | {f"{name}.md": page_text(page, plots, records_folder).encode()}


def page_text(page: pd.DataFrame, plots: Iterable[str] = (), records_folder: str | None = None) -> str:
    """The Markdown of a page. plots: names of its plots in bench.report.plots.draw. records_folder: see page_files."""
    return fill(
        "page.md.jinja",
        page=page,
        unit=page_unit(page),
        notes=Notes(),
        plots=list(plots),
        records_folder=records_folder,
        methods={run.method: run for run in page["record"]}.values(),
        test_images=data.test_images(first(page).dataset),
        tables=tables,
        landing=landing,
        near=near,
        ranking=ranks,
        claims=claims,
        provenance=provenance,
    )


def index_text(runs: pd.DataFrame, *, paper: str, learning_rates: Sequence[str], studies: Mapping[str, str]) -> str:
    """The index of committed pages, simulated and measured ones apart.

    paper: file of the page about the ECC paper. learning_rates: files of the pages about learning rates. studies: files
    of other studies' pages, each with its question.
    """
    groups = {
        f"{source.capitalize()} {AMOUNTS[unit]}": by_head([_index_row(page) for _, page in pages.groupby("page")])
        for (source, unit), pages in runs.groupby(["platform.source", "platform.unit"])
    }
    return fill("index.md.jinja", groups=groups, paper=paper, learning_rates=learning_rates, studies=studies)


def _index_row(page: pd.DataFrame) -> dict[str, str]:
    return {
        "Page": f"[{workload(page)}, {first(page).platform.name}]({page['page'].iloc[0]}.md)",
        "protocol": protocol_name(page),
        "methods": "; ".join(map(escape, page["title"].unique())),
        "budgets": ", ".join(budgets(page)),
        "seeds": str(len(seeds(page))),
        "misses": str((~page["ok"]).sum()),
    }

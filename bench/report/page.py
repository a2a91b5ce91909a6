"""Turns pages into files: Markdown by jinja2, plots as SVG beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from bench.record.model import Record
from bench.report import claims, landing, provenance, tables
from bench.report.frame import checked
from bench.report.plots import draw
from bench.report.tables import Notes, budgets, first, page_unit, seeds
from bench.report.text import escape, fill, markdown, table
from shared import data
from shared.cache import atomic_write

AMOUNTS = {"J": "joules", "s": "seconds"}  # what budgets and readings are in


def render(records: Iterable[Record], folder: Path) -> list[Path]:
    """Write the pages of `records` and their plots into `folder`, each file in one step; returns the pages' paths.

    Raises BadInput when records can't share a page (see bench.report.frame.checked); nothing is written then.
    """
    contents = {name: page_files(page) for name, page in checked(records).groupby("page")}
    for name, files in contents.items():
        write(name, files, folder)
    return [folder / f"{name}.md" for name in contents]


def write(name: str, files: dict[str, bytes], folder: Path) -> None:
    """Write a page's files and remove plots that an earlier version of it had."""
    for file, content in files.items():
        atomic_write(folder / file, content)
    for pattern in ("-accuracy.svg", "-widths.svg", "-trace-*.svg"):
        for old in folder.glob(name + pattern):
            if old.name not in files:
                old.unlink()


def summary_table(records: Iterable[Record]) -> str:
    """The main table of every page with its caption and notes, as text that is Markdown too."""
    parts = []
    for _, page in checked(records).groupby("page"):
        notes = Notes()
        body = markdown(tables.main_table(page, page_unit(page), notes))
        parts.append("\n".join([caption(page), "", body, *(["", *notes.lines()] if notes.texts else [])]))
    return "\n\n".join(parts)


def caption(page: pd.DataFrame) -> str:
    """One line that says what a table's numbers are: workload, platform and source, protocol, seeds."""
    record, platform, all_seeds = first(page), first(page).platform, ", ".join(map(str, seeds(page)))
    text = f"{record.network['name']} on {record.dataset}"
    text += f"; {platform.name}, {platform.source} {AMOUNTS[platform.unit]} per image"
    text += f"; protocol {record.protocol.name}, seed{'s' * (len(seeds(page)) > 1)} {all_seeds}"
    text += f"; {record.score} in % after fine-tuning"
    return text if page["protocol.ranks"].all() else text + ". It ranks nothing."


def page_files(page: pd.DataFrame, records_folder: str | None = None) -> dict[str, bytes]:
    """File name -> content of a page and its plots. `records_folder`: where its records lie, relative to it."""
    name = page["page"].iloc[0]
    plots = draw(page, page_unit(page))
    files = {f"{name}-{plot}.svg": content for plot, content in plots.items()}
    return files | {f"{name}.md": page_text(page, plots, records_folder).encode()}


def page_text(page: pd.DataFrame, plots: Iterable[str] = (), records_folder: str | None = None) -> str:
    """The Markdown of a page with these plots (their names in bench.report.plots.draw)."""
    unit, notes, record = page_unit(page), Notes(), first(page)
    bound = page[page["ok"] & page["budget.amount"].notna()]
    off = bound["measures.estimate"] / bound["measures.reading"] - 1
    titles = {run.method: run.title for run in page["record"]}
    main = tables.main_table(page, unit, notes)  # the first to number its notes
    sections = [
        {
            "fraction": fraction,
            "amount": f"{unit.named(amount)} per image",
            "figures": tables.figures_table(page, fraction, unit, notes),
            "cost": tables.cost_table(page, fraction, notes),
        }
        for fraction, amount in budgets(page).items()
    ]
    return fill(
        "page.md.jinja",
        page=page,
        name=page["page"].iloc[0],
        first=record,
        platform=record.platform,
        protocol=record.protocol,
        amounts=AMOUNTS[record.platform.unit],
        ranks=page["protocol.ranks"].all(),
        seeds=seeds(page),
        sampling=tables.sampling_error(page),
        test_images=data.test_images(record.dataset),
        landing=landing.section(page, unit),
        reading_head=tables.reading_head(page, unit),
        above=tables.ABOVE if (page["measures.reading"] / page["budget.amount"] - 1).max() > tables.TOLERANCE else None,
        estimates_off=(off.min(), off.max()) if len(off) else None,
        main_table=main,
        sections=sections,
        dense_table=tables.dense_table(page, unit, notes),
        dense_cost=tables.cost_table(page, "dense", notes) if page["budget.amount"].isna().any() else None,
        runs_table=tables.runs_table(page, unit, notes) if len(seeds(page)) > 1 else None,
        widths_table=tables.widths_table(page),
        plots=list(plots),
        traces=[(titles[method], method) for method in titles if f"trace-{method}" in plots],
        claims=claims,
        provenance=provenance,
        records_folder=records_folder,
        methods={run.method: run for run in page["record"]}.values(),
        notes=notes.lines(),
    )


def index_text(runs: pd.DataFrame, *, paper: str, learning_rates: Sequence[str], energy_models: str | None) -> str:
    """The index of committed pages, simulated and measured ones apart.

    paper: name of the page about the ECC paper. learning_rates: names of the pages of grids. energy_models: name of the
    study's page, where there is one.
    """
    groups = []
    for source, unit in product(("measured", "simulated"), AMOUNTS):
        rows = []
        for name, page in runs[(runs["platform.source"] == source) & (runs["platform.unit"] == unit)].groupby("page"):
            record, ranks = first(page), page["protocol.ranks"].all()
            rows.append(
                [
                    f"[{record.network['name']} on {record.dataset}, {record.platform.name}]({name}.md)",
                    record.protocol.name + ("" if ranks else " (ranks nothing)"),
                    ", ".join(map(escape, page["title"].unique())),
                    ", ".join(budgets(page)),
                    str(len(seeds(page))),
                    str((~page["ok"]).sum()),
                ]
            )
        if rows:
            head = ["Page", "protocol", "methods", "budgets", "seeds", "misses"]
            groups.append((f"{source.capitalize()} {AMOUNTS[unit]}", table(head, rows, left=4)))
    others = {"learning_rates": learning_rates, "energy_models": energy_models, "paper": paper}
    return fill("index.md.jinja", groups=groups, **others)

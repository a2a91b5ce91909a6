"""Turns pages into files: Markdown by jinja2, plots as SVG beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from bench.record import Record
from bench.report import hardware, tables
from bench.report.cells import (
    ABOVE,
    TEST_IMAGES,
    Notes,
    dense_reading,
    estimates_off,
    has_reading_above,
    page_unit,
    reading_head,
    sampling_error,
)
from bench.report.collect import Page, pages
from bench.report.provenance import commands, facts, files_table, notes_lines
from bench.report.published import claims
from bench.report.series import accuracy_data, trace_data, widths_data
from bench.report.text import count, escape, percent, signed_percent, table
from shared.cache import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment


def render(records: Iterable[Record], folder: Path) -> list[Path]:
    """Write the pages of `records` and their plots into `folder`, each file in one step; returns the pages' paths.

    Raises BadInput when records can't share a page (see bench.report.collect.pages); nothing is written then.
    """
    made = pages(records)
    contents = [page_files(page) for page in made]
    for page, files in zip(made, contents, strict=True):
        write(page, files, folder)
    return [folder / f"{page.name}.md" for page in made]


def write(page: Page, files: dict[str, bytes], folder: Path) -> None:
    """Write a page's files and remove plots that an earlier version of it had."""
    for name, content in files.items():
        atomic_write(folder / name, content)
    for pattern in ("-accuracy.svg", "-widths.svg", "-trace-*.svg"):
        for old in folder.glob(page.name + pattern):
            if old.name not in files:
                old.unlink()


def summary_table(records: Iterable[Record]) -> str:
    """The main table of every page with its caption and notes, as text that is Markdown too."""
    parts = []
    for page in pages(records):
        notes = Notes()
        body = tables.main_table(page, page_unit(page), notes)
        parts.append("\n".join([caption(page), "", body, *(["", *notes.lines()] if notes.texts else [])]))
    return "\n\n".join(parts)


def caption(page: Page) -> str:
    """One line that says what a table's numbers are: workload, platform and source, protocol, seeds."""
    first = page.first
    seeds = f"seed{'s' * (len(page.seeds) > 1)} {', '.join(map(str, page.seeds))}"
    platform = f"{first.platform.name}, {first.platform.source} {page.amounts} per image"
    text = f"{first.network['name']} on {first.dataset}; {platform}"
    text += f"; protocol {first.protocol['name']}, {seeds}; {first.score} in % after fine-tuning"
    return text if page.ranks else text + ". It ranks nothing."


def page_files(page: Page, records_folder: str | None = None) -> dict[str, bytes]:
    """File name -> content of a page and its plots. `records_folder`: where its records lie, relative to it."""
    from bench.report.figures import draw

    unit, files = page_unit(page), {}
    for kind, data in (("accuracy", accuracy_data(page, unit)), ("widths", widths_data(page))):
        if data is not None:
            files[f"{page.name}-{kind}.svg"] = draw(data)
    traces = []
    for method in page.methods:
        if (data := trace_data(page, method, unit)) is not None:
            name = f"{page.name}-trace-{method}.svg"
            files[name] = draw(data)
            traces.append((page.title(method), name))
    files[f"{page.name}.md"] = page_text(page, set(files), traces, records_folder).encode()
    return files


def page_text(page: Page, plots: set[str], traces: Sequence[tuple[str, str]], records_folder: str | None) -> str:
    """The Markdown of a page."""
    unit, notes, first, several = page_unit(page), Notes(), page.first, len(page.seeds) > 1
    main = tables.main_table(page, unit, notes)
    sections = [
        {
            "fraction": fraction,
            "amount": f"{unit.named(budget.amount)} per image",
            "figures": tables.figures_table(page, fraction, unit, notes),
            "cost": tables.cost_table(page, fraction, notes),
        }
        for fraction, budget in page.budgets.items()
    ]
    dense_table = tables.dense_table(page, unit, notes)
    dense_cost = tables.cost_table(page, None, notes) if page.dense_runs else None
    text = (
        environment()
        .get_template("page.md.jinja")
        .render(
            first=first,
            platform=first.platform,
            amounts=page.amounts,
            score=first.score,
            readings=hardware.section(page, unit),
            repaired=sum(record.repair is not None for record in page.records),
            protocol=first.protocol,
            fit=first.energy_fit,
            estimates_off=estimates_off(page),
            simulated=page.simulated,
            ranks=page.ranks,
            seeds=page.seeds,
            counts=_counts(first),
            sampling=_sampling(page),
            spread=", mean ± sample standard deviation over the seeds" if several else "",
            main_table=main,
            bars=_bars(page),
            reading_head=reading_head(page, unit),
            above=has_reading_above(page),
            above_mark=ABOVE,
            sections=sections,
            mean_of_seeds=" Seconds are means over the seeds." if several else "",
            dense_table=dense_table,
            dense_cost=dense_cost,
            runs_table=tables.runs_table(page, unit, notes) if several else None,
            page_records=len(page.records),
            accuracy_plot=_present(f"{page.name}-accuracy.svg", plots),
            widths_plot=_present(f"{page.name}-widths.svg", plots),
            widths_spread=": means over the seeds, shaded from the least to the largest" if several else "",
            widths_table=tables.widths_table(page),
            traces=traces,
            claims=claims(page, dense_reading(page)),
            methods=_methods(page),
            run_notes=notes_lines(page),
            commands=commands(page),
            facts=facts(page),
            files_table=files_table(page, records_folder),
            notes=notes.lines(),
        )
    )
    return tidy(text)


def index_text(made: Sequence[Page], *, paper: str, learning_rates: Sequence[str], energy_models: str | None) -> str:
    """The index of committed pages, simulated and measured ones apart.

    paper: name of the page about the ECC paper. learning_rates: names of the pages of grids. energy_models: name of the
    study's page, where there is one.
    """
    groups = []
    for source, amounts in product(("measured", "simulated"), ("joules", "seconds")):
        rows = [
            [
                f"[{page.first.network['name']} on {page.first.dataset}, {page.first.platform.name}]({page.name}.md)",
                str(page.first.protocol["name"]) + ("" if page.ranks else " (ranks nothing)"),
                ", ".join(dict.fromkeys(escape(record.title) for record in page.records)),
                ", ".join(page.budgets),
                str(len(page.seeds)),
                str(sum(record.status == "miss" for record in page.records)),
            ]
            for page in made
            if (page.first.platform.source, page.amounts) == (source, amounts)
        ]
        if rows:
            groups.append(
                (
                    f"{source.capitalize()} {amounts}",
                    table(["Page", "protocol", "methods", "budgets", "seeds", "misses"], rows, left=4),
                )
            )
    others = {"learning_rates": learning_rates, "energy_models": energy_models, "paper": paper}
    return tidy(environment().get_template("index.md.jinja").render(groups=groups, **others))


def tidy(text: str) -> str:
    """At most one empty line in a row, one newline at the end."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def environment() -> Environment:
    """The templates that lie in this package."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("bench.report", "."),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, escaped cell by cell
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"escape_md": escape, "count": count, "percent": percent, "signed": signed_percent}
    return made


def _present(name: str, plots: set[str]) -> str | None:
    return name if name in plots else None


def _counts(record: Record) -> str:
    """The numbers that make a protocol, in words."""
    get = record.protocol.get
    told = f"{count(get('iterations'))} training and {count(get('fine_tune_iterations'))} fine-tuning iterations "
    told += f"of batch {get('batch_size')} for every method, learning rate {get('learning_rate')}"
    return f"{told}, {count(get('search_images'))} search images per decision"


def _sampling(page: Page) -> str:
    errors = sampling_error(page)
    if errors is None:
        return ""
    low, high = (f"{100 * error:.2f}" for error in errors)
    points = low if low == high else f"{low} to {high}"
    images = count(TEST_IMAGES[page.first.dataset])
    told = f"A test accuracy on {images} images has a binomial standard error of {points} points here"
    return told + ("." if len(page.seeds) >= 3 else "; differences below about one point need several seeds.")


def _bars(page: Page) -> str:
    if len(page.seeds) > 1:
        return "Points are means over seeds, bars their standard deviations."
    return "Bars are the binomial standard error of the test accuracy." if page.first.dataset in TEST_IMAGES else ""


def _methods(page: Page) -> list[dict[str, str]]:
    """Name, title and paper of every method on the page, in table order."""
    found = {record.method: record for record in page.records}
    return [{"name": name, "title": record.title, "paper": record.paper} for name, record in found.items()]

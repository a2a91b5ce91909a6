"""The committed reports: pages, and under records/ the records behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from bench.record.model import Record, load
from bench.report import paper
from bench.report.frame import checked, file_name, frame, page_name
from bench.report.page import index_text, page_files, write
from bench.report.style import same_plot
from shared.cache import atomic_write
from shared.errors import BadInput

RECORDS, INDEX = "records", "README.md"
ENERGY_MODELS = "energy-models.md"  # page of `python -m bench fit`, which has data of its own


def publish(records_with_files: Sequence[tuple[Record, Path]], reports_dir: Path) -> list[Path]:
    """Copy record files to records/<page>/<method>-<budget>-<seed>.json below `reports_dir`, render; returns the pages.

    A page is made of exactly these records: others that lay there for it are removed. Raises BadInput, before anything
    is written, when records can't share a page.
    """
    pages = checked(record for record, _ in records_with_files)["page"].unique()
    copies = {
        reports_dir / RECORDS / page_name(record) / file_name(record): file.read_bytes()
        for record, file in records_with_files
    }
    for path, content in copies.items():
        atomic_write(path, content)
    for page in pages:
        for old in (reports_dir / RECORDS / page).glob("*.json"):
            if old not in copies:
                old.unlink()
    regenerate(reports_dir)
    return [reports_dir / f"{page}.md" for page in pages]


def regenerate(reports_dir: Path) -> list[Path]:
    """Write every page, plot, the paper's page and the index anew from the committed records; returns the pages' paths.

    The paper's page is none of the returned.
    """
    runs = committed(reports_dir)
    for name, page in runs.groupby("page"):
        write(name, page_files(page, f"{RECORDS}/{name}"), reports_dir)
    for name, content in _overviews(runs, reports_dir).items():
        atomic_write(reports_dir / name, content)
    return [reports_dir / f"{name}.md" for name in runs["page"].unique()]


def committed(reports_dir: Path) -> pd.DataFrame:
    """The frame of the committed records. Raises BadInput for a damaged or misplaced one."""
    records = []
    for path in sorted((reports_dir / RECORDS).glob("*/*.json")):
        record = load(path)
        place = f"{page_name(record)}/{file_name(record)}"
        if place != f"{path.parent.name}/{path.name}":
            raise BadInput(f"another record in {path}", f"that of {place}", "moving it there")
        records.append(record)
    return checked(records) if records else frame([])


def _overviews(runs: pd.DataFrame, reports_dir: Path) -> dict[str, bytes]:
    """File name -> content of what is made of all pages at once."""
    grids = sorted(path.name for path in reports_dir.glob("learning-rate-*.md"))  # pages of `python -m bench tune`
    study = ENERGY_MODELS if (reports_dir / ENERGY_MODELS).is_file() else None
    index = index_text(runs, paper=paper.NAME, learning_rates=grids, energy_models=study)
    return {paper.NAME: paper.page_text(runs, reports_dir).encode(), INDEX: index.encode()}


def check(reports_dir: Path) -> list[str]:
    """How the committed pages differ from what their records make: one line per file, empty when they agree.

    Markdown is compared byte by byte. So are plots drawn by this very version of matplotlib; of others the data they
    carry is compared, since versions differ in their paths. Damaged records and pages or plots without records are
    named too.
    """
    try:
        runs = committed(reports_dir)
        expected = _overviews(runs, reports_dir)
    except BadInput as error:
        return [str(error)]
    for name, page in runs.groupby("page"):
        expected |= page_files(page, f"{RECORDS}/{name}")
    problems = []
    for name, content in sorted(expected.items()):
        path = reports_dir / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif name.endswith(".svg"):
            if not same_plot(path.read_bytes(), content):
                problems.append(f"{name}: not the plot of its records")
        elif path.read_bytes() != content:
            problems.append(f"{name}: {_first_difference(path.read_bytes(), content)}")
    return problems + [f"{name}: no records behind it" for name in _strays(reports_dir, expected)]


def _first_difference(committed_bytes: bytes, fresh: bytes) -> str:
    old_lines, new_lines = committed_bytes.decode(errors="replace").splitlines(), fresh.decode().splitlines()
    for number, (old, new) in enumerate(zip_longest(old_lines, new_lines, fillvalue="nothing"), start=1):
        if old != new:
            return f"line {number} is {_short(old)}, its records make {_short(new)}"
    return "differs from its records in line ends"


def _short(line: str, longest: int = 100) -> str:
    return repr(line if len(line) <= longest else line[: longest - 1] + "…")


def _strays(reports_dir: Path, expected: Iterable[str]) -> list[str]:
    """Files named like a page or its plot that no record asks for."""
    names = {path.name for pattern in ("*.md", "*.svg") for path in reports_dir.glob(pattern)}
    return sorted(name for name in names - set(expected) if "-simulated-" in name or "-measured-" in name)

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
STUDIES = {  # pages that are not made of records, and what they answer
    "energy-models.md": "What the energy models are worth, beside what the ECC paper says of them",
    "eyeriss.md": "Where joules go on the chip Eyeriss, beside what slides on energy-aware pruning say",
    "early-landing.md": "What landing before fine-tuning is worth",
    "networks.md": "What becomes of torchvision's networks, which the suite was not written for",
    "importances.md": "How the importance of `ecc-invariant` was chosen",
    "netadapt-adam.md": "What NetAdapt gains by one Adam for all candidates",
}


def publish(records_with_files: Sequence[tuple[Record, Path]], reports_dir: Path, *, add: bool = False) -> list[Path]:
    """Copy record files to records/<page>/<method>-<budget>-<seed>.json below `reports_dir` and regenerate its pages.

    Returns the paths of these records' pages. Such a page is made of exactly these records: its other committed records
    are removed; with `add` they stay, but for those of the same runs. Raises BadInput, before anything is written, when
    records can't share a page.
    """
    copies = {
        reports_dir / RECORDS / page_name(record) / file_name(record): file.read_bytes()
        for record, file in records_with_files
    }
    others = [
        load(old)
        for folder in {path.parent for path in copies}
        if add
        for old in sorted(folder.glob("*.json"))
        if old not in copies
    ]
    pages = checked([*(record for record, _ in records_with_files), *others])["page"].unique()
    for path, content in copies.items():
        atomic_write(path, content)
    for page in pages:
        for old in (reports_dir / RECORDS / page).glob("*.json"):
            if old not in copies and not add:
                old.unlink()
    regenerate(reports_dir)
    return [reports_dir / f"{page}.md" for page in pages]


def regenerate(reports_dir: Path) -> list[Path]:
    """Write all pages and plots, the paper's page and the index anew from the committed records.

    Returns the paths of the pages of runs, without the paper's page and the index.
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
    """File name -> content of the pages about all runs: the paper's page and the index."""
    grids = sorted(path.name for path in reports_dir.glob("learning-rate-*.md"))  # pages of `python -m bench tune`
    studies = {name: question for name, question in STUDIES.items() if (reports_dir / name).is_file()}
    index = index_text(runs, paper=paper.NAME, learning_rates=grids, studies=studies)
    return {paper.NAME: paper.page_text(runs, reports_dir).encode(), INDEX: index.encode()}


def check(reports_dir: Path) -> list[str]:
    """A line per committed file that differs from what its records make; empty when all files agree.

    Markdown is compared byte by byte, and so are plots of the installed version of matplotlib. A plot of another
    version is compared by the data in it, since versions draw other paths. Damaged records get a line, and so do pages
    and plots without records.
    """
    try:
        runs = committed(reports_dir)
        expected = _overviews(runs, reports_dir)
    except BadInput as error:
        return [str(error)]
    for name, page in runs.groupby("page"):
        expected |= page_files(page, f"{RECORDS}/{name}")
    differences = {name: _difference(reports_dir / name, content) for name, content in sorted(expected.items())}
    problems = [f"{name}: {difference}" for name, difference in differences.items() if difference]
    return problems + [f"{name}: no records behind it" for name in _strays(reports_dir, expected)]


def _difference(path: Path, fresh: bytes) -> str | None:
    """How a committed file differs from what its records make; None where it does not."""
    if not path.is_file():
        return "missing"
    content = path.read_bytes()
    if path.suffix == ".svg":
        return None if same_plot(content, fresh) else "not the plot of its records"
    if content == fresh:
        return None
    lines = zip_longest(content.decode(errors="replace").splitlines(), fresh.decode().splitlines(), fillvalue="nothing")
    for number, (old, new) in enumerate(lines, start=1):
        if old != new:
            return f"line {number} is {_short(old)}, its records make {_short(new)}"
    return "differs from its records in line ends"


def _short(line: str, longest: int = 100) -> str:
    return repr(line if len(line) <= longest else line[: longest - 1] + "…")


def _strays(reports_dir: Path, expected: Iterable[str]) -> list[str]:
    """Files with the name of a page or a plot that no record makes."""
    names = {path.name for pattern in ("*.md", "*.svg") for path in reports_dir.glob(pattern)}
    return sorted(name for name in names - set(expected) if "-simulated-" in name or "-measured-" in name)

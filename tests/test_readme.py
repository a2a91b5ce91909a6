"""The README shows a table that records back, and links to what exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_is_that_of_the_committed_report() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| ") and re.search(r"\| +\d\d\.\d\d \|", line)]
    (page,) = re.findall(r"\(reports/([^)]*-quick\.md)\)", README)[:1]
    committed = {re.sub(r"\s+", " ", line) for line in (ROOT / "reports" / page).read_text().splitlines()}
    assert len(rows) >= 5
    for row in rows:
        assert re.sub(r"\s+", " ", row) in committed, row


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target

"""The README shows a table that records back, and links to what exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| \n").split("|")]


def test_the_table_is_the_ranking_of_the_committed_page() -> None:
    (page,) = re.findall(r"\(reports/([^)]*-standard\.md)\)", README)[:1]
    committed = (ROOT / "reports" / page).read_text()
    ranking = committed[committed.index("| Method ") :].split("\n\n")[0].splitlines()[2:]
    expected = [[row[place] for place in (0, 1, 3, 4, 5, 6)] for row in map(cells, ranking)]
    shown = README[README.index("| method | rank |") :].split("\n\n")[0].splitlines()[2:]
    assert len(expected) >= 5 and [cells(line) for line in shown] == expected
    low, high, unit = re.findall(r"on test over ([\d.]+) mJ to ([\d.]+) (mJ) per image", committed)[0]
    assert f"{low} to {high} {unit}" in README


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target

"""The README shows code that runs and a table that records back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.networks import active_widths

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_method_keeps_the_rules(tiny_task: Callable[..., Any]) -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class " in block)
    scope: dict[str, Any] = {}
    exec(code, scope)
    task = tiny_task(0.5, iterations=8)
    outcome = scope["Halves"]().run(task)
    assert task.ledger.remaining == 0
    assert float(task.energy_model(task.structure.positions(active_widths(outcome.network)))) <= task.budget_joules


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

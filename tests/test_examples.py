"""The examples in docstrings do what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for room in ("bench", "methods", "shared")
    for file in sorted((ROOT / room).rglob("*.py"))
    if "        >>> " in file.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0 and outcome.failed == 0


def test_there_are_examples() -> None:
    assert {"shared.networks.units", "methods.netadapt.schedule"} <= set(MODULES)

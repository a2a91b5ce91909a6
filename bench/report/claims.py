"""What the ECC paper claims about a network on a data set and a platform."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any

import pandas as pd

from bench.report.tables import dense, first
from bench.report.text import ABSENT, Table, percent
from bench.setup.protocols import PUBLISHED

TITLES = {"ecc": "ECC", "netadapt": "NetAdapt", "amc": "AMC"}  # the methods that the paper compares


@cache
def published() -> dict[str, Any]:
    """The data file of claimed figures; its comments explain the entries."""
    return tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))


def entries(kind: str, network: str, dataset: str, platform: str) -> list[dict[str, Any]]:
    """The entries of a kind ("dense", "table", "statement") about a network on a data set and a platform."""
    return [
        entry
        for entry in published()[kind]
        if (entry["network"], entry["dataset"]) == (network, dataset)
        and platform in (entry.get("platforms") or entry.get("joules") or [entry.get("platform")])
    ]


def about(page: pd.DataFrame) -> list[list[dict[str, Any]]]:
    """The dense figures, the tables and the statements about a page's network, data set and platform.

    All three are empty for a page in seconds, since the paper's figures are in joules.
    """
    record = first(page)
    where = (str(record.network["name"]), record.dataset, record.platform.name)
    return [entries(kind, *where) if record.platform.unit == "J" else [] for kind in ("dense", "table", "statement")]


def dense_table(entry: dict[str, Any], page: pd.DataFrame) -> Table:
    """The dense network: claimed figures beside those of the page."""
    record, reading = first(page), dense(page)
    obtained = ABSENT if reading is None else f"{reading:.4f}"
    head = ["Dense network", "claimed (metered)", f"obtained ({record.platform.source})", "place in the paper"]
    return head, [
        [f"{entry['metric']}, %", percent(entry["accuracy"]), percent(record.dense_accuracy), entry["place"]],
        ["joules per image", f"{entry['joules'][record.platform.name]:.4f}", obtained, entry["place"]],
    ]


def budgets_table(entry: dict[str, Any]) -> Table:
    """The scores within budgets, as the paper prints them."""
    head = [f"Claimed {entry['metric']}, %", *(f"{joules:.4f} J" for joules in entry["budgets_joules"])]
    return head, [[title, *map(percent, entry[method])] for method, title in TITLES.items()]

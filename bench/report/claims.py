"""What the ECC paper claims for a page's very network, data set and platform; nothing where it says nothing."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import pandas as pd

from bench.report.tables import first
from bench.report.text import ABSENT, Table, percent

TITLES = {"ecc": "ECC", "netadapt": "NetAdapt", "amc": "AMC"}  # what the paper compares


class Claims(NamedTuple):
    """Claimed figures: `dense` beside what was obtained, the others as the paper prints them."""

    dense: Table | None
    budgets: Table | None
    budgets_place: str
    statements: list[str]


@cache
def published() -> dict[str, Any]:
    """The data file of claimed figures; its comments say what stands where."""
    text = files("bench.report").joinpath("published.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def entries(kind: str, network: str, dataset: str, platform: str) -> list[dict[str, Any]]:
    """Those of a kind ("dense", "table", "statement") about a network on a platform."""

    def platforms(entry: dict[str, Any]) -> Any:
        return entry.get("platforms") or entry.get("joules") or [entry.get("platform")]

    about = [entry for entry in published()[kind] if (entry["network"], entry["dataset"]) == (network, dataset)]
    return [entry for entry in about if platform in platforms(entry)]


def claims(page: pd.DataFrame, dense_reading: float | None) -> Claims | None:
    """The paper's figures for this network, data set and platform, or None. Claimed and obtained share no column."""
    record = first(page)
    where = (str(record.network["name"]), record.dataset, record.platform.name)
    dense, budgets, said = (entries(kind, *where) for kind in ("dense", "table", "statement"))
    if record.platform.unit != "J" or not (dense or budgets or said):
        return None
    return Claims(
        dense=_dense(dense[0], page, dense_reading) if dense else None,
        budgets=_budgets(budgets[0]) if budgets else None,
        budgets_place=budgets[0]["place"] if budgets else "",
        statements=[f"{entry['text']} ({entry['place']})" for entry in said],
    )


def _dense(entry: dict[str, Any], page: pd.DataFrame, reading: float | None) -> Table:
    record, place = first(page), entry["place"]
    obtained = ABSENT if reading is None else f"{reading:.4f}"
    return ["Dense network", "claimed (metered)", f"obtained ({record.platform.source})", "place in the paper"], [
        [f"{entry['metric']}, %", percent(entry["accuracy"]), percent(record.dense_accuracy), place],
        ["joules per image", f"{entry['joules'][record.platform.name]:.4f}", obtained, place],
    ]


def _budgets(entry: dict[str, Any]) -> Table:
    head = [f"Claimed {entry['metric']}, %", *(f"{joules:.4f} J" for joules in entry["budgets_joules"])]
    return head, [[title, *map(percent, entry[method])] for method, title in TITLES.items()]

"""What the ECC paper claims for a page's very network, data set and platform; nothing where it says nothing."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bench.report.collect import Page
from bench.report.text import ABSENT, percent, table

TITLES = {"ecc": "ECC", "netadapt": "NetAdapt", "amc": "AMC"}  # what the paper compares


@dataclass(frozen=True)
class Claims:
    """Markdown of claimed figures: `dense` beside what was obtained, the others as the paper prints them."""

    dense: str | None
    budgets: str | None
    budgets_place: str
    statements: tuple[str, ...]


@cache
def published() -> dict[str, Any]:
    """The data file of claimed figures; its comments say what stands where."""
    text = files("bench.report").joinpath("published.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def claims(page: Page, dense_reading: float | None) -> Claims | None:
    """The paper's figures for this network, data set and platform, or None. Claimed and obtained share no column."""
    if page.first.platform.unit != "J":
        return None
    platform = page.first.platform.name
    network, dataset = page.first.network["name"], page.first.dataset

    def matches(entry: dict[str, Any]) -> bool:
        there = entry.get("platforms") or entry.get("joules") or [entry.get("platform")]
        return entry["network"] == network and entry["dataset"] == dataset and platform in there

    per_network = {kind: published()[kind] for kind in ("dense", "table", "statement")}
    found = {kind: [entry for entry in entries if matches(entry)] for kind, entries in per_network.items()}
    if not any(found.values()):
        return None
    dense = next((_dense(entry, page, dense_reading) for entry in found["dense"]), None)
    claimed = next(iter(found["table"]), None)
    return Claims(
        dense=dense,
        budgets=None if claimed is None else _budgets(claimed),
        budgets_place="" if claimed is None else claimed["place"],
        statements=tuple(f"{entry['text']} ({entry['place']})" for entry in found["statement"]),
    )


def _dense(entry: dict[str, Any], page: Page, reading: float | None) -> str:
    platform = page.first.platform
    obtained = ABSENT if reading is None else f"{reading:.4f}"
    rows = [
        [f"{entry['metric']}, %", percent(entry["accuracy"]), percent(page.first.dense_accuracy), entry["place"]],
        ["joules per image", f"{entry['joules'][platform.name]:.4f}", obtained, entry["place"]],
    ]
    return table(["Dense network", "claimed (metered)", f"obtained ({platform.source})", "place in the paper"], rows)


def _budgets(entry: dict[str, Any]) -> str:
    head = [f"Claimed {entry['metric']}, %", *(f"{joules:.4f} J" for joules in entry["budgets_joules"])]
    return table(head, [[title, *map(percent, entry[method])] for method, title in TITLES.items()])

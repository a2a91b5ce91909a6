"""What a page says of readings on hardware: how they compare with budgets, before and after repair, and why."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from bench.report.tables import TOLERANCE, first, to_budget
from bench.report.text import ABSENT, Table, Unit, escape, fill, percent, signed_percent


def section(page: pd.DataFrame, unit: Unit) -> str | None:
    """The section in Markdown, without its heading.

    None where nothing was read: on simulated platforms, and where every run is a miss without a network.
    """
    runs = page[page["budget.amount"].notna() & page["measures.widths"].notna()]
    if first(page).platform.source == "simulated" or runs.empty:
        return None
    amount, reading, dense_again = (runs[name] for name in ("budget.amount", "measures.reading", "dense_again"))
    repaired, untouched = runs["repair.reading"].notna(), runs["repair.reading"].isna()
    bare = [(detail or {}).get("amount") for detail in _details(runs)]
    flags = Counter(flag for flags in runs["measures.flags"] for flag in set(flags))
    return fill(
        "hardware.md.jinja",
        amounts={"J": "joules", "s": "seconds"}[first(page).platform.unit],
        within=_within(_before(runs), amount),
        within_after=_within(reading, amount) if repaired.any() else None,
        estimates_before=_range((runs["repair.estimate"] / amount)[repaired]),
        readings_before=_range((runs["repair.reading"] / runs["repair.estimate"])[repaired]),
        untouched=int((untouched & runs["first_pass.reading"].notna()).sum()),
        between_passes=_range((reading / runs["first_pass.reading"])[untouched]),
        drift=_range(dense_again / runs["budget.dense_reading"]),
        within_bare=_within(pd.Series(bare, runs.index, dtype=float).fillna(reading), amount),
        flags=[(escape(flag), count) for flag, count in sorted(flags.items())],
        table=_table(runs, unit),
    )


def _details(runs: pd.DataFrame) -> list[dict[str, object] | None]:
    return [run.measures.detail for run in runs["record"]]


def _before(runs: pd.DataFrame) -> pd.Series:
    """The readings before anything was repaired."""
    return runs["first_pass.reading"].fillna(runs["repair.reading"]).fillna(runs["measures.reading"])


def _within(readings: pd.Series, amounts: pd.Series) -> str:
    return f"{(readings <= amounts * (1 + TOLERANCE)).sum()} of {len(readings)}"


def _range(ratios: pd.Series) -> str | None:
    """The least and the largest difference from 1 in percent, or the one that both are."""
    known = ratios.dropna() - 1
    return " to ".join(dict.fromkeys(map(signed_percent, (known.min(), known.max())))) if len(known) else None


def _off(ratio: float) -> str:
    return signed_percent(ratio - 1, 2).removesuffix(" %")


def _table(runs: pd.DataFrame, unit: Unit) -> Table:
    joules = first(runs).platform.unit == "J"
    head = ["Method", "budget", "seed", "Ê to budget, %", "reading to Ê, %", "reading to budget, %", "half width, %"]
    head += ["ended by"] + [f"idle subtracted, bare, {unit.symbol}"] * joules
    head += ["before repair to budget, %", "channels taken", "accuracy before repair, %"]
    rows = []
    for index, (label, before) in enumerate(zip(runs["budget"], _before(runs), strict=True)):
        record = runs["record"].iloc[index]
        measures, repair, amount = record.measures, record.repair, record.budget.amount
        low, high = measures.interval or (float("nan"), float("nan"))
        detail = measures.detail or {}
        row = [record.title, label, str(record.seed)]
        row += [_off(measures.estimate / amount), _off(measures.read / measures.estimate)]
        row += [to_budget(runs.iloc[index : index + 1]), percent((high - low) / 2 / measures.read)]
        row += [str(detail.get("ended", ABSENT))] + [unit(detail.get("idle_subtracted"))] * joules
        row += [_off(before / amount)]
        row += [ABSENT] * 2 if repair is None else [str(repair.removed_channels), percent(repair.accuracy_after)]
        rows.append(row)
    return head, rows

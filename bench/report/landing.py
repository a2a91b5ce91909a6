"""What a page says of landing, and of how the final readings compare with the budgets."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pandas as pd

from bench.report.tables import ABOVE, TOLERANCE, first
from bench.report.text import ABSENT, Table, Unit, escape, fill, mean_std, signed_percent, span


def section(page: pd.DataFrame, unit: Unit) -> str | None:
    """The section in Markdown, without its heading; None where no network has landed."""
    runs = page[page["ok"] & page["landing.removed_channels"].notna()]
    if runs.empty:
        return None
    runs = _with_shares(runs)
    hardware = bool(runs["reading.reference"].notna().any())
    flags = Counter(flag for flags in runs["measures.flags"] for flag in set(flags))
    return fill(
        "landing.md.jinja",
        amounts={"J": "joules", "s": "seconds"}[first(page).platform.unit],
        hardware=hardware,
        count=len(runs),
        landed=int((runs["landing.removed_channels"] > 0).sum()),
        within=int((runs["landed.high"] <= 1 + TOLERANCE).sum()),
        above=int((runs["reading.share"] > 1 + TOLERANCE).sum()),
        above_mark=ABOVE,
        between=_range(runs["reading.share"] / runs["landed.share"]),
        drift=_range(runs["reading.reference"] / runs["budget.dense_reading"]),
        within_bare=int((runs["bare.share"] <= 1 + TOLERANCE).sum()),
        score=first(page).score,
        flags=[(escape(flag), number) for flag, number in sorted(flags.items())],
        table=_table(runs, unit, hardware=hardware),
    )


def _with_shares(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with amounts as shares of their budgets.

    compressed.share, landed.share, reading.share: the readings before landing, after it, and in the end.
    landed.high: the upper end of the interval of the reading that landed the network.
    bare.share: the final reading without the correction for drift. reading.reference: the dense network's beside it.
    """
    records, amount = runs["record"], runs["budget.amount"]

    def each(value: object) -> pd.Series:
        return pd.Series([value(record) for record in records], runs.index, dtype=float)  # type: ignore[operator]

    bare = each(lambda record: (record.measures.detail or {}).get("amount"))
    return runs.assign(
        **{
            "compressed.share": each(lambda record: record.landing.before.amount) / amount,
            "compressed.estimate": runs["landing.estimate"] / amount,
            "landed.share": each(lambda record: record.landing.after.amount) / amount,
            "landed.high": each(lambda record: record.landing.after.interval[1]) / amount,
            "reading.share": runs["measures.reading"] / amount,
            "reading.half": each(lambda record: record.measures.interval[1] - record.measures.interval[0]) / 2,
            "reading.reference": runs["measures.reference"],
            "bare.share": bare.fillna(runs["measures.reading"]) / amount,
            "idle": each(lambda record: (record.measures.detail or {}).get("idle_subtracted")),
        }
    )


def _range(ratios: pd.Series) -> str | None:
    """The least and the largest difference from 1 in percent, or the one that both are."""
    differences = ratios.dropna() - 1
    ends = map(signed_percent, (differences.min(), differences.max()))
    return " to ".join(dict.fromkeys(ends)) if len(differences) else None


def _off(shares: pd.Series) -> str:
    """Mean difference from 1 in %, with its sign."""
    return signed_percent(shares.mean() - 1, 2).removesuffix(" %")


def _table(runs: pd.DataFrame, unit: Unit, *, hardware: bool) -> Table:
    """A row per method and budget: means over the seeds, shares of the budget in %."""
    head = ["Method", "budget", "Ê to budget, %", "reading to budget, %", "channels removed"]
    head += ["search before, %", "search after, %", "landed at, %"]
    head += ["final to budget, %", "half width, %", "ended by"] * hardware
    joules = hardware and first(runs).platform.unit == "J"
    head += [f"idle subtracted, bare, {unit.symbol}"] * joules
    percent, rows = partial(mean_std, form="{:.2f}"), []
    for (_, budget), group in runs.groupby(["method", "budget"], sort=False):
        row = [first(group).title, budget, _off(group["compressed.estimate"]), _off(group["compressed.share"])]
        row += [span(group["landing.removed_channels"].tolist())]
        row += [percent((100 * group[f"landing.search_accuracy_{when}"]).tolist()) for when in ("before", "after")]
        row += [_off(group["landed.share"])]
        if hardware:
            mark = f" {ABOVE}" if group["reading.share"].max() > 1 + TOLERANCE else ""
            ends = {(record.measures.detail or {}).get("ended", ABSENT) for record in group["record"]}
            half = 100 * group["reading.half"] / group["measures.reading"]
            row += [_off(group["reading.share"]) + mark, percent(half.tolist()), ", ".join(sorted(ends))]
        row += [unit(group["idle"].mean())] * joules
        rows.append(row)
    return head, rows

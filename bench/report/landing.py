"""The section of a page about landing, and about the final readings beside the budgets."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from bench.report.tables import ABOVE, TOLERANCE, above_mark, cut, first, off_budget
from bench.report.text import ABSENT, AMOUNTS, Table, Unit, by_head, escape, fill, mean_std, signed_percent, span


def section(page: pd.DataFrame, unit: Unit) -> str | None:
    """The section in Markdown, without its heading; None where no network has landed."""
    runs = cut(page)
    runs = runs[runs["landing.removed_channels"].notna()]
    if runs.empty:
        return None
    runs = _with_shares(runs)
    hardware = bool(runs["measures.reference"].notna().any())
    flags = Counter(flag for flags in runs["measures.flags"] for flag in set(flags))
    return fill(
        "landing.md.jinja",
        amounts=AMOUNTS[first(page).platform.unit],
        hardware=hardware,
        count=len(runs),
        landed=(runs["landing.removed_channels"] + runs["landing.removed_weights"].fillna(0) > 0).sum(),
        weights=(runs["granularity"] == "weights").any(),
        within=(runs["landed_high"] <= 1 + TOLERANCE).sum(),
        above=(runs["final"] > 1 + TOLERANCE).sum(),
        above_mark=ABOVE,
        between=_range(runs["final"] / runs["landed"]),
        drift=_range(runs["measures.reference"] / runs["budget.dense_reading"]),
        within_bare=(runs["bare"] <= 1 + TOLERANCE).sum(),
        score=first(page).score,
        flags=[(escape(flag), number) for flag, number in sorted(flags.items())],
        table=_table(runs, unit, hardware=hardware),
    )


def _with_shares(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with amounts as shares of their budgets, and with further figures of the final reading.

    estimated, compressed    Ê and the reading of the network before landing
    landed, landed_high      the reading that landed the network, and the upper end of its interval
    final, bare              the final reading with and without the correction for drift
    half_width               half the interval of the final reading, as a share of that reading
    idle_subtracted          the bare final reading without the device's idle power, J per image
    ended                    what ended the final reading
    """
    before, after = runs["landing.before"].str, runs["landing.after"].str
    detail = runs["measures.detail"].astype(object).str  # pandas has no .str where simulated runs have none
    amount, final, interval = runs["budget.amount"], runs["measures.reading"], runs["measures.interval"].str
    return runs.assign(
        estimated=runs["landing.estimate"] / amount,
        compressed=before["amount"] / amount,
        landed=after["amount"] / amount,
        landed_high=after["interval"].str[1] / amount,
        final=final / amount,
        bare=detail["amount"].astype(float).fillna(final) / amount,
        half_width=(interval[1] - interval[0]) / 2 / final,
        idle_subtracted=detail["idle_subtracted"].astype(float),
        ended=detail["ended"].fillna(ABSENT),
    )


def _range(ratios: pd.Series) -> str | None:
    """The least and the largest difference from 1 in percent; one figure where both read the same, None without any."""
    differences = ratios.dropna() - 1
    ends = map(signed_percent, (differences.min(), differences.max()))
    return " to ".join(dict.fromkeys(ends)) if len(differences) else None


def _table(runs: pd.DataFrame, unit: Unit, *, hardware: bool) -> Table:
    """A row per method and budget: means over the seeds, shares of the budget in %."""
    rows = []
    for (_, budget), group in runs.groupby(["method", "budget"], sort=False):
        row = {
            "Method": first(group).title,
            "budget": budget,
            "Ê to budget, %": off_budget(group["estimated"]),
            "reading to budget, %": off_budget(group["compressed"]),
            "channels removed": span(group["landing.removed_channels"]),
            "search before, %": mean_std(100 * group["landing.search_accuracy_before"]),
            "search after, %": mean_std(100 * group["landing.search_accuracy_after"]),
            "landed at, %": off_budget(group["landed"]),
        }
        if (runs["landing.removed_weights"] > 0).any():
            row["weights removed"] = span(group["landing.removed_weights"])
        if hardware:
            row["final to budget, %"] = f"{off_budget(group['final'])} {above_mark(group['final'])}".strip()
            row["half width, %"] = mean_std(100 * group["half_width"])
            row["ended by"] = ", ".join(sorted(set(group["ended"])))
        if hardware and first(runs).platform.unit == "J":
            row[f"idle subtracted, bare, {unit.symbol}"] = unit(group["idle_subtracted"].mean())
        rows.append(row)
    return by_head(rows)

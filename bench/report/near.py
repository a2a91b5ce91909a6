"""The section of a page about the energy models near its budgets."""

from __future__ import annotations

import pandas as pd

from bench.report.tables import budgets, cut, first
from bench.report.text import ABSENT, Table, by_head, count, fill, percent, signed_percent
from shared.energy.terms import CORRECTED


def section(page: pd.DataFrame) -> str | None:
    """The section in Markdown, without its heading; None for runs from before there were local profiles."""
    bound = page[page["local_fit.samples"].notna()]
    if bound.empty:
        return None
    returned = _returned(page)
    return fill(
        "near.md.jinja",
        kind=first(page).energy_fit.kind,
        counted=first(page).platform.source == "counted",
        corrected=first(page).energy_fit.kind in CORRECTED,
        judged=_judged(bound),
        returned=returned if returned[1] else None,
    )


def _judged(bound: pd.DataFrame) -> Table:
    """A row per budget: the errors of its model on networks near it, in %."""
    rows = []
    for budget in budgets(bound):
        fit = first(bound[bound["budget"] == budget]).local_fit
        assert fit is not None
        low, high = map(_signed, fit.bias_interval)
        rows.append(
            {
                "Budget": budget,
                "factor": f"{fit.factor:.4f}",
                "mean error, %": percent(fit.error),
                "bias, %": _signed(fit.bias),
                "95 % interval": f"{low} to {high}",
                "most optimistic, %": _signed(fit.most_optimistic),
                "networks": count(fit.samples),
            }
        )
    return by_head(rows)


def _returned(page: pd.DataFrame) -> Table:
    """A row per method, a column per budget: mean error of Ê in % on the networks that the method returned."""
    runs = cut(page)
    runs = runs[runs["landing.estimate"].notna()]
    readings = runs["landing.before"].astype(object).str["amount"].astype(float)  # no .str where no run has landed
    errors = runs["landing.estimate"] / readings - 1
    columns = list(budgets(page))
    rows = []
    for _, group in runs.groupby("method", sort=False):
        own = errors[group.index]
        means = [own[group["budget"] == budget] for budget in columns]
        rows.append([first(group).title, *(_signed(cell.mean()) if len(cell) else ABSENT for cell in means)])
    return ["Method", *columns], rows


def _signed(share: float) -> str:
    return signed_percent(share, 2).removesuffix(" %")

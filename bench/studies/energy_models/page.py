"""The page of the energy-model study, made from its figures alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from bench.report.text import ABSENT, Table, count, fill, percent, signed_percent
from bench.studies.energy_models.claims import AROUND, CHAIN, NOTICEABLE, claims_table, unsettled, verdicts, ways
from bench.studies.energy_models.frame import PLACE, decay_title, frame, of_study
from bench.studies.energy_models.plan import DEFAULT_DECAY, DEPTHS, Plan
from bench.studies.energy_models.plots import plots
from bench.studies.energy_models.stress import BAND

NAME = "energy-models"
_HEADS = ["Network", "platform", "terms"]


def page_files(data: dict[str, Any]) -> dict[str, bytes]:
    """File name -> content of the page and its plots."""
    drawn = plots(frame(data), Plan.of(data))
    return {f"{NAME}.md": page(data).encode()} | {f"{NAME}-{plot}.svg": content for plot, content in drawn.items()}


def page(data: dict[str, Any]) -> str:
    """The page's Markdown, from `data` alone. Raises KeyError where the study isn't complete."""
    plan, figures = Plan.of(data), frame(data)
    return fill(
        "energy-models.md.jinja",
        plan=plan,
        data=data,
        name=NAME,
        band=BAND,
        around=AROUND,
        noticeable=NOTICEABLE,
        decays=[decay_title(decay) for decay in plan.decays],
        default_decay=decay_title(DEFAULT_DECAY),
        verdicts=verdicts(figures),
        unsettled={platform: unsettled(figures, platform) for platform in plan.platforms},
        claims_table=claims_table(figures),
        fits_table=_fits_table(figures),
        adam_table=_adam_table(figures),
        depth_table=_depth_table(figures),
        samples_table=_samples_table(figures, plan),
        multipliers_table=_budget_table(figures, _spread("multipliers")),
        random_table=_budget_table(figures, _spread("random")),
        lookup_table=_lookup_table(figures),
        worst_table=_budget_table(figures, lambda part: signed_percent(part.get("worst.excess", float("nan")))),
        shares=_worst_shares(figures),
        extremes=_extremes(figures),
    )


def _rows(parts: pd.DataFrame, keys: list[str], columns: dict[str, Callable[[Any], str]]) -> Table:
    """A row per part: its `keys`, then a cell per column."""
    rows = [
        [*(str(part[key]) for key in keys), *(cell(part) for cell in columns.values())]
        for part in parts.to_dict("records")
    ]
    return [*_HEADS[: len(keys)], *columns], rows


def _fits_table(figures: pd.DataFrame) -> Table:
    columns: dict[str, Callable[[Any], str]] = {
        "unknowns": lambda fit: f"{fit['unknowns']:.0f}",
        "error, %": lambda fit: percent(fit["error"]),
        "median's error, %": lambda fit: percent(fit["median_error"]),
        "skill": lambda fit: f"{fit['error'] / fit['median_error']:.2f}",
        "dense, J": lambda fit: f"{fit['dense_joules']:.4f}",
        "Ê(dense) off": lambda fit: signed_percent(fit["dense_estimate"] / fit["dense_joules"] - 1),
        "all ones, % of dense": lambda fit: percent(fit["ones_joules"] / fit["dense_joules"], 1),
        "Ê(all ones) off": lambda fit: signed_percent(fit["ones_estimate"] / fit["ones_joules"] - 1),
    }
    return _rows(of_study(figures, "fit"), PLACE, columns)


def _lookup_table(figures: pd.DataFrame) -> Table:
    chain = of_study(figures, "fit", kind=CHAIN)[["network", "platform", "error"]]
    lookups = of_study(figures, "lookup").merge(chain, on=["network", "platform"], suffixes=("", "_of_chain"))
    columns: dict[str, Callable[[Any], str]] = {
        "readings": lambda table: count(table["readings"]),
        "error, %": lambda table: percent(table["error"]),
        "dense off": lambda table: signed_percent(table["dense_estimate"] / table["dense_joules"] - 1),
        "factor": lambda table: f"{table['factor']:.3f}",
        "error times factor, %": lambda table: percent(table["scaled_error"]),
        "chain, %": lambda table: percent(table["error_of_chain"]),
    }
    return _rows(lookups, PLACE[:2], columns)


def _adam_table(figures: pd.DataFrame) -> Table:
    errors = of_study(figures, "adam").set_index([*PLACE, "way"])["error"]
    columns: dict[str, Callable[[Any], str]] = {"least squares": lambda fit: percent(fit["error"])}

    def error(way: str) -> Callable[[Any], str]:
        return lambda fit: percent(errors.get((*(fit[key] for key in PLACE), way)))

    columns |= {way: error(way) for way in ways(figures)}
    return _rows(of_study(figures, "fit"), PLACE, columns)


def _depth_table(figures: pd.DataFrame) -> Table:
    median = of_study(figures, "fit").set_index(PLACE)["median_error"]
    rows = []
    for (*place, way), parts in of_study(figures, "depth").groupby([*PLACE, "way"], sort=False):
        errors = parts["error"].tolist()
        rows.append([*place, way, *map(percent, errors), f"{min(errors) / median[tuple(place)]:.2f}"])
    layers = ["no hidden layer", *map(str, DEPTHS[1:])]
    return [*_HEADS, "targets, weight decay", *layers, "skill of the best"], rows


def _samples_table(figures: pd.DataFrame, plan: Plan) -> Table:
    def error(size: int) -> Callable[[Any], str]:
        return lambda fit: percent(fit.get(f"sizes.{size}"))

    return _rows(of_study(figures, "fit"), PLACE, {f"{count(size)} rows": error(size) for size in plan.sizes})


def _budget_table(figures: pd.DataFrame, cell: Callable[[Any], str]) -> Table:
    parts = of_study(figures, "budget")
    by_place = parts.assign(cell=[cell(part) for part in parts.to_dict("records")]).groupby(PLACE, sort=False)
    rows = [[*place, *cells] for place, cells in by_place["cell"]]
    return [*_HEADS, *(f"budget {share:g}" for share in parts["fraction"].unique())], rows


def _spread(kind: str) -> Callable[[Any], str]:
    def cell(part: Any) -> str:
        figures = [part.get(f"{kind}.{name}", float("nan")) for name in ("mean", "least", "most", "over")]
        if pd.isna(figures[0]):
            return ABSENT
        mean, least, most = (signed_percent(figure).removesuffix(" %") for figure in figures[:3])
        return f"{mean} [{least}, {most}], {percent(figures[3], 0)}"

    return cell


def _extremes(figures: pd.DataFrame) -> dict[str, Any]:
    """How far the chain's estimates are off near any budget: the range over random networks, and the worst network.

    NaN where every budget is out of reach.
    """
    near = of_study(figures, "budget", kind=CHAIN).reindex(columns=["random.least", "random.most", "worst.excess"])
    return {"random": (near["random.least"].min(), near["random.most"].max()), "worst": near["worst.excess"].max()}


def _worst_shares(figures: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Kind of terms -> mean shares (%) of narrow and of wide units in the worst networks."""
    near = of_study(figures, "budget")
    means = near.reindex(columns=["kind", "worst.narrow", "worst.wide"]).groupby("kind", sort=False).mean()
    return {kind: (percent(narrow, 0), percent(wide, 0)) for kind, narrow, wide in means.itertuples()}

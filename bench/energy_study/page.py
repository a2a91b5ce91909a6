"""The page of the energy-model study, from its figures alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.energy_study.claims import AROUND, NOTICEABLE, Way, by_depth, claims_table, final, unsettled, verdicts
from bench.energy_study.plan import DEFAULT_DECAY, Part, Plan, readings
from bench.energy_study.plots import CHAIN, decay_title, plots, reading_title
from bench.report.render import environment, tidy
from bench.report.text import ABSENT, count, percent, signed_percent, table
from shared.energy.stress import BAND
from shared.energy.terms import KINDS

NAME = "energy-models"


def page_files(data: dict[str, Any]) -> dict[str, bytes]:
    """File name -> content of the page and its plots."""
    return {f"{NAME}.md": page(data).encode(), **plots(data, Plan.of(data), NAME)}


def page(data: dict[str, Any]) -> str:
    """The Markdown that `data` makes, and nothing else. Raises KeyError where the study isn't whole."""
    plan = Plan.of(data)
    ways = readings(plan, plan.networks[0][0], CHAIN)
    text = (
        environment()
        .get_template("energy-models.md.jinja")
        .render(
            plan=plan,
            data=data,
            name=NAME,
            band=BAND,
            around=AROUND,
            noticeable=NOTICEABLE,
            decays=[decay_title(decay) for decay in plan.decays],
            default_decay=decay_title(DEFAULT_DECAY),
            verdicts=verdicts(data, plan),
            unsettled={platform: unsettled(data, plan, platform) for platform in plan.platforms},
            claims_table=claims_table(data, plan, ways),
            fits_table=_fits_table(data, plan),
            adam_table=_adam_table(data, plan, ways),
            depth_table=_depth_table(data, plan),
            samples_table=_samples_table(data, plan),
            multipliers_table=_budget_table(data, plan, _spread("multipliers")),
            random_table=_budget_table(data, plan, _spread("random")),
            lookup_table=_lookup_table(data, plan),
            worst_table=_budget_table(data, plan, _worst),
            shares=_worst_shares(data, plan),
            extremes=_extremes(data, plan),
        )
    )
    return tidy(text)


def _grounds(plan: Plan) -> list[tuple[str, str, str]]:
    return [(name, platform, kind) for name, _ in plan.networks for platform in plan.platforms for kind in KINDS]


def _fits_table(data: dict[str, Any], plan: Plan) -> str:
    rows = []
    for place in _grounds(plan):
        fit = data["parts"][Part("fit", *place).name]
        rows.append(
            [
                *place,
                str(fit["unknowns"]),
                percent(fit["error"]),
                percent(fit["median_error"]),
                f"{fit['error'] / fit['median_error']:.2f}",
                f"{fit['dense_joules']:.4f}",
                signed_percent(fit["dense_estimate"] / fit["dense_joules"] - 1),
                percent(fit["ones_joules"] / fit["dense_joules"], 1),
                signed_percent(fit["ones_estimate"] / fit["ones_joules"] - 1),
            ]
        )
    head = ["Network", "platform", "terms", "unknowns", "error, %", "median's error, %", "skill", "dense, J"]
    return table([*head, "Ê(dense) off", "all ones, % of dense", "Ê(all ones) off"], rows, left=3)


def _lookup_table(data: dict[str, Any], plan: Plan) -> str:
    rows = []
    for network, platform in ((name, platform) for name, _ in plan.networks for platform in plan.platforms):
        found = data["parts"][Part("lookup", network, platform, "operations").name]
        chain = data["parts"][Part("fit", network, platform, KINDS[0]).name]
        rows.append(
            [
                network,
                platform,
                f"{found['readings']:,}",
                percent(found["error"]),
                signed_percent(found["dense_estimate"] / found["dense_joules"] - 1),
                f"{found['factor']:.3f}",
                percent(found["scaled_error"]),
                percent(chain["error"]),
            ]
        )
    head = ["Network", "platform", "readings", "error, %", "dense off", "factor", "error times factor, %", "chain, %"]
    return table(head, rows, left=2)


def _adam_table(data: dict[str, Any], plan: Plan, ways: list[Way]) -> str:
    rows = []
    for network, platform, kind in _grounds(plan):
        known = readings(plan, network, kind)
        errors = [
            percent(final(data, Part("adam", network, platform, kind, *way))) if way in known else ABSENT
            for way in ways
        ]
        squares = data["parts"][Part("fit", network, platform, kind).name]["error"]
        rows.append([network, platform, kind, percent(squares), *errors])
    head = ["Network", "platform", "terms", "least squares", *(reading_title(*way) for way in ways)]
    return table(head, rows, left=3)


def _depth_table(data: dict[str, Any], plan: Plan) -> str:
    rows = []
    for network, platform, kind in _grounds(plan):
        median = data["parts"][Part("fit", network, platform, kind).name]["median_error"]
        for way in readings(plan, network, kind):
            errors = by_depth(data, network, platform, kind, way)
            best = f"{min(errors) / median:.2f}"
            rows.append([network, platform, kind, reading_title(*way), *map(percent, errors), best])
    head = ["Network", "platform", "terms", "targets, weight decay", "no hidden layer", "1", "2", "3"]
    return table([*head, "skill of the best"], rows, left=4)


def _samples_table(data: dict[str, Any], plan: Plan) -> str:
    rows = [
        [*place, *(percent(data["parts"][Part("fit", *place).name]["sizes"].get(str(size))) for size in plan.sizes)]
        for place in _grounds(plan)
    ]
    return table(["Network", "platform", "terms", *(f"{count(size)} rows" for size in plan.sizes)], rows, left=3)


def _budget_table(data: dict[str, Any], plan: Plan, cell: Callable[[dict[str, Any]], str]) -> str:
    rows = [
        [*place, *(cell(data["parts"][Part("budget", *place, fraction=share).name]) for share in plan.budgets)]
        for place in _grounds(plan)
    ]
    return table(["Network", "platform", "terms", *(f"budget {share:g}" for share in plan.budgets)], rows, left=3)


def _spread(kind: str) -> Callable[[dict[str, Any]], str]:
    def cell(found: dict[str, Any]) -> str:
        if kind not in found:
            return ABSENT
        mean, least, most = (signed_percent(found[kind][name]).removesuffix(" %") for name in ("mean", "least", "most"))
        return f"{mean} [{least}, {most}], {percent(found[kind]['over'], 0)}"

    return cell


def _worst(found: dict[str, Any]) -> str:
    return signed_percent(found["worst"]["excess"]) if "worst" in found else ABSENT


def _extremes(data: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """How far the chain's estimates are off near any budget: random networks' range, and the worst one found."""
    places = [Part("budget", *place, fraction=share) for place in _grounds(plan) for share in plan.budgets]
    found = [data["parts"][place.name] for place in places if place.kind == CHAIN]
    random = [part["random"] for part in found if "random" in part]
    nothing = [float("nan")]  # where every budget is out of reach
    return {
        "random": (min([r["least"] for r in random] or nothing), max([r["most"] for r in random] or nothing)),
        "worst": max([part["worst"]["excess"] for part in found if "worst" in part] or nothing),
    }


def _worst_shares(data: dict[str, Any], plan: Plan) -> dict[str, tuple[str, str]]:
    """Kind of terms -> mean shares (%) of narrow and of wide units in the worst networks found."""
    found = {}
    for kind in KINDS:
        places = [(network, platform, kind) for network, platform, other in _grounds(plan) if other == kind]
        all_parts = (data["parts"][Part("budget", *p, fraction=share).name] for p in places for share in plan.budgets)
        worst = [part["worst"] for part in all_parts if "worst" in part]
        means = [sum(each[side] for each in worst) / len(worst) if worst else None for side in ("narrow", "wide")]
        found[kind] = (percent(means[0], 0), percent(means[1], 0))
    return found

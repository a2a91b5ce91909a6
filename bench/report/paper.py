"""The page `paper.md`: the ECC paper's evaluation item by item, claimed beside obtained, or the command for it.

Yang, Zhu, Liu, CVPR 2019. Claims come from published.toml, obtained figures from committed records and from the data of
the study of energy models; nothing else enters the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report import claims, experiments
from bench.report.claims import TITLES, entries, published
from bench.report.experiments import NOT_RUN, Experiment, name_of
from bench.report.plots import unit_widths
from bench.report.tables import Notes, accuracy, budgets, dense, first
from bench.report.text import ABSENT, Table, escape, fill, percent
from methods import registry
from shared import networks
from shared.errors import BadInput

NAME = "paper.md"
STUDY = "records/energy-models.json"
PAPERS_METHODS = {"eap": "EAP", "amc": "AMC", "netadapt": "NetAdapt", "lcp": "LcP", "ecc": "ECC"}
_PLATFORMS = ("1080ti", "tx2")
_WAYS = {"raw/0.001": "joules, 0.001", "raw/0.000125": "joules, 1/8000", "scaled/0.001": "mean 1, 0.001"}


def page_text(runs: pd.DataFrame, reports_dir: Path) -> str:
    """The page that the committed `runs` and the study's data in `reports_dir` make.

    Raises BadInput when that data is no JSON of a study.
    """
    parts, items = _study(reports_dir / STUDY), experiments.experiments(runs)
    properties, differing = properties_table()
    in_joules = runs[runs["platform.unit"] == "J"]
    return fill(
        "paper.md.jinja",
        claims=claims,
        experiments=experiments,
        items=items,
        properties=properties,
        differing=differing,
        dense=dense_table(items, parts),
        errors=errors_table(parts),
        hidden_layers=hidden_layers_table(parts),
        studied=bool(parts),
        published_weights=networks.published_weights,
        widths=widths_table(in_joules),
        in_joules=in_joules,
        fine_tuning_table=fine_tuning_table,
    )


def _study(path: Path) -> dict[str, Any]:
    """The parts of the data of `python -m bench fit`, none where it was never run."""
    if not path.is_file():
        return {}
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
        return dict(study["parts"].items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"the figures of a study in {path}", str(error), "python -m bench fit") from None


def properties_table() -> tuple[Table, list[str]]:
    """Table 1 with the properties that the built-in methods declare, and where the two differ (a line each)."""
    questions = published()["property"]
    methods = {name: method for name in registry.BUILT_IN if (method := registry.get(name)).properties is not None}
    titles = PAPERS_METHODS | {name: method.title for name, method in methods.items() if name not in PAPERS_METHODS}
    rows, differing = [], []
    for name, title in titles.items():
        claims = ["yes" if name in question["methods"] else "no" for question in questions]
        own = ["yes" if getattr(methods[name].properties, q["name"]) else "no" for q in questions if name in methods]
        empty = [ABSENT] * (len(questions) - 1)
        if name not in PAPERS_METHODS:
            claims = ["not in Table 1", *empty]
        elif own:
            both = zip(questions, claims, own, strict=True)
            differing += [f"{title}, {question['question']}" for question, one, other in both if one != other]
        rows.append([title, *claims, *(own or ["not in this suite", *empty])])
    sides = [f"{side}: {question['question']}" for side in ("claimed", "declared") for question in questions]
    return (["Method", *sides], rows), differing


def dense_table(items: Sequence[Experiment], parts: dict[str, Any]) -> Table:
    """Score and joules of the dense networks; simulated joules are from the study where no run has them."""
    rows = []
    for each in items:
        (entry,) = entries("dense", *each.where)
        pages = [each.page("simulated"), each.page("measured")]
        joules = [None if page is None else dense(page) for page in pages]
        fit = parts.get(f"fit/{each.network}/{each.platform}/bilinear", {})
        joules[0] = joules[0] or fit.get("dense_joules")
        scores = sorted({percent(first(page).dense_accuracy) for _, page in each.runs.groupby("page")})
        rows.append(
            [
                f"{each.network} on {each.dataset}",
                each.platform,
                f"{percent(entry['accuracy'], 1)} ({entry['metric']})",
                "–".join(scores) or NOT_RUN,
                f"{entry['joules'][each.platform]:.4f}",
                *(NOT_RUN if value is None else f"{value:.4f}" for value in joules),
                entry["place"],
            ]
        )
    head = ["Dense network", "platform", "claimed score, %", "obtained score, %", "claimed J (metered)"]
    return [*head, "obtained J (simulated)", "obtained J (measured)", "place in the paper"], rows


def _last_error(parts: dict[str, Any], name: str) -> str:
    """The error after the last iteration, in %."""
    return percent(parts[name]["curve"][-1][1]) if name in parts else NOT_RUN


def errors_table(parts: dict[str, Any]) -> Table:
    """Figure 2: the bilinear model's relative test error, claimed beside that on the simulated platforms."""
    claim, rows = published()["energy_model"], []
    for network in dict.fromkeys(entry["network"] for entry in published()["dense"]):
        for platform in _PLATFORMS:
            around = f"around {percent(claim['relative_test_error'], 0)}"
            claimed = around if network == claim["network"] else '"the same conclusions"'
            row = [network, platform, claimed, _last_error(parts, f"adam/{network}/{platform}/bilinear/raw/0.001")]
            fit = parts.get(f"fit/{network}/{platform}/bilinear")
            row += [percent(fit["error"]), f"{fit['error'] / fit['median_error']:.2f}"] if fit else 2 * [NOT_RUN]
            rows.append(row)
    head = ["Network", "platform", "claimed error, % (metered)", "Adam, % (simulated)", "least squares, % (simulated)"]
    return [*head, "skill of least squares (simulated)"], rows


def hidden_layers_table(parts: dict[str, Any]) -> Table:
    """Figure 3: the error with hidden layers behind the products, on the simulated platforms."""
    claim, rows = published()["energy_model"], []
    for platform in _PLATFORMS:
        for way, title in _WAYS.items():
            names = [f"depth/{claim['network']}/{platform}/bilinear/{way}/{depth}" for depth in range(4)]
            errors = [_last_error(parts, name) for name in names]
            rows.append([platform, claim["hidden_layers"][platform], title, *errors])
    head = ["Platform", "claimed of 1 to 3 layers (metered)", "targets, weight decay"]
    return [*head, *(f"{depth} layers, % (simulated)" for depth in range(4))], rows


def widths_table(runs: pd.DataFrame) -> Table | None:
    """Figure 6 in numbers: ECC's narrowest unit and its turns, for all pages; None without one."""
    rows = []
    for name, page in runs.groupby("page"):
        for fraction, units in unit_widths(page[page["method"] == "ecc"]).groupby("budget", sort=False):
            shares = units["mean"].tolist()
            narrowest = min(range(len(shares)), key=shares.__getitem__)
            rows.append(
                [
                    *_place(page),
                    fraction,
                    f"{narrowest + 1} of {len(shares)}",
                    percent(shares[narrowest], 1),
                    f"{turns(shares)} of {max(0, len(shares) - 2)}",
                    f"[plot]({name}-widths.svg)",
                ]
            )
    head = ["Obtained with", "platform", "protocol", "budget, share of dense", "narrowest unit"]
    return ([*head, "its width, % of dense", "turns", "widths of all units"], rows) if rows else None


def turns(shares: Sequence[float]) -> int:
    """Inner units that are narrower, or wider, than both their neighbours."""
    steps = [after - before for before, after in pairwise(shares)]
    return sum(one * other < 0 for one, other in pairwise(steps))


def fine_tuning_table(runs: pd.DataFrame, notes: Notes) -> Table:
    """Before and after fine-tuning, of the paper's methods at every budget of every page."""
    rows = []
    for _, page in runs.groupby("page"):
        for fraction in budgets(page):
            cells = [
                accuracy(page, notes, when)(page[(page["method"] == method) & (page["budget"] == fraction)])
                for method in TITLES
                for when in ("before", "after")
            ]
            rows.append([*_place(page), first(page).score, fraction, *cells])
    columns = [f"{title} {when}, %" for title in TITLES.values() for when in ("before", "after")]
    return ["Obtained with", "platform", "protocol", "score", "budget, share of dense", *columns], rows


def _place(page: pd.DataFrame) -> list[str]:
    """Workload with a link to its page, platform with its source, protocol."""
    record, ranks = first(page), page["protocol.ranks"].all()
    return [
        f"[{escape(record.network['name'])} on {escape(record.dataset)}]({page['page'].iloc[0]}.md)",
        f"{record.platform.name}, {name_of(page)}",
        record.protocol.name + ("" if ranks else " (ranks nothing)"),
    ]

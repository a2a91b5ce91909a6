"""The page `paper.md`: the ECC paper's evaluation item by item, claimed figures beside obtained ones.

The paper is of Yang, Zhu and Liu, CVPR 2019. Claims come from published.toml. Obtained figures come from committed
records and from the data of the study of energy models. For an item that was not run the page has the command.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report import claims, experiments
from bench.report.claims import TITLES, entries, published
from bench.report.experiments import NOT_RUN, SOURCES, Experiment, name_of
from bench.report.plots import unit_widths
from bench.report.tables import accuracy, budgets, dense, first, protocol_name, workload
from bench.report.text import ABSENT, Notes, Table, by_head, escape, fill, percent
from methods import registry
from shared import networks
from shared.errors import BadInput

NAME = "paper.md"
STUDY = "records/energy-models.json"
PAPERS_METHODS = {"eap": "EAP", "amc": "AMC", "netadapt": "NetAdapt", "lcp": "LcP", "ecc": "ECC"}
_PLATFORMS = ("1080ti", "tx2")
# part of a study's key -> scale of the targets, weight decay
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
    """Name -> figures of the parts of the study that `python -m bench fit` wrote; empty without a study."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["parts"].items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"the figures of a study in {path}", str(error), "python -m bench fit") from None


def properties_table() -> tuple[Table, list[str]]:
    """Table 1 beside the properties that the built-in methods declare, and a line for every difference of the two."""
    questions = published()["property"]
    methods = {name: method for name in registry.BUILT_IN if (method := registry.get(name)).properties is not None}
    titles = PAPERS_METHODS | {name: method.title for name, method in methods.items() if name not in PAPERS_METHODS}
    rows, differing = [], []

    def cells(answers: list[bool]) -> list[str]:
        words = ["yes" if answer else "no" for answer in answers]
        return words or ["not in Table 1", *[ABSENT] * (len(questions) - 1)]

    for name, title in titles.items():
        claimed = [name in question["methods"] for question in questions if name in PAPERS_METHODS]
        declared = [getattr(methods[name].properties, question["name"]) for question in questions]
        rows.append([title, *cells(claimed), *cells(declared)])
        sides = zip(questions, claimed, declared, strict=False)  # none where one side is silent
        differing += [f"{title}, {question['question']}" for question, one, other in sides if one != other]
    heads = [f"{side}: {question['question']}" for side in ("claimed", "declared") for question in questions]
    return (["Method", *heads], rows), differing


def dense_table(items: Sequence[Experiment], parts: dict[str, Any]) -> Table:
    """Score and joules of the dense networks. Simulated joules come from the study where no run has them."""
    rows = []
    for item in items:
        (entry,) = entries("dense", *item.where)
        fit = parts.get(f"fit/{item.network}/{item.platform}/bilinear", {})
        simulated, measured = (None if page is None else dense(page) for page in map(item.page, SOURCES))
        scores = sorted({percent(first(page).dense_accuracy) for _, page in item.runs.groupby("page")})
        rows.append(
            {
                "Dense network": f"{item.network} on {item.dataset}",
                "platform": item.platform,
                "claimed score, %": f"{percent(entry['accuracy'], 1)} ({entry['metric']})",
                "obtained score, %": "–".join(scores) or NOT_RUN,
                "claimed J (metered)": f"{entry['joules'][item.platform]:.4f}",
                "obtained J (simulated)": _joules(simulated or fit.get("dense_joules")),
                "obtained J (measured)": _joules(measured),
                "place in the paper": entry["place"],
            }
        )
    return by_head(rows)


def _joules(amount: float | None) -> str:
    return NOT_RUN if amount is None else f"{amount:.4f}"


def _last_error(parts: dict[str, Any], name: str) -> str:
    """The relative error in % of a part of the study after its last iteration."""
    return percent(parts[name]["curve"][-1][1]) if name in parts else NOT_RUN


def errors_table(parts: dict[str, Any]) -> Table:
    """Figure 2: the bilinear model's relative test error, claimed beside that on the simulated platforms."""
    claim, rows = published()["energy_model"], []
    around = f"around {percent(claim['relative_test_error'], 0)}"
    networks = dict.fromkeys(entry["network"] for entry in published()["dense"])
    for network, platform in product(networks, _PLATFORMS):
        claimed = around if network == claim["network"] else '"the same conclusions"'
        adam = _last_error(parts, f"adam/{network}/{platform}/bilinear/raw/0.001")
        fit = parts.get(f"fit/{network}/{platform}/bilinear")
        least_squares = [percent(fit["error"]), f"{fit['error'] / fit['median_error']:.2f}"] if fit else 2 * [NOT_RUN]
        rows.append([network, platform, claimed, adam, *least_squares])
    head = ["Network", "platform", "claimed error, % (metered)", "Adam, % (simulated)", "least squares, % (simulated)"]
    return [*head, "skill of least squares (simulated)"], rows


def hidden_layers_table(parts: dict[str, Any]) -> Table:
    """Figure 3: the error with hidden layers behind the products, on the simulated platforms."""
    claim, rows = published()["energy_model"], []
    for platform, (way, title) in product(_PLATFORMS, _WAYS.items()):
        names = [f"depth/{claim['network']}/{platform}/bilinear/{way}/{depth}" for depth in range(4)]
        errors = [_last_error(parts, name) for name in names]
        rows.append([platform, claim["hidden_layers"][platform], title, *errors])
    head = ["Platform", "claimed of 1 to 3 layers (metered)", "targets, weight decay"]
    return [*head, *(f"{depth} layers, % (simulated)" for depth in range(4))], rows


def widths_table(runs: pd.DataFrame) -> Table | None:
    """Figure 6 in numbers: the narrowest unit and the turns of ECC's widths on every page; None without any."""
    rows = []
    for name, page in runs.groupby("page"):
        for fraction, units in unit_widths(page[page["method"] == "ecc"]).groupby("budget", sort=False):
            shares = units["mean"].tolist()
            rows.append(
                _place(page)
                | {
                    "budget, share of dense": fraction,
                    "narrowest unit": f"{shares.index(min(shares)) + 1} of {len(shares)}",
                    "its width, % of dense": percent(min(shares), 1),
                    "turns": f"{turns(shares)} of {max(0, len(shares) - 2)}",
                    "widths of all units": f"[plot]({name}-widths.svg)",
                }
            )
    return by_head(rows) if rows else None


def turns(shares: Sequence[float]) -> int:
    """The number of inner units that are narrower, or wider, than both their neighbours."""
    steps = [after - before for before, after in pairwise(shares)]
    return sum(one * other < 0 for one, other in pairwise(steps))


def fine_tuning_table(runs: pd.DataFrame, notes: Notes) -> Table | None:
    """Scores of the paper's methods before and after fine-tuning, per page and budget; None without a page."""
    rows = []
    for _, page in runs.groupby("page"):
        for fraction in budgets(page):
            row = _place(page) | {"score": first(page).score, "budget, share of dense": fraction}
            for (method, title), when in product(TITLES.items(), ("before", "after")):
                cell = accuracy(page, notes, when)
                row[f"{title} {when}, %"] = cell(page[(page["method"] == method) & (page["budget"] == fraction)])
            rows.append(row)
    return by_head(rows) if rows else None


def _place(page: pd.DataFrame) -> dict[str, str]:
    """Cells that say where a row's figures come from: workload with a link to its page, platform, protocol."""
    return {
        "Obtained with": f"[{escape(workload(page))}]({page['page'].iloc[0]}.md)",
        "platform": f"{first(page).platform.name}, {name_of(page)}",
        "protocol": protocol_name(page),
    }

"""Parts of the paper's page beside its experiments: Table 1, dense networks, Figures 2, 3 and 6, before fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from bench.report.cells import Notes, accuracy_cell, dense_reading
from bench.report.collect import Page, kept
from bench.report.paper_experiments import NOT_RUN, Experiment
from bench.report.published import TITLES, published
from bench.report.text import ABSENT, escape, percent, table
from methods import registry

PAPERS_METHODS = {"eap": "EAP", "amc": "AMC", "netadapt": "NetAdapt", "lcp": "LcP", "ecc": "ECC"}
_PLATFORMS = ("1080ti", "tx2")
_WAYS = {"raw/0.001": "joules, 0.001", "raw/0.000125": "joules, 1/8000", "scaled/0.001": "mean 1, 0.001"}


def properties_table() -> tuple[str, list[str]]:
    """Table 1 with the properties that the built-in methods declare, and where the two differ (a line each)."""
    questions = published()["property"]
    declared = {
        name: method.properties for name in registry.BUILT_IN if (method := registry.get(name)).properties is not None
    }
    titles = PAPERS_METHODS | {name: registry.get(name).title for name in declared if name not in PAPERS_METHODS}
    rows, differing = [], []
    for name, title in titles.items():
        claims = [name in question["methods"] for question in questions] if name in PAPERS_METHODS else None
        own = [getattr(declared[name], question["name"]) for question in questions] if name in declared else None
        rows.append([title, *_marks(claims, "not in Table 1"), *_marks(own, "not in this suite")])
        if claims and own:
            differing += [
                f"{title}, {question['question']}"
                for question, claim, held in zip(questions, claims, own, strict=True)
                if claim != held
            ]
    head = [
        "Method",
        *(f"{side}: {question['question']}" for side in ("claimed", "declared") for question in questions),
    ]
    return table(head, rows, left=len(head)), differing


def _marks(values: list[bool] | None, without: str) -> list[str]:
    """A cell per property; where there are none the first cell says why."""
    if values is None:
        return [without, *(len(published()["property"]) - 1) * [ABSENT]]
    return ["yes" if value else "no" for value in values]


def dense_table(experiments: Sequence[Experiment], study: dict[str, Any] | None) -> str:
    """Score and joules of the dense networks; simulated joules are from the study where no run has them."""
    entries = {entry["network"]: entry for entry in published()["dense"]}
    rows = []
    for experiment in experiments:
        entry, pages = entries[experiment.network], [experiment.page("simulated"), experiment.page("measured")]
        scores = sorted({percent(page.first.dense_accuracy) for page in experiment.pages})
        joules = [dense_reading(page) if page else None for page in pages]
        fit = _part(study, f"fit/{experiment.network}/{experiment.platform}/bilinear")
        if joules[0] is None and fit is not None:
            joules[0] = fit["dense_joules"]
        rows.append(
            [
                f"{experiment.network} on {experiment.dataset}",
                experiment.platform,
                f"{percent(entry['accuracy'], 1)} ({entry['metric']})",
                "–".join(scores) or NOT_RUN,
                f"{entry['joules'][experiment.platform]:.4f}",
                *(NOT_RUN if value is None else f"{value:.4f}" for value in joules),
                entry["place"],
            ]
        )
    head = ["Dense network", "platform", "claimed score, %", "obtained score, %", "claimed J (metered)"]
    return table([*head, "obtained J (simulated)", "obtained J (measured)", "place in the paper"], rows, left=2)


def errors_table(study: dict[str, Any] | None) -> str:
    """Figure 2: the bilinear model's relative test error, claimed beside that on the simulated platforms."""
    claim = published()["energy_model"]
    rows = []
    for network in dict.fromkeys(entry["network"] for entry in published()["dense"]):
        for platform in _PLATFORMS:
            fit = _part(study, f"fit/{network}/{platform}/bilinear")
            adam = _part(study, f"adam/{network}/{platform}/bilinear/raw/0.001")
            claimed = f"around {percent(claim['relative_test_error'], 0)}"
            rows.append(
                [
                    network,
                    platform,
                    claimed if network == claim["network"] else '"the same conclusions"',
                    NOT_RUN if adam is None else percent(adam["curve"][-1][1]),
                    NOT_RUN if fit is None else percent(fit["error"]),
                    NOT_RUN if fit is None else f"{fit['error'] / fit['median_error']:.2f}",
                ]
            )
    head = ["Network", "platform", "claimed error, % (metered)", "Adam, % (simulated)", "least squares, % (simulated)"]
    return table([*head, "skill of least squares (simulated)"], rows, left=2)


def hidden_layers_table(study: dict[str, Any] | None) -> str:
    """Figure 3: the error with hidden layers behind the products, on the simulated platforms."""
    claim = published()["energy_model"]
    rows = []
    for platform in _PLATFORMS:
        for way, title in _WAYS.items():
            names = [f"depth/{claim['network']}/{platform}/bilinear/{way}/{depth}" for depth in range(4)]
            found = [_part(study, name) for name in names]
            errors = [NOT_RUN if part is None else percent(part["curve"][-1][1]) for part in found]
            rows.append([platform, claim["hidden_layers"][platform], title, *errors])
    head = ["Platform", "claimed of 1 to 3 layers (metered)", "targets, weight decay"]
    return table([*head, *(f"{depth} layers, % (simulated)" for depth in range(4))], rows, left=3)


def _part(study: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    return None if study is None else study["parts"].get(name)


def widths_table(made: Sequence[Page]) -> str | None:
    """Figure 6 in numbers: ECC's narrowest unit and its turns, for all pages in joules; None without one."""
    rows = []
    for page in made:
        for fraction in page.budgets:
            runs = kept(page.runs("ecc", fraction))
            if not runs or page.first.platform.unit != "J":
                continue
            per_seed = [[w / c for w, c in zip(m.widths, m.upper_bounds, strict=True)] for _, m in runs]
            shares = [fmean(unit) for unit in zip(*per_seed, strict=True)]
            narrowest = min(range(len(shares)), key=shares.__getitem__)
            rows.append(
                [
                    *_place(page),
                    fraction,
                    f"{narrowest + 1} of {len(shares)}",
                    percent(shares[narrowest], 1),
                    f"{turns(shares)} of {max(0, len(shares) - 2)}",
                    f"[plot]({page.name}-widths.svg)",
                ]
            )
    head = [
        "Obtained with",
        "platform",
        "protocol",
        "budget, share of dense",
        "narrowest unit",
        "its width, % of dense",
    ]
    return table([*head, "turns", "widths of all units"], rows, left=3) if rows else None


def turns(shares: Sequence[float]) -> int:
    """Inner units that are narrower, or wider, than both their neighbours."""
    steps = [after - before for before, after in pairwise(shares)]
    return sum(one * other < 0 for one, other in pairwise(steps))


def fine_tuning_tables(made: Sequence[Page]) -> tuple[list[tuple[str, str]], list[str]]:
    """Before and after fine-tuning, of the paper's methods: (source, table) for each source, and the notes below."""
    notes, tables = Notes(), []
    head = ["Obtained with", "platform", "protocol", "score", "budget, share of dense"]
    for source in ("measured", "simulated"):
        rows = []
        for page in made:
            if (page.first.platform.source, page.first.platform.unit) != (source, "J"):
                continue
            for fraction in page.budgets:
                cells = [
                    accuracy_cell(page, page.runs(method, fraction), notes, pick)
                    for method in TITLES
                    for pick in (lambda m: m.accuracy_before, lambda m: m.accuracy_after)
                ]
                rows.append([*_place(page), page.first.score, fraction, *cells])
        if rows:
            columns = [f"{title} {when}, %" for title in TITLES.values() for when in ("before", "after")]
            tables.append((source, table([*head, *columns], rows, left=4)))
    return tables, notes.lines()


def _place(page: Page) -> list[str]:
    """Workload with a link to its page, platform with its source, protocol."""
    first = page.first
    kind = "" if first.energy_fit.kind == "bilinear" else f", {first.energy_fit.kind}"
    return [
        f"[{escape(first.network['name'])} on {escape(first.dataset)}]({page.name}.md)",
        f"{first.platform.name}, {first.platform.source}{kind}",
        str(first.protocol["name"]) + ("" if page.ranks else " (ranks nothing)"),
    ]

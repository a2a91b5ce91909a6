"""Figures 4 and 5 and Table 2 of the ECC paper: claimed figures, obtained ones, and the commands for those not run."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pandas as pd

from bench.report.claims import TITLES, entries, published
from bench.report.tables import accuracy, cut, dense, first, shown
from bench.report.text import ABSENT, Notes, Table, by_head, mean_std, percent, signed_percent

PROTOCOL = "paper"  # has the iterations that the paper states
NOT_RUN = "not run"
SOURCES = ("simulated", "measured")
_FOLDERS = {"imagenet": "ImageNet", "cityscapes": "Cityscapes"}
NEEDS = {dataset: f"a GPU, {title} in torchvision's layout" for dataset, title in _FOLDERS.items()}
# network -> data set that ships with the suite
EMBEDDED = {"mobilenet": "fashion-mnist", "alexnet": "fashion-mnist", "erfnet": "garment-scenes"}
_BUDGET_TOLERANCE = 1e-4  # relative: the paper prints four digits


class Experiment(NamedTuple):
    """One network on one platform as in the paper, with this suite's runs of it; without runs it was not run."""

    item: str  # "Table 2"
    network: str
    dataset: str
    platform: str
    place: str  # in the paper
    budgets: list[str]  # arguments of --budgets, tightest first
    # rows of a frame; their column `argument` is the member of `budgets` that means a run's budget, else its fraction
    runs: pd.DataFrame
    alike: list[str]  # names of pages of the same network and platform on embedded data

    @property
    def where(self) -> tuple[str, str, str]:
        """The network, data set and platform that claims are about."""
        return self.network, self.dataset, self.platform

    @property
    def state(self) -> str:
        """Whether the experiment was run, and on which platforms."""
        pages = [f"[{name_of(page)}]({name}.md)" for name, page in self.runs.groupby("page")]
        return f"obtained: {', '.join(pages)}" if pages else f"{NOT_RUN} (needs {NEEDS[self.dataset]})"

    def page(self, source: str) -> pd.DataFrame | None:
        """The page of this source. Of several, it is the one with the paper's energy model."""
        same = self.runs[self.runs["platform.source"] == source]
        return None if same.empty else same[same["energy_fit.kind"] == same["energy_fit.kind"].min()]


def experiments(runs: pd.DataFrame) -> list[Experiment]:
    """The experiments of the data file, platform by platform, each with its part of `runs`."""
    items = []
    for entry in published()["experiment"]:
        for platform, budgets in entry["budgets"].items():
            here = runs["network.name"].eq(entry["network"]) & runs["platform.name"].eq(platform)
            here &= runs["platform.unit"].eq("J")
            same = runs[here & runs["dataset"].eq(entry["dataset"]) & runs["protocol.name"].eq(PROTOCOL)]
            arguments = [_argument(*run, budgets) for run in zip(same["budget"], same["budget.amount"], strict=True)]
            alike = runs.loc[here & runs["dataset"].eq(EMBEDDED[entry["network"]]), "page"].unique()
            fields = entry | {"platform": platform, "budgets": budgets, "alike": list(alike)}
            items.append(Experiment(**fields, runs=same.assign(argument=arguments)))
    return items


def _argument(fraction: str, joules: float, budgets: list[str]) -> str:
    """The first of `budgets` that means the budget of this fraction of dense and these joules, else the fraction."""
    for budget in budgets:
        if budget.endswith("J"):
            same = math.isclose(joules, float(budget.removesuffix("J")), rel_tol=_BUDGET_TOLERANCE)
        else:
            same = fraction != "dense" and float(fraction) == float(budget)
        if same:
            return budget
    return fraction


def name_of(page: pd.DataFrame) -> str:
    """What tells a page from the others of an experiment: its source, and an energy model that isn't the paper's."""
    kind = first(page).energy_fit.kind
    return first(page).platform.source + ("" if kind == "bilinear" else f", {kind}")


def results_table(experiment: Experiment, notes: Notes) -> Table | None:
    """A row per budget and method: the claimed score, then the figures of each page in columns of their own.

    None where the paper prints no score and nothing was run.
    """
    printed = entries("table", *experiment.where)
    pages = {name_of(page): page for _, page in experiment.runs.groupby("page")}
    if not pages and not printed:
        return None
    bound = experiment.runs[experiment.runs["budget.amount"].notna()].sort_values(["page", "budget.amount"])
    rows = []
    for budget in dict.fromkeys([*experiment.budgets, *bound["argument"]]):
        title = f"{budget.removesuffix('J')} J" if budget.endswith("J") else f"{budget} of dense"
        for method in TITLES:
            claimed = _claimed(printed[0], budget, method) if printed else "plotted only"
            row = {"Budget per image": title, "method": TITLES[method], "claimed after, %": claimed}
            for name, page in pages.items():
                runs = page[page["argument"].eq(budget) & page["method"].eq(method)]
                joules = mean_std(shown(runs)["measures.reading"], "{:.4f}")
                for when in ("before", "after"):
                    score = accuracy(page, notes, when)(runs)
                    row[f"obtained {when}, % ({name} platform)"] = NOT_RUN if runs.empty else score
                row[f"obtained J ({name})"] = NOT_RUN if runs.empty else joules
            if not pages:
                row |= dict.fromkeys(("obtained before, %", "obtained after, %", "obtained J"), NOT_RUN)
            rows.append(row)
    return by_head(rows)


def _claimed(printed: dict[str, Any], budget: str, method: str) -> str:
    scores = dict(zip(printed["budgets_joules"], printed[method], strict=True))
    return percent(scores.get(float(budget.removesuffix("J")))) if budget.endswith("J") else ABSENT


def statements_table(experiment: Experiment) -> Table | None:
    """The paper's statements about the experiment beside the figures of the pages; None without a statement."""
    pages = [experiment.page(source) for source in SOURCES]
    rows = [
        [entry["text"], entry["place"], *(_verdict(entry, page) for page in pages)]
        for entry in entries("statement", *experiment.where)
        if "figure" not in entry
    ]
    head = ["Claimed (metered)", "place", "obtained (simulated)", "obtained (measured)"]
    return (head, rows) if rows else None


def _verdict(entry: dict[str, Any], page: pd.DataFrame | None) -> str:
    if page is None:
        return NOT_RUN
    if "lead" in entry:
        means = page[page["ok"]].groupby(["argument", "method"])["measures.accuracy_after"].mean()
        ecc, other = (means.get((f"{entry['joules']}J", method)) for method in ("ecc", entry["over"]))
        return NOT_RUN if ecc is None or other is None else signed_percent(ecc - other, 2).replace(" %", " points")
    return _saving(page, entry["loss"]) if "saving" in entry else "see the table"


def _saving(page: pd.DataFrame, most: float) -> str:
    """The largest saving of the dense joules that ECC has with a loss below `most`, over the page's budgets."""
    reading, ecc = dense(page), cut(page[page["method"] == "ecc"])
    means = ecc.groupby("budget")[["measures.reading", "measures.accuracy_after"]].mean()
    if reading is None or means.empty:
        return NOT_RUN
    loss = first(page).dense_accuracy - means["measures.accuracy_after"]
    savings = (1 - means["measures.reading"] / reading)[loss < most]
    if savings.empty:
        return f"no budget with a loss below {percent(most, 1)} points"
    best = savings.idxmax()
    return f"{percent(savings[best], 1)} % saved at a loss of {percent(loss[best])} points".replace("-", "−")

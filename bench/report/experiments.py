"""Figures 4 and 5 and Table 2 of the ECC paper: claimed figures, obtained ones, and the commands for those not run."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pandas as pd

from bench.report.claims import TITLES, entries, published
from bench.report.tables import Notes, accuracy, dense, first, shown
from bench.report.text import ABSENT, Table, mean_std, percent, signed_percent

PROTOCOL = "paper"
NOT_RUN = "not run"
NEEDS = {
    "imagenet": "a GPU, ImageNet in torchvision's layout",
    "cityscapes": "a GPU, Cityscapes in torchvision's layout",
}
EMBEDDED = {"mobilenet": "fashion-mnist", "alexnet": "fashion-mnist", "erfnet": "garment-scenes"}
_BUDGET_TOLERANCE = 1e-4  # relative: the paper prints four digits


class Experiment(NamedTuple):
    """One network on one platform as the paper has it, with the runs of the same (none: it was not run)."""

    item: str  # "Table 2"
    network: str
    dataset: str
    platform: str
    place: str
    budgets: list[str]  # arguments of --budgets, tightest first
    runs: pd.DataFrame  # with a column `asked`: the one of these budgets that a run has, else its own fraction
    alike: list[str]  # names of pages of the same network and platform on embedded data

    @property
    def where(self) -> tuple[str, str, str]:
        """Network, data set and platform, which claims are about."""
        return self.network, self.dataset, self.platform

    @property
    def state(self) -> str:
        """Whether it was run, and on what."""
        pages = [f"[{name_of(page)}]({name}.md)" for name, page in self.runs.groupby("page")]
        return f"obtained: {', '.join(pages)}" if pages else f"{NOT_RUN} (needs {NEEDS[self.dataset]})"

    def page(self, source: str) -> pd.DataFrame | None:
        """The page of this source; that with the paper's energy model where there are several."""
        same = self.runs[self.runs["platform.source"] == source]
        return None if same.empty else same[same["energy_fit.kind"] == same["energy_fit.kind"].min()]


def experiments(runs: pd.DataFrame) -> list[Experiment]:
    """Those of the data file, platform by platform, with what is theirs of `runs`."""
    found = []
    for entry in published()["experiment"]:
        for platform, budgets in entry["budgets"].items():
            here = runs["network.name"].eq(entry["network"]) & runs["platform.name"].eq(platform)
            here &= runs["platform.unit"].eq("J")
            same = runs[here & runs["dataset"].eq(entry["dataset"]) & runs["protocol.name"].eq(PROTOCOL)]
            asked = [_asked(*run, budgets) for run in zip(same["budget"], same["budget.amount"], strict=True)]
            alike = runs.loc[here & runs["dataset"].eq(EMBEDDED[entry["network"]]), "page"].unique()
            fields = {key: entry[key] for key in ("item", "network", "dataset", "place")} | {"platform": platform}
            found.append(Experiment(**fields, budgets=budgets, runs=same.assign(asked=asked), alike=list(alike)))
    return found


def _asked(fraction: str, amount: float, budgets: list[str]) -> str:
    """The first of `budgets` that means this budget, else its fraction."""
    for budget in budgets:
        joules = float(budget.removesuffix("J")) if budget.endswith("J") else math.inf
        if math.isclose(amount, joules, rel_tol=_BUDGET_TOLERANCE):
            return budget
        if fraction != "dense" and joules == math.inf and float(fraction) == float(budget):
            return budget
    return fraction


def name_of(page: pd.DataFrame) -> str:
    """What tells a page from the others of an experiment: its source, and an energy model that isn't the paper's."""
    kind = first(page).energy_fit.kind
    return first(page).platform.source + ("" if kind == "bilinear" else f", {kind}")


def results_table(experiment: Experiment, notes: Notes) -> Table | None:
    """Methods within budgets: the claimed score, then what each page obtained, in columns of its own.

    None where the paper prints no score and nothing was run.
    """
    pages, printed = [page for _, page in experiment.runs.groupby("page")], entries("table", *experiment.where)
    if not pages and not printed:
        return None
    head = ["Budget per image", "method", "claimed after, %"]
    for page in pages:
        name = name_of(page)
        head += [f"obtained {when}, % ({name} platform)" for when in ("before", "after")] + [f"obtained J ({name})"]
    if not pages:
        head += ["obtained before, %", "obtained after, %", "obtained J"]
    bound = experiment.runs[experiment.runs["budget.amount"].notna()].sort_values(["page", "budget.amount"])
    rows = []
    for budget in dict.fromkeys([*experiment.budgets, *bound["asked"]]):
        for method, title in TITLES.items():
            claimed, cells = _claimed(printed[0] if printed else None, budget, method), []
            for page in pages:
                runs = page[page["asked"].eq(budget) & page["method"].eq(method)]
                joules = mean_std(shown(runs)["measures.reading"].tolist(), "{:.4f}")
                scores = [accuracy(page, notes, when)(runs) for when in ("before", "after")]
                cells += 3 * [NOT_RUN] if runs.empty else [*scores, joules]
            named = f"{budget.removesuffix('J')} J" if budget.endswith("J") else f"{budget} of dense"
            rows.append([named, title, claimed, *(cells or 3 * [NOT_RUN])])
    return head, rows


def _claimed(printed: dict[str, Any] | None, budget: str, method: str) -> str:
    if printed is None:
        return "plotted only"
    claimed = dict(zip(printed["budgets_joules"], printed[method], strict=True))
    return percent(claimed.get(float(budget.removesuffix("J")))) if budget.endswith("J") else ABSENT


def statements_table(experiment: Experiment) -> Table | None:
    """What the paper says in words about the experiment, beside what the pages give; None where it says nothing."""
    pages = [experiment.page(source) for source in ("simulated", "measured")]
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
        means = page[page["ok"]].groupby(["asked", "method"])["measures.accuracy_after"].mean()
        ecc, other = (means.get((f"{entry['joules']}J", method)) for method in ("ecc", entry["over"]))
        return NOT_RUN if ecc is None or other is None else signed_percent(ecc - other, 2).replace(" %", " points")
    return _saving(page, entry["loss"]) if "saving" in entry else "see the table"


def _saving(page: pd.DataFrame, most: float) -> str:
    """The largest saving of the dense joules that ECC has with a loss below `most`, over the page's budgets."""
    reading, kept = dense(page), page[page["ok"] & page["method"].eq("ecc")]
    ends = kept.groupby("budget")[["measures.reading", "measures.accuracy_after"]].mean()
    if reading is None or ends.empty:
        return NOT_RUN
    loss = first(page).dense_accuracy - ends["measures.accuracy_after"]
    saving = (1 - ends["measures.reading"] / reading)[loss < most]
    if saving.empty:
        return f"no budget with a loss below {percent(most, 1)} points"
    best = saving.idxmax()
    return f"{percent(saving[best], 1)} % saved at a loss of {percent(loss[best])} points".replace("-", "−")

"""Figures 4 and 5 and Table 2 of the ECC paper: claimed figures, obtained ones, and the commands for those not run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from bench.record import Measures
from bench.report.cells import Notes, accuracy_cell, dense_reading, shown_measures
from bench.report.collect import Page, kept
from bench.report.published import TITLES, published
from bench.report.text import ABSENT, escape, mean_std, percent, signed_percent, table

PROTOCOL = "paper"
NOT_RUN = "not run"
NEEDS = {
    "imagenet": "a GPU, ImageNet in torchvision's layout",
    "cityscapes": "a GPU, Cityscapes in torchvision's layout",
}
EMBEDDED = {"mobilenet": "fashion-mnist", "alexnet": "fashion-mnist", "erfnet": "garment-scenes"}
_BUDGET_TOLERANCE = 1e-4  # relative: the paper prints four digits


@dataclass(frozen=True)
class Experiment:
    """One network on one platform as the paper has it, with the pages that have the same (none: it was not run)."""

    item: str  # "Table 2"
    network: str
    dataset: str
    platform: str
    place: str
    budgets: tuple[str, ...]  # arguments of --budgets, tightest first
    pages: tuple[Page, ...]
    alike: tuple[Page, ...]  # the same network and platform on embedded data

    @property
    def needs(self) -> str:
        """What it takes to run it."""
        return NEEDS[self.dataset]

    @property
    def weights_command(self) -> str:
        """The command that takes trained dense weights, without which there is no run on these data."""
        return f"python -m bench dense --network {self.network} --dataset {self.dataset} --data DIR --weights FILE"

    @property
    def command(self) -> str:
        """The command that runs it, with the paper's three methods."""
        what = f"--network {self.network} --dataset {self.dataset} --data DIR --device {self.platform}"
        how = f"--protocol {PROTOCOL} --budgets {','.join(self.budgets)} --compute cuda:0"
        return f"python -m bench run --methods {','.join(TITLES)} {what} {how}"

    @property
    def embedded_command(self) -> str:
        """The command that runs the same network on embedded data under the protocol for CPUs."""
        what = f"--network {self.network} --dataset {EMBEDDED[self.network]} --device {self.platform}"
        return f"python -m bench run --methods {','.join(TITLES)} {what}"

    @property
    def state(self) -> str:
        """Whether it was run, and on what."""
        if self.pages:
            return "obtained: " + ", ".join(f"[{name_of(page)}]({page.name}.md)" for page in self.pages)
        return f"{NOT_RUN} (needs {self.needs})"

    def page(self, source: Literal["simulated", "measured"]) -> Page | None:
        """The page of this source; that with the paper's energy model where there are several."""
        found = [page for page in self.pages if page.first.platform.source == source]
        return min(found, key=lambda page: page.first.energy_fit.kind, default=None)


def experiments(made: Sequence[Page]) -> list[Experiment]:
    """Those of the data file, platform by platform, with their pages out of `made`."""
    found = []
    for entry in published()["experiment"]:
        for platform, budgets in entry["budgets"].items():
            embedded = EMBEDDED[entry["network"]]
            fields = {key: entry[key] for key in ("item", "network", "dataset", "place")}
            same = [page for page in made if _where(page) == (entry["network"], entry["dataset"], platform, "J")]
            pages = tuple(page for page in same if page.first.protocol["name"] == PROTOCOL)
            alike = tuple(page for page in made if _where(page) == (entry["network"], embedded, platform, "J"))
            found.append(Experiment(**fields, platform=platform, budgets=tuple(budgets), pages=pages, alike=alike))
    return found


def _where(page: Page) -> tuple[str, str, str, str]:
    first = page.first
    return first.network["name"], first.dataset, first.platform.name, first.platform.unit


def name_of(page: Page) -> str:
    """What tells a page from the others of an experiment: its source, and an energy model that isn't the paper's."""
    kind = page.first.energy_fit.kind
    return page.first.platform.source + ("" if kind == "bilinear" else f", {kind}")


def results_table(experiment: Experiment, notes: Notes) -> str | None:
    """Methods within budgets: the claimed score, then what each page obtained, in columns of its own.

    None where the paper prints no score and nothing was run.
    """
    if not experiment.pages and _printed(experiment) is None:
        return None
    head = ["Budget per image", "method", "claimed after, %"]
    if not experiment.pages:
        head += ["obtained before, %", "obtained after, %", "obtained J"]
    for page in experiment.pages:
        name = name_of(page)
        head += [f"obtained {when}, % ({name} platform)" for when in ("before", "after")] + [f"obtained J ({name})"]
    rows = []
    for budget in _budgets(experiment):
        for method, title in TITLES.items():
            obtained = [cell for page in experiment.pages for cell in _obtained(page, budget, method, notes)]
            claimed = _claimed(experiment, budget, method)
            rows.append([_shown(budget), title, claimed, *(obtained or 3 * [NOT_RUN])])
    return table(head, rows, left=2)


def _budgets(experiment: Experiment) -> list[str]:
    """The experiment's, then what else its pages have."""
    found = list(experiment.budgets)
    for page in experiment.pages:
        known = {_column(page, budget) for budget in found}
        found += [fraction for fraction in page.budgets if fraction not in known]
    return found


def _column(page: Page, budget: str) -> str | None:
    """The page's budget that `budget` (an argument of --budgets) means."""
    if not budget.endswith("J"):
        return next((fraction for fraction in page.budgets if float(fraction) == float(budget)), None)
    joules = float(budget.removesuffix("J"))
    close = (
        key for key, found in page.budgets.items() if math.isclose(found.amount, joules, rel_tol=_BUDGET_TOLERANCE)
    )
    return next(close, None)


def _shown(budget: str) -> str:
    return f"{budget.removesuffix('J')} J" if budget.endswith("J") else f"{budget} of dense"


def _claimed(experiment: Experiment, budget: str, method: str) -> str:
    entry = _printed(experiment)
    if entry is None:
        return "plotted only"
    claimed = dict(zip(entry["budgets_joules"], entry[method], strict=True))
    return percent(claimed.get(float(budget.removesuffix("J")))) if budget.endswith("J") else ABSENT


def _printed(experiment: Experiment) -> dict[str, Any] | None:
    """The table that the paper prints for the experiment."""
    keys = ("network", "dataset", "platform")
    entries = published()["table"]
    return next((e for e in entries if all(e[key] == getattr(experiment, key) for key in keys)), None)


def _obtained(page: Page, budget: str, method: str, notes: Notes) -> list[str]:
    runs = page.runs(method, _column(page, budget) or "")
    if not runs:
        return 3 * [NOT_RUN]
    return [
        accuracy_cell(page, runs, notes, lambda m: m.accuracy_before),
        accuracy_cell(page, runs, notes, lambda m: m.accuracy_after),
        mean_std([m.read for m in shown_measures(runs)], "{:.4f}"),
    ]


def statements_table(experiment: Experiment) -> str | None:
    """What the paper says in words about the experiment, beside what the pages give; None where it says nothing."""
    rows = []
    for entry in statements(experiment.network, experiment.dataset, experiment.platform):
        if "figure" not in entry:
            columns = (experiment.page("simulated"), experiment.page("measured"))
            rows.append([escape(entry["text"]), entry["place"], *(_verdict(entry, page) for page in columns)])
    head = ["Claimed (metered)", "place", "obtained (simulated)", "obtained (measured)"]
    return table(head, rows, left=4) if rows else None


def statements(network: str, dataset: str, platform: str) -> list[dict[str, Any]]:
    """The statements of the data file about this platform."""
    return [
        entry
        for entry in published()["statement"]
        if (entry["network"], entry["dataset"]) == (network, dataset) and platform in entry["platforms"]
    ]


def _verdict(entry: dict[str, Any], page: Page | None) -> str:
    if page is None:
        return NOT_RUN
    if "lead" in entry:
        budget = _column(page, f"{entry['joules']}J") or ""
        means = [_means(page, method, budget) for method in ("ecc", entry["over"])]
        if means[0] is None or means[1] is None:
            return NOT_RUN
        return signed_percent(means[0].accuracy_after - means[1].accuracy_after, 2).replace(" %", " points")
    if "saving" in entry:
        return _saving(page, entry["loss"])
    return "see the table"


def _saving(page: Page, most: float) -> str:
    """The largest saving of the dense joules that ECC has with a loss below `most`, over the page's budgets."""
    reading = dense_reading(page)
    ends = [end for fraction in page.budgets if (end := _means(page, "ecc", fraction)) is not None]
    if reading is None or not ends:
        return NOT_RUN
    kept_loss = [end for end in ends if page.first.dense_accuracy - end.accuracy_after < most]
    if not kept_loss:
        return f"no budget with a loss below {percent(most, 1)} points"
    best = min(kept_loss, key=lambda end: end.reading)
    loss = page.first.dense_accuracy - best.accuracy_after
    return f"{percent(1 - best.reading / reading, 1)} % saved at a loss of {percent(loss)} points".replace("-", "−")


@dataclass(frozen=True)
class _Means:
    """Means over the seeds that kept the budget."""

    accuracy_after: float
    reading: float


def _means(page: Page, method: str, budget: str) -> _Means | None:
    measures: list[Measures] = [m for _, m in kept(page.runs(method, budget))]
    if not measures:
        return None
    return _Means(fmean(m.accuracy_after for m in measures), fmean(m.read for m in measures))

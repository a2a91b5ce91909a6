"""What the cells of a page's tables say, and the notes below them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench.record import Measures, Record
from bench.report.collect import Page, kept, share
from bench.report.text import ABSENT, Unit, escape, mean_std, percent, signed_percent, superscript, unit_for

# Images in the test splits, for the sampling error of an accuracy on them.
TEST_IMAGES = {"fashion-mnist": 10_000, "imagenet": 50_000}
ABOVE = "▲"
TOLERANCE = 1e-9  # relative, as in the harness: sums in another order


@dataclass
class Notes:
    """Numbered notes below a page's first table."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """The superscript that stands for `text`; the same text keeps its number."""
        if text not in self.texts:
            self.texts.append(text)
        return superscript(self.texts.index(text) + 1)

    def lines(self) -> list[str]:
        """The notes, each behind its mark."""
        return [f"{superscript(number)} {text}" for number, text in enumerate(self.texts, start=1)]


def page_unit(page: Page) -> Unit:
    """One unit for all tables and plots of a page."""
    values = [dense_reading(page)]
    values += [budget.amount for budget in page.budgets.values()]
    for record in page.records:
        if record.measures is not None:
            values += [record.measures.read, record.measures.estimate]
    return unit_for((value for value in values if value is not None), page.first.platform.unit)


def dense_reading(page: Page) -> float | None:
    """Amount per image of the dense network as the platform reads it, from any run that knows it."""
    for budget in page.budgets.values():
        return budget.dense_reading
    return next((m.read for _, m in kept(page.dense_runs)), None)


def dense_estimate(page: Page) -> float | None:
    """Ê(dense) per image."""
    for budget in page.budgets.values():
        return budget.dense_estimate
    return next((m.estimate for _, m in kept(page.dense_runs)), None)


def estimates_off(page: Page) -> tuple[float, float] | None:
    """Least and largest Ê over reading, minus 1, of the compressed networks; None where there is none."""
    offs = [m.estimate / m.read - 1 for run, m in kept(page.records) if run.budget is not None]
    return (min(offs), max(offs)) if offs else None


def reading_head(page: Page, unit: Unit) -> str:
    """Column head of the platform's readings; simulated ones are never called measured."""
    return f"{page.first.platform.source} {unit.symbol}"


def sampling_error(page: Page) -> tuple[float, float] | None:
    """Least and largest binomial standard error of the page's test accuracies (fractions), None if unknown."""
    images = TEST_IMAGES.get(page.first.dataset)
    accuracies = [m.accuracy_after for _, m in kept(page.records)] + [page.first.dense_accuracy]
    if images is None:
        return None
    errors = [math.sqrt(p * (1 - p) / images) for p in accuracies if 0 <= p <= 1]
    return (min(errors), max(errors)) if errors else None


def miss_note(page: Page, runs: Sequence[Record]) -> str:
    """What a note says about the missed runs of a cell."""
    missed = [run for run in runs if run.status == "miss"]
    reasons: dict[str, list[int]] = {}
    for run in missed:
        reasons.setdefault(escape(run.reason or "no reason given"), []).append(run.seed)
    told = "; ".join(
        reason if len(page.seeds) == 1 else f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: {reason}"
        for reason, seeds in reasons.items()
    )
    where = escape(page.title(runs[0].method)) + ("" if share(runs[0]) == "dense" else f" at {share(runs[0])}")
    rest = len(runs) - len(missed)
    tail = f" The figure is of the other {rest} run{'s' * (rest > 1)} only." if rest else ""
    return f"**Miss**, {where}: {told}.{tail}".replace("..", ".")


def marks_of(page: Page, runs: Sequence[Record], notes: Notes) -> str:
    """Marks for what a reader must know about a cell: misses, and seeds that were not run."""
    marks = notes.mark(miss_note(page, runs)) if any(run.status == "miss" for run in runs) else ""
    absent = [seed for seed in page.seeds if seed not in {run.seed for run in runs}]
    if absent:
        ran = ", ".join(str(run.seed) for run in runs)
        marks += ("˒" if marks else "") + notes.mark(f"Not run with all seeds of this page; ran with {ran}.")
    return marks


def accuracy_cell(page: Page, runs: Sequence[Record], notes: Notes, pick: Callable[[Measures], float]) -> str:
    if not runs:
        return ABSENT
    values = [100 * pick(measures) for _, measures in kept(runs)]
    return (mean_std(values) if values else "miss") + marks_of(page, runs, notes)


def delivered(page: Page) -> str:
    """Accuracy of the dense weights as delivered; hosts may differ in the last image."""
    values = sorted({percent(record.dense_accuracy) for record in page.records})
    return values[0] if len(values) == 1 else f"{values[0]}–{values[-1]}"


def shown_measures(runs: Iterable[Record]) -> list[Measures]:
    """Measures of the runs that kept their budget, else of those that missed it and know what they are."""
    runs = list(runs)
    return [m for _, m in kept(runs)] or [run.measures for run in runs if run.measures is not None]


def against_budget(readings: Sequence[float], budget: float) -> str:
    """How far the readings lie from the budget, marked when one is above it."""
    if not readings:
        return ABSENT
    worst = max(readings) / budget - 1
    mean = math.fsum(readings) / len(readings) / budget - 1
    text = signed_percent(mean, 2).removesuffix(" %")
    return f"{text} {ABOVE}" if worst > TOLERANCE else text


def has_reading_above(page: Page) -> bool:
    """Whether a row of the page carries the mark for a reading above its budget."""
    return any(
        record.budget and record.measures and record.measures.read > record.budget.amount * (1 + TOLERANCE)
        for record in page.records
    )


def row_name(page: Page, runs: Sequence[Record], notes: Notes) -> str:
    """A method's title with its marks, as plain text."""
    marks = marks_of(page, runs, notes)
    missed = all(run.status == "miss" for run in runs)
    return page.title(runs[0].method) + (" (miss)" if missed else "") + marks


def mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def overhead(runs: Iterable[Record]) -> float | None:
    """Seconds of the method over those that its training iterations and its search images take when done plainly.

    sum method_s / sum (training iterations x distillation step + search images x forward pass), dimensionless; 1 is a
    method whose own work costs nothing. None when nothing was counted.
    """
    costs = [run.cost for run in runs if run.cost is not None]
    plain = math.fsum(
        c.training_iterations * c.distillation_step_s + c.search_samples * c.forward_s_per_image for c in costs
    )
    return math.fsum(c.method_s for c in costs) / plain if plain > 0 else None

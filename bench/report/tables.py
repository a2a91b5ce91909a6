"""The tables of a page, laid out like the paper's: methods down, budgets across, amounts in one unit.

A table of methods is a cell per group of runs, `column head -> function of the group's rows`; see `bench.report.frame`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pandas as pd

from bench.record.model import Record
from bench.report.text import (
    ABSENT,
    Table,
    Unit,
    count,
    escape,
    mean_std,
    percent,
    seconds,
    signed_percent,
    span,
    superscript,
    unit_for,
)
from shared import data

ABOVE = "▲"
TOLERANCE = 1e-9  # relative, as in the harness: sums in another order
Cell = Callable[[pd.DataFrame], str]


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


def first(runs: pd.DataFrame) -> Record:
    """Any record, for what all runs of a page share."""
    record: Record = runs["record"].iloc[0]
    return record


def seeds(page: pd.DataFrame) -> list[int]:
    """All seeds on the page."""
    return sorted(set(page["seed"].tolist()))


def budgets(page: pd.DataFrame) -> dict[str, float]:
    """Label (the fraction) -> budget per image, tightest first as in the paper's Table 2."""
    bound = page[page["budget.amount"].notna()]
    amounts: dict[str, float] = bound.groupby("budget")["budget.amount"].last().sort_values().to_dict()
    return amounts


def dense(page: pd.DataFrame, what: str = "reading") -> float | None:
    """Amount per image of the dense network, from any run that knows it. what: "reading" or "estimate" (Ê)."""
    amounts = page[f"budget.dense_{what}"].dropna().tolist() or page.loc[page["ok"], f"measures.{what}"].tolist()
    return amounts[0] if amounts else None


def page_unit(page: pd.DataFrame) -> Unit:
    """One unit for all tables and plots of a page."""
    columns = ["budget.dense_reading", "budget.amount", "measures.reading", "measures.estimate"]
    return unit_for(page[columns].to_numpy().ravel().tolist(), first(page).platform.unit)


def reading_head(page: pd.DataFrame, unit: Unit) -> str:
    """Column head of the platform's readings; simulated ones are never called measured."""
    return f"{first(page).platform.source} {unit.symbol}"


def binomial_error(accuracy: float, record: Record) -> float:
    """Standard error of a test accuracy (both 0..1) from the number of test images; NaN where that says nothing."""
    images = data.test_images(record.dataset) if record.score == "top-1 accuracy" else None
    if images is None or not 0 <= accuracy <= 1:
        return math.nan
    return math.sqrt(accuracy * (1 - accuracy) / images)


def sampling_error(page: pd.DataFrame) -> tuple[float, float] | None:
    """Least and largest binomial standard error of the page's test accuracies (0..1), None if unknown."""
    accuracies = [*page.loc[page["ok"], "measures.accuracy_after"], first(page).dense_accuracy]
    errors = [error for p in accuracies if math.isfinite(error := binomial_error(p, first(page)))]
    return (min(errors), max(errors)) if errors else None


def shown(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs that kept their budget, else those that missed it and know what they are."""
    return runs[runs["ok"]] if runs["ok"].any() else runs[runs["measures.widths"].notna()]


def unused(runs: pd.DataFrame) -> str:
    """Share of the budget that Ê leaves, in %."""
    return mean_std((100 * (1 - shown(runs)["measures.estimate"] / shown(runs)["budget.amount"])).tolist())


def to_budget(runs: pd.DataFrame) -> str:
    """How far the readings lie from the budget on average, marked when one is above it."""
    off = shown(runs)["measures.reading"] / shown(runs)["budget.amount"] - 1
    return signed_percent(off.mean(), 2).removesuffix(" %") + (f" {ABOVE}" if off.max() > TOLERANCE else "")


def overhead(runs: pd.DataFrame) -> str:
    """Seconds of the method over those that its training iterations and its search images take when done plainly.

    A ratio of sums over the runs; 1 is a method whose own work costs nothing. A dash when nothing was counted.
    """
    plain_s = runs["cost.plain_s"].sum()
    return f"{runs['cost.method_s'].sum() / plain_s:.2f}" if plain_s > 0 else ABSENT


def misses(page: pd.DataFrame, runs: pd.DataFrame) -> str | None:
    """What a note says about the missed runs of a cell; None without one."""
    missed, record = runs.loc[~runs["ok"], "record"], first(runs)
    if missed.empty:
        return None
    reasons: dict[str, list[int]] = {}
    for run in missed:
        reasons.setdefault(escape(run.reason or "no reason given"), []).append(run.seed)
    causes = "; ".join(
        reason if len(seeds(page)) == 1 else f"seed{'s' * (len(of) > 1)} {', '.join(map(str, of))}: {reason}"
        for reason, of in reasons.items()
    )
    where = escape(record.title) + ("" if record.budget is None else f" at {runs['budget'].iloc[0]}")
    rest = len(runs) - len(missed)
    tail = f" The figure is of the other {rest} run{'s' * (rest > 1)} only." if rest else ""
    return f"**Miss**, {where}: {causes}.{tail}".replace("..", ".")


def marks(page: pd.DataFrame, runs: pd.DataFrame, notes: Notes) -> str:
    """Marks for what a reader must know about a cell: misses, and seeds that were not run."""
    texts = [text] if (text := misses(page, runs)) else []
    if set(seeds(page)) - set(runs["seed"]):
        texts.append(f"Not run with all seeds of this page; ran with {', '.join(map(str, runs['seed']))}.")
    return "˒".join(map(notes.mark, texts))


def accuracy(page: pd.DataFrame, notes: Notes, when: str = "after") -> Cell:
    """Cells of the test accuracy in % of the runs that kept their budget, before or after fine-tuning."""

    def cell(runs: pd.DataFrame) -> str:
        if runs.empty:
            return ABSENT
        kept = runs.loc[runs["ok"], f"measures.accuracy_{when}"]
        return (mean_std((100 * kept).tolist()) if len(kept) else "miss") + marks(page, runs, notes)

    return cell


def delivered(page: pd.DataFrame) -> str:
    """Accuracy of the dense weights as delivered; hosts may differ in the last image."""
    values = sorted({percent(value) for value in page["dense_accuracy"]})
    return values[0] if len(values) == 1 else f"{values[0]}–{values[-1]}"


def main_table(page: pd.DataFrame, unit: Unit, notes: Notes) -> Table:
    """Test accuracy in % after fine-tuning: methods x budgets, and the dense control in a column of its own."""
    cell, reading, columns = accuracy(page, notes), dense(page), budgets(page)
    head = [f"{fraction} = {unit.named(amount)}" for fraction, amount in columns.items()]
    head.append("dense" if reading is None else f"dense = {unit.named(reading)}")
    empty, bound = [ABSENT] * len(columns), page["budget.amount"].notna()
    rows = [["Dense, as delivered", *empty, delivered(page)]]
    for method, runs in page[~bound].groupby("method", sort=False):
        rows.append(["Dense, same iterations" if method == "dense" else first(runs).title, *empty, cell(runs)])
    for _, runs in page[bound].groupby("method", sort=False):
        cells = [cell(runs[runs["budget"] == fraction]) for fraction in columns]
        rows.append([first(runs).title, *cells, ABSENT])
    return [f"{first(page).score} in % at budget", *head], rows


def by_method(page: pd.DataFrame, runs: pd.DataFrame, columns: dict[str, Cell], notes: Notes) -> Table:
    """A row per method of `runs`: its title with marks, then a cell per column."""
    rows = []
    for _, group in runs.groupby("method", sort=False):
        name = first(group).title + ("" if group["ok"].any() else " (miss)") + marks(page, group, notes)
        rows.append([name, *(cell(group) for cell in columns.values())])
    return ["Method", *columns], rows


def _values(column: str, form: Callable[..., str], *, times: float = 1.0, over: float = 1.0) -> Cell:
    return lambda runs: form((times * shown(runs)[column] / over).tolist())


def _counts(column: str) -> Cell:
    return lambda runs: span(runs[column].dropna().tolist())


def figures_columns(page: pd.DataFrame, unit: Unit) -> dict[str, Cell]:
    """Column head -> cell, of what compressed networks are."""
    amount = partial(mean_std, form=f"{{:.{unit.decimals}f}}")
    return {
        "before, %": _values("measures.accuracy_before", mean_std, times=100),
        "after, %": _values("measures.accuracy_after", mean_std, times=100),
        f"estimated {unit.symbol}": _values("measures.estimate", amount, over=unit.size),
        "unused, %": unused,
        reading_head(page, unit): _values("measures.reading", amount, over=unit.size),
        "to budget, %": to_budget,
        "parameters": _values("measures.parameters", span),
        "MACs": _values("measures.macs", span),
    }


COST_COLUMNS: dict[str, Cell] = {
    "iterations": _counts("cost.training_iterations"),
    "fine-tuning": _counts("cost.fine_tune_iterations"),
    "search images": _counts("cost.search_samples"),
    "Ê queries": _counts("cost.energy_queries"),
    "readings": _counts("cost.landing_readings"),
    "method, s": lambda runs: seconds(runs["cost.method_s"].mean()),
    "fine-tuning, s": lambda runs: seconds(runs["cost.fine_tune_s"].mean()),
    "overhead": overhead,
}


def figures_table(page: pd.DataFrame, budget: str, unit: Unit, notes: Notes) -> Table:
    """What the compressed networks of one budget are: a row per method."""
    return by_method(page, page[page["budget"] == budget], figures_columns(page, unit), notes)


def cost_table(page: pd.DataFrame, budget: str, notes: Notes) -> Table:
    """What finding the networks of one budget took, misses included; "dense" asks for the dense control."""
    return by_method(page, page[page["budget"] == budget], COST_COLUMNS, notes)


def dense_table(page: pd.DataFrame, unit: Unit, notes: Notes) -> Table:
    """The dense control as delivered, after the same training iterations, and after fine-tuning on top."""
    runs = page[page["method"] == "dense"]
    size = [span(shown(runs)[f"measures.{column}"].tolist()) for column in ("parameters", "macs")]
    figures = [unit(dense(page, "estimate")), unit(dense(page)), *size]
    rows = [["as delivered", delivered(page), *figures]]
    if len(runs):
        for name, when in (("after the same iterations", "before"), ("and the same fine-tuning", "after")):
            rows.append([name, accuracy(page, notes, when)(runs), *figures])
    head = ["Dense network", f"{first(page).score}, %", f"estimated {unit.symbol}", reading_head(page, unit)]
    return [*head, "parameters", "MACs"], rows


def runs_table(page: pd.DataFrame, unit: Unit, notes: Notes) -> Table:
    """Every run by itself, for pages with several seeds."""
    heads = ["before, %", "after, %", f"estimated {unit.symbol}", reading_head(page, unit), "to budget, %", "method, s"]
    heads += ["overhead"]
    cells, rows = figures_columns(page, unit) | COST_COLUMNS, []
    for (_, budget), runs in page.groupby(["method", "budget"], sort=False):
        for index in range(len(runs)):
            run = runs.iloc[index : index + 1]
            mark = "" if run["ok"].item() else f" (miss){notes.mark(misses(page, runs) or '')}"
            rows.append([first(run).title + mark, budget, str(first(run).seed), *(cells[head](run) for head in heads)])
    return ["Method", "budget", "seed", *heads], rows


def widths_table(page: pd.DataFrame) -> Table:
    """Widths of every cut network, beside the dense ones."""
    kept = page[page["ok"]]
    bounds = kept["measures.upper_bounds"].iloc[0] if len(kept) else ()
    rows = [["Dense", ABSENT, ABSENT, " ".join(map(count, bounds))]]
    rows += [
        [run.title, label, str(run.seed), " ".join(map(count, run.measures.widths))]
        for run, label in zip(kept["record"], kept["budget"], strict=True)
        if run.budget is not None
    ]
    return ["Method", "budget", "seed", "channels kept, in execution order"], rows

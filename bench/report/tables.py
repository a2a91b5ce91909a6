"""The tables of a page, laid out like the paper's: methods down, budgets across, amounts in one unit.

A table of methods has a cell per group of runs. Its columns map a head to the function that writes a group's cell. The
columns of the runs are those of `bench.report.frame`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pandas as pd

from bench.record.model import Record
from bench.report import text
from bench.report.text import ABSENT, AMOUNTS, Notes, Table, Unit
from shared import data

ABOVE = "▲"
TOLERANCE = 1e-9  # relative, as in the harness: sums in another order
Cell = Callable[[pd.DataFrame], str]


def first(runs: pd.DataFrame) -> Record:
    """The first record, for everything that all runs of a page share."""
    return runs["record"].iloc[0]


def seeds(page: pd.DataFrame) -> list[int]:
    """All seeds on the page."""
    return sorted(set(page["seed"].tolist()))


def budgets(page: pd.DataFrame) -> dict[str, float]:
    """Label (the fraction) -> budget in J or s per image, tightest first as in the paper's Table 2."""
    bound = page[page["budget.amount"].notna()]
    return bound.groupby("budget")["budget.amount"].last().sort_values().to_dict()


def cut(page: pd.DataFrame) -> pd.DataFrame:
    """The runs that ended with a network within a budget: no misses, no dense control."""
    return page[page["ok"] & page["budget.amount"].notna()]


def dense(page: pd.DataFrame) -> float | None:
    """The reading of the dense network in J or s per image, from any record that has it."""
    amounts = page["budget.dense_reading"].dropna().tolist() or page.loc[page["ok"], "measures.reading"].tolist()
    return amounts[0] if amounts else None


def parts(page: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of each main table, by what its methods remove: "channels", "weights".

    Beside methods that remove weights stand all runs at the same budgets. A table without compressed networks is left
    out, unless the page has none.
    """
    bound, weights = page["budget.amount"].notna(), page["granularity"] == "weights"
    beside = page["budget"].isin(page.loc[weights, "budget"]) | ~bound
    found = {}
    if not weights.any() or (bound & ~weights).any():
        found["channels"] = page[~weights]
    if weights.any():
        found["weights"] = page[beside]
    return found


def workload(page: pd.DataFrame) -> str:
    """The network and its data set."""
    return f"{first(page).network['name']} on {first(page).dataset}"


def protocol_name(page: pd.DataFrame) -> str:
    """The protocol, and whether its results may rank methods."""
    return first(page).protocol.name + ("" if page["protocol.ranks"].all() else " (ranks nothing)")


def caption(page: pd.DataFrame) -> str:
    """One line that says what a table's numbers are: workload, platform and source, protocol, seeds."""
    record, platform, numbers = first(page), first(page).platform, seeds(page)
    parts = [
        workload(page),
        f"{platform.name}, {platform.source} {AMOUNTS[platform.unit]} per image",
        f"protocol {record.protocol.name}, {text.plural('seed', len(numbers))} {', '.join(map(str, numbers))}",
        f"{record.score} in % after fine-tuning",
    ]
    return "; ".join(parts) + ("" if page["protocol.ranks"].all() else ". It ranks nothing.")


def page_unit(page: pd.DataFrame) -> Unit:
    """One unit for all tables and plots of a page."""
    columns = ["budget.dense_reading", "budget.amount", "measures.reading", "measures.estimate"]
    return text.unit_for(page[columns].to_numpy().ravel().tolist(), first(page).platform.unit)


def reading_head(page: pd.DataFrame, unit: Unit) -> str:
    """Column head of the platform's readings; simulated ones are never called measured."""
    return f"{first(page).platform.source} {unit.symbol}"


def binomial_error(accuracy: float, record: Record) -> float:
    """Standard error of a test accuracy (both 0..1) from the number of test images.

    NaN for another score than an accuracy and where the number is unknown.
    """
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
    """The runs within their budget; without one, the misses whose networks were read all the same."""
    return runs[runs["ok"]] if runs["ok"].any() else runs[runs["measures.widths"].notna()]


def unused(runs: pd.DataFrame) -> str:
    """Share of the budget that Ê leaves, in %."""
    return text.mean_std(100 * (1 - shown(runs)["measures.estimate"] / shown(runs)["budget.amount"]))


def off_budget(shares: pd.Series) -> str:
    """Mean difference of shares of a budget from 1, in % with its sign."""
    return text.signed_percent(shares.mean() - 1, 2).removesuffix(" %")


def above_mark(shares: pd.Series) -> str:
    """The mark of readings above their budgets when one of these shares is above 1, else nothing."""
    return ABOVE if shares.max() > 1 + TOLERANCE else ""


def to_budget(runs: pd.DataFrame) -> str:
    """Mean difference of the readings from the budget in %, with a mark when a reading is above it."""
    shares = shown(runs)["measures.reading"] / shown(runs)["budget.amount"]
    return f"{off_budget(shares)} {above_mark(shares)}".strip()


def overhead(runs: pd.DataFrame) -> str:
    """Seconds of the method over those that its training iterations and its search images take when done plainly.

    A ratio of sums over the runs; 1 is a method whose own work costs nothing. A dash when nothing was counted.
    """
    plain_s = runs["cost.plain_s"].sum()
    return f"{runs['cost.method_s'].sum() / plain_s:.2f}" if plain_s > 0 else ABSENT


def misses(page: pd.DataFrame, runs: pd.DataFrame) -> str | None:
    """The note about the missed runs of a cell; None without a miss."""
    missed, record = runs[~runs["ok"]], first(runs)
    if missed.empty:
        return None
    reasons = missed["record"].map(lambda run: text.escape(run.reason or "no reason given"))
    causes = []
    for reason, numbers in missed["seed"].groupby(reasons, sort=False):
        which = f"{text.plural('seed', len(numbers))} {', '.join(map(str, numbers))}: "
        causes.append(which + reason if len(seeds(page)) > 1 else reason)
    where = text.escape(record.title) + ("" if record.budget is None else f" at {runs['budget'].iloc[0]}")
    rest = len(runs) - len(missed)
    tail = f" The figure is of the other {rest} {text.plural('run', rest)} only." if rest else ""
    return f"**Miss**, {where}: {'; '.join(causes)}.{tail}".replace("..", ".")


def marks(page: pd.DataFrame, runs: pd.DataFrame, notes: Notes) -> str:
    """The marks of a cell's notes: about its misses, and about seeds that were not run."""
    lines = [line] if (line := misses(page, runs)) else []
    if set(seeds(page)) - set(runs["seed"]):
        lines.append(f"Not run with all seeds of this page; ran with {', '.join(map(str, runs['seed']))}.")
    return "˒".join(map(notes.mark, lines))


def accuracy(page: pd.DataFrame, notes: Notes, when: str = "after") -> Cell:
    """Cells of the test accuracy in % of the runs within their budget. when: "before" or "after" fine-tuning."""

    def cell(runs: pd.DataFrame) -> str:
        if runs.empty:
            return ABSENT
        scores = 100 * runs.loc[runs["ok"], f"measures.accuracy_{when}"]
        return (text.mean_std(scores) if len(scores) else "miss") + marks(page, runs, notes)

    return cell


def delivered(page: pd.DataFrame) -> str:
    """Accuracy in % of the dense weights as delivered; hosts may differ in the last image."""
    scores = sorted({text.percent(value) for value in page["dense_accuracy"]})
    return scores[0] if len(scores) == 1 else f"{scores[0]}–{scores[-1]}"


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


def by_method(page: pd.DataFrame, budget: str, columns: dict[str, Cell], notes: Notes) -> Table:
    """A row per method with runs at this budget: its title with marks, then a cell per column."""
    rows = []
    for _, runs in page[page["budget"] == budget].groupby("method", sort=False):
        miss = "" if runs["ok"].any() else " (miss)"
        name = first(runs).title + miss + marks(page, runs, notes)
        rows.append([name, *(cell(runs) for cell in columns.values())])
    return ["Method", *columns], rows


def _values(column: str, form: Callable[[pd.Series], str], *, times: float = 1.0, over: float = 1.0) -> Cell:
    return lambda runs: form(times * shown(runs)[column] / over)


def _counts(column: str) -> Cell:
    return lambda runs: text.span(runs[column].dropna())


def figures_columns(page: pd.DataFrame, unit: Unit) -> dict[str, Cell]:
    """Column head -> cell, for the figures of compressed networks."""
    amount = partial(text.mean_std, form=f"{{:.{unit.decimals}f}}")
    return {
        "before, %": _values("measures.accuracy_before", text.mean_std, times=100),
        "after, %": _values("measures.accuracy_after", text.mean_std, times=100),
        f"estimated {unit.symbol}": _values("measures.estimate", amount, over=unit.size),
        "unused, %": unused,
        reading_head(page, unit): _values("measures.reading", amount, over=unit.size),
        "to budget, %": to_budget,
        "parameters": _values("measures.parameters", text.span),
        "MACs": _values("measures.macs", text.span),
    }


COST_COLUMNS: dict[str, Cell] = {
    "iterations": _counts("cost.training_iterations"),
    "fine-tuning": _counts("cost.fine_tune_iterations"),
    "search images": _counts("cost.search_samples"),
    "Ê queries": _counts("cost.energy_queries"),
    "readings": _counts("cost.landing_readings"),
    "method, s": lambda runs: text.seconds(runs["cost.method_s"].mean()),
    "fine-tuning, s": lambda runs: text.seconds(runs["cost.fine_tune_s"].mean()),
    "overhead": overhead,
}


def figures_table(page: pd.DataFrame, budget: str, unit: Unit, notes: Notes) -> Table:
    """The figures of the compressed networks of one budget, a row per method."""
    return by_method(page, budget, figures_columns(page, unit), notes)


def cost_table(page: pd.DataFrame, budget: str, notes: Notes) -> Table:
    """The cost of the networks of one budget, misses included; the budget "dense" is that of the dense control."""
    return by_method(page, budget, COST_COLUMNS, notes)


def dense_table(page: pd.DataFrame, unit: Unit, notes: Notes) -> Table:
    """The dense control as delivered, after the same training iterations, and after fine-tuning on top."""
    runs = page[page["method"] == "dense"]
    sizes = [text.span(shown(runs)[f"measures.{column}"]) for column in ("parameters", "macs")]
    reading = dense(page)
    estimate = None if reading is None else reading * (1 + first(page).energy_fit.dense_relative_error)
    figures = [unit(estimate), unit(reading), *sizes]
    rows = [["as delivered", delivered(page), *figures]]
    if len(runs):
        for name, when in (("after the same iterations", "before"), ("and the same fine-tuning", "after")):
            rows.append([name, accuracy(page, notes, when)(runs), *figures])
    head = ["Dense network", f"{first(page).score}, %", f"estimated {unit.symbol}", reading_head(page, unit)]
    return [*head, "parameters", "MACs"], rows


def runs_table(page: pd.DataFrame, unit: Unit, notes: Notes) -> Table:
    """Every run by itself, for pages with several seeds."""
    heads = ["before, %", "after, %", f"estimated {unit.symbol}", reading_head(page, unit), "to budget, %"]
    heads += ["method, s", "overhead"]
    cells, rows = figures_columns(page, unit) | COST_COLUMNS, []
    for (_, budget), runs in page.groupby(["method", "budget"], sort=False):
        for seed, run in runs.groupby("seed"):
            miss = "" if run["ok"].item() else f" (miss){notes.mark(misses(page, runs) or '')}"
            rows.append([first(run).title + miss, budget, str(seed), *(cells[head](run) for head in heads)])
    return ["Method", "budget", "seed", *heads], rows


def widths_table(page: pd.DataFrame) -> Table:
    """Widths of every cut network, beside the dense ones."""
    bounds = page.loc[page["ok"], "measures.upper_bounds"].tolist() or [()]
    rows = [["Dense", ABSENT, ABSENT, " ".join(map(text.count, bounds[0]))]]
    for _, run in cut(page).iterrows():
        rows.append([run["title"], run["budget"], str(run["seed"]), " ".join(map(text.count, run["measures.widths"]))])
    return ["Method", "budget", "seed", "channels kept, in execution order"], rows

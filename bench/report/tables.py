"""The tables of a page, laid out like the paper's: methods down, budgets across, amounts in one unit."""

from __future__ import annotations

from typing import NamedTuple

from bench.report.cells import (
    Notes,
    accuracy_cell,
    against_budget,
    delivered,
    dense_estimate,
    dense_reading,
    mean,
    miss_note,
    overhead,
    reading_head,
    row_name,
    shown_measures,
)
from bench.report.collect import Page, kept, share
from bench.report.text import ABSENT, Unit, count, escape, mean_std, percent, seconds, span, table


class Cells(NamedTuple):
    """A table's head and rows as plain text; the first column names the rows."""

    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in Markdown, its names escaped."""
        return table(self.head, [[escape(row[0]), *row[1:]] for row in self.rows])


def main_table(page: Page, unit: Unit, notes: Notes) -> str:
    """Test accuracy in % after fine-tuning: methods x budgets, and the dense control in a column of its own."""
    return main_cells(page, unit, notes).markdown()


def main_cells(page: Page, unit: Unit, notes: Notes) -> Cells:
    """What the main table says."""
    reading = dense_reading(page)
    columns = [f"{fraction} = {unit.named(budget.amount)}" for fraction, budget in page.budgets.items()]
    columns.append("dense" if reading is None else f"dense = {unit.named(reading)}")
    empty = [ABSENT] * len(page.budgets)
    rows = [["Dense, as delivered", *empty, delivered(page)]]
    for method in dict.fromkeys(run.method for run in page.dense_runs):
        runs = [run for run in page.dense_runs if run.method == method]
        name = "Dense, same iterations" if method == "dense" else page.title(method)
        rows.append([name, *empty, accuracy_cell(page, runs, notes, lambda m: m.accuracy_after)])
    for method in page.methods:
        cells = [
            accuracy_cell(page, page.runs(method, fraction), notes, lambda m: m.accuracy_after)
            for fraction in page.budgets
        ]
        rows.append([page.title(method), *cells, ABSENT])
    return Cells([f"{page.first.score} in % at budget", *columns], rows)


def figures_table(page: Page, budget: str, unit: Unit, notes: Notes) -> str:
    """What the compressed networks of one budget are: a row per method."""
    return figures_cells(page, budget, unit, notes).markdown()


def figures_cells(page: Page, budget: str, unit: Unit, notes: Notes) -> Cells:
    """What the table of one budget's figures says."""
    amount = page.budgets[budget].amount
    head = ["Method", "before, %", "after, %", f"estimated {unit.symbol}", "unused, %", reading_head(page, unit)]
    head += ["to budget, %", "parameters", "MACs"]
    rows = []
    for method in page.methods:
        runs = page.runs(method, budget)
        if not runs:
            continue
        shown = shown_measures(runs)
        readings = [m.read for m in shown]
        form = f"{{:.{unit.decimals}f}}"
        rows.append(
            [
                row_name(page, runs, notes),
                mean_std([100 * m.accuracy_before for m in shown]),
                mean_std([100 * m.accuracy_after for m in shown]),
                mean_std([m.estimate / unit.size for m in shown], form),
                mean_std([100 * (1 - m.estimate / amount) for m in shown]),
                mean_std([reading / unit.size for reading in readings], form),
                against_budget(readings, amount),
                span([m.parameters for m in shown]),
                span([m.macs for m in shown]),
            ]
        )
    return Cells(head, rows)


_COST_HEAD = ["Method", "iterations", "fine-tuning", "search images", "Ê queries", "readings", "method, s"]
_COST_HEAD += ["fine-tuning, s", "overhead"]


def cost_table(page: Page, budget: str | None, notes: Notes) -> str:
    """What finding the networks of one budget took, misses included; `budget` None asks for the dense control."""
    rows = []
    for method in page.methods if budget else dict.fromkeys(run.method for run in page.dense_runs):
        runs = page.runs(method, budget) if budget else [run for run in page.dense_runs if run.method == method]
        costs = [run.cost for run in runs if run.cost is not None]
        if not runs:
            continue
        rows.append(
            [
                row_name(page, runs, notes),
                span([cost.training_iterations for cost in costs]),
                span([cost.fine_tune_iterations for cost in costs]),
                span([cost.search_samples for cost in costs]),
                span([cost.energy_queries for cost in costs]),
                span([cost.measurements for cost in costs]),
                seconds(mean([cost.method_s for cost in costs])),
                seconds(mean([cost.fine_tune_s for cost in costs])),
                ABSENT if (ratio := overhead(runs)) is None else f"{ratio:.2f}",
            ]
        )
    return Cells(_COST_HEAD, rows).markdown()


def dense_table(page: Page, unit: Unit, notes: Notes) -> str:
    """The dense control as delivered, after the same training iterations, and after fine-tuning on top."""
    reading, estimate = unit(dense_reading(page)), unit(dense_estimate(page))
    head = [
        "Dense network",
        f"{page.first.score}, %",
        f"estimated {unit.symbol}",
        reading_head(page, unit),
        "parameters",
        "MACs",
    ]
    runs = [run for run in page.dense_runs if run.method == "dense"]
    shown = shown_measures(runs)
    size = [span([m.parameters for m in shown]), span([m.macs for m in shown])]
    rows = [["as delivered", delivered(page), estimate, reading, *size]]
    for name, pick in (
        ("after the same iterations", lambda m: m.accuracy_before),
        ("and the same fine-tuning", lambda m: m.accuracy_after),
    ):
        if runs:
            rows.append([name, accuracy_cell(page, runs, notes, pick), estimate, reading, *size])
    return table(head, rows)


def runs_table(page: Page, unit: Unit, notes: Notes) -> str:
    """Every run by itself, for pages with several seeds."""
    head = ["Method", "budget", "seed", "before, %", "after, %", f"estimated {unit.symbol}", reading_head(page, unit)]
    head += ["to budget, %", "method, s", "overhead"]
    rows = []
    for run in page.records:
        measures, above = run.measures, ABSENT
        if measures and run.budget:
            above = against_budget([measures.read], run.budget.amount)
        miss = ""
        if run.status == "miss":
            miss = " (miss)" + notes.mark(miss_note(page, page.runs(run.method, share(run))))
        ratio = overhead([run])
        rows.append(
            [
                escape(run.title) + miss,
                share(run),
                str(run.seed),
                percent(measures.accuracy_before if measures else None),
                percent(measures.accuracy_after if measures else None),
                unit(measures.estimate if measures else None),
                unit(measures.read if measures else None),
                above,
                seconds(run.cost.method_s if run.cost else None),
                ABSENT if ratio is None else f"{ratio:.2f}",
            ]
        )
    return table(head, rows)


def widths_table(page: Page) -> str:
    """Widths of every cut network, beside the dense ones."""
    bounds = next((m.upper_bounds for _, m in kept(page.records)), ())
    rows = [["Dense", ABSENT, ABSENT, " ".join(map(count, bounds))]]
    rows += [
        [escape(run.title), share(run), str(run.seed), " ".join(map(count, measures.widths))]
        for run, measures in kept(page.records)
        if run.budget is not None
    ]
    return table(["Method", "budget", "seed", "channels kept, in execution order"], rows, left=4)

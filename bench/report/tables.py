"""The tables of a page, laid out like the paper's: methods down, budgets across, joules in one unit."""

from __future__ import annotations

from bench.report.cells import (
    Notes,
    accuracy_cell,
    against_budget,
    delivered,
    dense_estimate,
    dense_reading,
    joules_head,
    mean,
    miss_note,
    overhead,
    row_name,
    shown_measures,
)
from bench.report.collect import Page, kept, share
from bench.report.text import ABSENT, JouleUnit, count, escape, mean_std, percent, seconds, span, table


def main_table(page: Page, unit: JouleUnit, notes: Notes) -> str:
    """Top-1 test accuracy in % after fine-tuning: methods x budgets, and the dense control in a column of its own."""
    reading = dense_reading(page)
    columns = [f"{fraction} = {unit.named(budget.joules)}" for fraction, budget in page.budgets.items()]
    columns.append("dense" if reading is None else f"dense = {unit.named(reading)}")
    empty = [ABSENT] * len(page.budgets)
    rows = [["Dense, as delivered", *empty, delivered(page)]]
    for method in dict.fromkeys(run.method for run in page.dense_runs):
        runs = [run for run in page.dense_runs if run.method == method]
        name = "Dense, same iterations" if method == "dense" else escape(page.title(method))
        rows.append([name, *empty, accuracy_cell(page, runs, notes, lambda m: m.accuracy_after)])
    for method in page.methods:
        cells = [
            accuracy_cell(page, page.runs(method, fraction), notes, lambda m: m.accuracy_after)
            for fraction in page.budgets
        ]
        rows.append([escape(page.title(method)), *cells, ABSENT])
    return table(["Top-1 in % at budget", *columns], rows)


def figures_table(page: Page, budget: str, unit: JouleUnit, notes: Notes) -> str:
    """What the compressed networks of one budget are: a row per method."""
    joules = page.budgets[budget].joules
    head = ["Method", "before, %", "after, %", f"estimated {unit.symbol}", "unused, %", joules_head(page, unit)]
    head += ["to budget, %", "parameters", "MACs"]
    rows = []
    for method in page.methods:
        runs = page.runs(method, budget)
        if not runs:
            continue
        shown = shown_measures(runs)
        readings = [m.reading_joules for m in shown]
        form = f"{{:.{unit.decimals}f}}"
        rows.append(
            [
                row_name(page, runs, notes),
                mean_std([100 * m.accuracy_before for m in shown]),
                mean_std([100 * m.accuracy_after for m in shown]),
                mean_std([m.estimate_joules / unit.joules for m in shown], form),
                mean_std([100 * (1 - m.estimate_joules / joules) for m in shown]),
                mean_std([reading / unit.joules for reading in readings], form),
                against_budget(readings, joules),
                span([m.parameters for m in shown]),
                span([m.macs for m in shown]),
            ]
        )
    return table(head, rows)


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
    return table(_COST_HEAD, rows)


def dense_table(page: Page, unit: JouleUnit, notes: Notes) -> str:
    """The dense control as delivered, after the same training iterations, and after fine-tuning on top."""
    reading, estimate = unit(dense_reading(page)), unit(dense_estimate(page))
    head = ["Dense network", "top-1, %", f"estimated {unit.symbol}", joules_head(page, unit), "parameters", "MACs"]
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


def runs_table(page: Page, unit: JouleUnit, notes: Notes) -> str:
    """Every run by itself, for pages with several seeds."""
    head = ["Method", "budget", "seed", "before, %", "after, %", f"estimated {unit.symbol}", joules_head(page, unit)]
    head += ["to budget, %", "method, s", "overhead"]
    rows = []
    for run in page.records:
        measures, above = run.measures, ABSENT
        if measures and run.budget:
            above = against_budget([measures.reading_joules], run.budget.joules)
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
                unit(measures.estimate_joules if measures else None),
                unit(measures.reading_joules if measures else None),
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

"""Cells against figures worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from bench.record.model import Record
from bench.report import checked, tables
from bench.report.plots import points
from bench.report.tables import Notes, overhead, page_unit, sampling_error
from bench.report.text import Table

Make = Callable[..., Record]


def by_name(table: Table) -> dict[str, dict[str, str]]:
    head, body = table
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


def main(records: list[Record]) -> tuple[list[list[str]], Notes]:
    page, notes = checked(records), Notes()
    head, body = tables.main_table(page, page_unit(page), notes)
    return [head, *body], notes


def test_main_table_of_one_seed(quick_runs: list[Record]) -> None:
    rows, notes = main(quick_runs)
    assert rows == [
        ["top-1 accuracy in % at budget", "0.25 = 3.125 mJ", "0.35 = 4.375 mJ", "dense = 12.500 mJ"],
        ["Dense, as delivered", "–", "–", "92.34"],
        ["Dense, same iterations", "–", "–", "92.51"],
        ["ECC", "86.86", "89.34", "–"],
        ["NetAdapt", "85.11", "88.21", "–"],
        ["AMC", "miss¹", "86.55", "–"],
        ["Uniform", "84.02", "87.12", "–"],
    ]
    (note,) = notes.lines()
    assert note.startswith("¹ **Miss**, AMC at 0.25: keeps at least 0.2 of each layer")
    assert r"\|" in note and r"\<budget\>" in note


def test_several_seeds_are_mean_and_sample_deviation(seeded_runs: list[Record]) -> None:
    rows, notes = main(seeded_runs)
    assert rows[2:] == [
        ["ECC", "89.00 ± 1.00", "89.00 ± 1.00", "–"],
        ["NetAdapt", "88.00 ± 1.00", "88.00 ± 1.00", "–"],
    ]
    assert not notes.texts


def test_a_missed_seed_is_not_averaged_away(seeded_runs: list[Record], make_record: Make) -> None:
    missed = make_record("ecc", 0.35, 2, reason="above the budget", protocol=seeded_runs[0].protocol)
    runs = [r for r in seeded_runs if not (r.method == "ecc" and r.seed == 2 and r.budget.fraction == 0.35)]
    rows, notes = main([*runs, missed])
    assert rows[2][1] == "88.50 ± 0.71¹"
    assert notes.lines() == [
        "¹ **Miss**, ECC at 0.35: seed 2: above the budget. The figure is of the other 2 runs only."
    ]


def test_seeds_that_were_not_run_are_told(seeded_runs: list[Record]) -> None:
    runs = [r for r in seeded_runs if not (r.method == "netadapt" and r.seed == 1)]
    rows, notes = main(runs)
    assert rows[3] == ["NetAdapt", "88.00 ± 1.41¹", "88.00 ± 1.41¹", "–"]
    assert notes.lines() == ["¹ Not run with all seeds of this page; ran with 0, 2."]


def test_figures_of_a_budget(quick_runs: list[Record]) -> None:
    page, notes = checked(quick_runs), Notes()
    rows = by_name(tables.figures_table(page, "0.25", page_unit(page), notes))
    assert rows["NetAdapt"] == {
        "before, %": "80.11",
        "after, %": "85.11",
        "estimated mJ": "3.109",
        "unused, %": "0.50",
        "simulated mJ": "3.166",
        "to budget, %": "+1.30 ▲",
        "parameters": "54,321",
        "MACs": "1,234,567",
    }
    assert rows["ECC"]["to budget, %"] == "−1.00"
    assert set(rows["AMC (miss)¹"].values()) == {"–"}


def test_one_seed_above_the_budget_is_marked_in_the_mean(make_record: Make) -> None:
    page = checked([make_record(seed=0, reading_share=0.99), make_record(seed=1, reading_share=1.002)])
    rows = by_name(tables.figures_table(page, "0.35", page_unit(page), Notes()))
    assert rows["ECC"]["to budget, %"] == "−0.40 ▲"
    assert rows["ECC"]["simulated mJ"] == "4.357 ± 0.037"


def test_measured_joules_are_called_measured(make_record: Make) -> None:
    platform = make_record().platform.model_copy(update={"source": "measured", "meter": "nvml"})
    page = checked([make_record(platform=platform)])
    head, _ = tables.figures_table(page, "0.35", page_unit(page), Notes())
    assert "measured mJ" in head and not any("simulated" in column for column in head)


def test_cost_and_its_misses(quick_runs: list[Record]) -> None:
    page = checked(quick_runs)
    rows = by_name(tables.cost_table(page, "0.25", Notes()))
    assert rows["ECC"] == {
        "iterations": "800",
        "fine-tuning": "300",
        "search images": "0",
        "Ê queries": "1,600",
        "readings": "1",
        "method, s": "55.0",
        "fine-tuning, s": "12.0",
        "overhead": "1.10",  # 55 / (800 * 0.0625)
    }
    assert rows["AMC (miss)¹"]["overhead"] == "0.92"  # 55 / (50 + 50,000 * 0.0002)
    assert list(by_name(tables.cost_table(page, "dense", Notes()))) == ["Dense"]


def test_overhead_weighs_runs_by_their_seconds(make_record: Make) -> None:
    run = make_record()
    slow = make_record(seed=1, cost=run.cost.model_copy(update={"method_s": 95.0}))
    assert overhead(checked([run, slow])) == "1.50"  # 150 / 100
    free = run.cost.model_copy(update={"training_iterations": 0})
    assert overhead(checked([make_record(cost=free)])) == "–"
    assert overhead(checked([make_record(cost=None)])) == "–"


def test_unequal_iterations_are_seen(make_record: Make) -> None:
    fewer = make_record(seed=1, cost=make_record().cost.model_copy(update={"training_iterations": 799}))
    rows = by_name(tables.cost_table(checked([make_record(), fewer]), "0.35", Notes()))
    assert rows["ECC"]["iterations"] == "799–800"


def test_dense_control_as_delivered_and_retrained(quick_runs: list[Record], make_record: Make) -> None:
    page = checked(quick_runs)
    rows = by_name(tables.dense_table(page, page_unit(page), Notes()))
    assert {name: row["top-1 accuracy, %"] for name, row in rows.items()} == {
        "as delivered": "92.34",
        "after the same iterations": "87.51",
        "and the same fine-tuning": "92.51",
    }
    assert rows["as delivered"]["estimated mJ"] == "12.325" and rows["as delivered"]["simulated mJ"] == "12.500"
    alone = checked([make_record()])
    assert list(by_name(tables.dense_table(alone, page_unit(alone), Notes()))) == ["as delivered"]


def test_every_run_and_every_width_is_listed(seeded_runs: list[Record]) -> None:
    page = checked(seeded_runs)
    _, body = tables.runs_table(page, page_unit(page), Notes())
    assert len(body) == len(seeded_runs)
    assert body[1][:5] == ["ECC", "0.35", "1", "84.00", "89.00"]
    _, widths = tables.widths_table(page)
    assert len(widths) == 1 + len(seeded_runs)
    assert widths[1][3] == " ".join(map(str, page["measures.widths"].iloc[0]))


def test_sampling_error_is_that_of_a_binomial(make_record: Make) -> None:
    low, high = sampling_error(checked([make_record(after=0.75)]))
    assert high == pytest.approx(math.sqrt(0.75 * 0.25 / 10_000))
    assert low == pytest.approx(math.sqrt(0.9234 * 0.0766 / 10_000))
    assert sampling_error(checked([make_record(dataset="unknown")])) is None


def test_figures_that_are_no_numbers_become_dashes(make_record: Make) -> None:
    measures = make_record().measures.model_copy(update={"accuracy_after": math.nan, "estimate": math.inf})
    rows, _ = main([make_record(measures=measures)])
    assert rows[-1] == ["ECC", "–", "–"]


def test_a_miss_that_knows_its_figures_shows_them_but_is_no_result(make_record: Make) -> None:
    missed = make_record("amc", reason="above the budget", measures=make_record(reading_share=1.2).measures)
    records = [make_record("ecc"), missed]
    rows, _ = main(records)
    assert rows[-1] == ["AMC", "miss¹", "–"]
    page = checked(records)
    assert by_name(tables.figures_table(page, "0.35", page_unit(page), Notes()))["AMC (miss)¹"]["to budget, %"] == (
        "+20.00 ▲"
    )
    assert list(points(page, page_unit(page))["method"]) == ["ecc"]

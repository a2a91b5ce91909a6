"""The page's ranking shows what bench.rank computes; a page that can't be ranked says why and shows no rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench import rank
from bench.record.model import Record
from bench.report import ranks
from bench.report.frame import checked
from bench.report.tables import page_unit
from tests.bench.report.test_report_near import rows

Make = Callable[..., Record]
# accuracy at the budgets 0.35 and 0.25 by method; noise of the seeds is common to all but for a little
PLANTED = {"ecc": (0.90, 0.88), "netadapt": (0.89, 0.87), "uniform-gradual": (0.88, 0.86), "amc": (0.88, 0.86)}
COMMON = (0.0, 0.004, -0.004, 0.002, -0.002, 0.001)
OWN = {"ecc": (1, -1, 0, 1, -1, 0), "netadapt": (0, 1, -1, 1, 0, -1), "amc": (-1, 1, 1, -1, 0, 0)}


@pytest.fixture
def planted(make_record: Make) -> Callable[..., list[Record]]:
    protocol = replace(make_record().protocol, name="standard", ranks=True)

    def make(seeds: int = 6, methods: dict[str, tuple[float, float]] = PLANTED, **changes: object) -> list[Record]:
        runs = []
        for method, levels in methods.items():
            for seed in range(seeds):
                noise = COMMON[seed] + 0.0005 * OWN.get(method, (0,) * 6)[seed]
                for fraction, level in zip((0.35, 0.25), levels, strict=True):
                    runs.append(make_record(method, fraction, seed, after=level + noise, protocol=protocol, **changes))
        return runs

    return make


def section(records: list[Record]) -> str:
    page = checked(records)
    text = ranks.section(page, page_unit(page))
    assert text is not None
    return text


def tables(text: str) -> list[list[list[str]]]:
    """The rows of each table, without heads and rules."""
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    return [rows(block)[2:] for block in blocks]


def test_the_planted_order_comes_out(planted: Callable[..., list[Record]]) -> None:
    text = section(planted())
    order, at, needed = tables(text)
    assert [row[0] for row in order][:2] == ["ECC", "NetAdapt"] and [row[1] for row in order] == ["1", "2", "3", "3"]
    assert "smallest difference that this page can resolve" in text and "No ranks" not in text
    frame = rank(checked(planted())).set_index("method")
    ecc = order[0]
    assert ecc[2] == "6" and ecc[3] == f"{100 * frame.loc['ecc', 'mean']:.2f}"
    assert ecc[5] == f"+{100 * frame.loc['ecc', 'difference']:.2f}" and ecc[9] == "100 %"
    assert ecc[8] == "0.031" and "can't be below 0.031" in text  # 2^-5
    assert [row[5] for row in order if row[0] == "uniform-gradual"] == ["–"]
    # readings are 0.99 of the budgets: at the tighter budget accuracy has risen by 2 points times 0.0025 / 0.099
    assert [cell.split(" ± ")[0] for cell in at[0]] == ["ECC", "88.07", "90.02"]
    assert needed[0][0] == "ECC"


def test_too_few_seeds_have_differences_and_no_rank(planted: Callable[..., list[Record]]) -> None:
    text = section(planted(4))
    (order, *_) = tables(text)
    assert "**No ranks:** ranks need 5 seeds that all methods have, got 4." in text
    assert {row[1] for row in order} == {"–"} and order[0][5].startswith("+2.0")


def test_two_seeds_have_no_section(planted: Callable[..., list[Record]]) -> None:
    page = checked(planted(2))
    assert ranks.section(page, page_unit(page)) is None


def test_a_miss_is_listed_below_with_its_reason(planted: Callable[..., list[Record]], make_record: Make) -> None:
    runs = planted()
    missed = next(run for run in runs if (run.method, run.seed) == ("amc", 3))
    lost = make_record("amc", 0.35, 3, reason="keeps *too* much", protocol=missed.protocol)
    text = section([run if run is not missed else lost for run in runs])
    assert "Not compared:" in text and r"- **AMC**: missed: seed 3 at 0.35: keeps \*too\* much." in text
    assert "AMC" not in [row[0] for row in tables(text)[0]]


def test_a_page_of_misses_alone_has_a_reason(planted: Callable[..., list[Record]], make_record: Make) -> None:
    text = section(
        [
            make_record(run.method, run.budget.fraction, run.seed, reason="no", protocol=run.protocol)
            for run in planted()
            if run.budget is not None
        ]
    )
    assert text.startswith("**No ranks:** every method missed a budget.") and "|" not in text.split("Not compared")[0]


def test_budgets_without_common_joules(planted: Callable[..., list[Record]]) -> None:
    runs = planted(methods={"ecc": (0.9, 0.88)}) + planted(methods={"uniform-gradual": (0.8, 0.7)}, reading_share=2.0)
    text = section(runs)
    assert "no range in common" in text and not tables(text)


def test_methods_of_weights_have_no_part_in_the_ranking(
    planted: Callable[..., list[Record]], make_record: Make
) -> None:
    runs = planted()
    protocol = runs[0].protocol
    weights = [make_record("wsp-weights", 0.9, seed, granularity="weights", protocol=protocol) for seed in range(6)]
    alone, beside = (rank(checked(records)) for records in (runs, [*runs, *weights]))
    assert "wsp-weights" not in set(beside["method"])
    assert alone.drop(columns="page").equals(beside.drop(columns="page"))

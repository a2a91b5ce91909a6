"""What a page says of landing: each share of it counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.record.model import Record
from bench.report import checked
from bench.report.landing import section
from bench.report.text import Unit
from tests.bench.report.conftest import read_at

Make = Callable[..., Record]
BUDGET_S, DENSE_S = 0.4e-3, 1e-3


def run(
    make_record: Make,
    method: str,
    *,
    compressed: float,
    landed: float,
    final: float,
    drift: float = 1.1,
    flags: Sequence[str] = (),
) -> Record:
    """A run on hardware whose network reads these shares of its budget; the machine drifted."""
    base = make_record(method)
    assert base.measures is not None and base.budget is not None and base.landing is not None
    last = read_at(
        final * BUDGET_S,
        half=0.02,
        flags=tuple(flags),
        reference=drift * DENSE_S,
        detail={"amount": drift * final * BUDGET_S, "ended": "target"},
    )
    measures = {"reading": last.amount, **{name: getattr(last, name) for name in last.model_dump() if name != "amount"}}
    landing = {
        "estimate": 0.99 * BUDGET_S,
        "before": read_at(compressed * BUDGET_S, half=0.01),
        "after": read_at(landed * BUDGET_S, half=0.01),
        "removed_channels": 7 if landed < compressed else 0,
        "search_accuracy_before": 0.9,
        "search_accuracy_after": 0.8,
    }
    budget = {"fraction": BUDGET_S / DENSE_S, "amount": BUDGET_S, "dense_reading": DENSE_S, "dense_estimate": DENSE_S}
    platform = {"name": "cpu", "source": "measured", "unit": "s", "meter": "clock", "host": "a processor"}
    return base.model_copy(
        update={
            "measures": base.measures.model_copy(update=measures),
            "landing": base.landing.model_copy(update=landing),
            "budget": base.budget.model_copy(update=budget),
            "platform": base.platform.model_copy(update=platform),
        }
    )


def parts(*records: Record) -> tuple[str, list[str]]:
    """The section on one line, and the rows of its table."""
    text = section(checked(records), Unit("µs", 1e-6, 2))
    assert text is not None
    return " ".join(text.split()), [line for line in text.splitlines() if line.startswith("|")]


def cells(rows: list[str], method: str) -> list[str]:
    (row,) = (row for row in rows if row.startswith(f"| {method}"))
    return [cell.strip() for cell in row.split("|")[1:-1]]


def test_hardware(make_record: Make) -> None:
    """Two of three were cut further; one of three is above in the end, and two are by their bare amounts."""
    text, rows = parts(
        run(make_record, "ecc", compressed=1.05, landed=0.98, final=0.97),
        run(make_record, "netadapt", compressed=1.10, landed=0.90, final=0.90, flags=["throttled", "late"]),
        run(make_record, "amc", compressed=0.98, landed=0.98, final=1.0094, flags=["late"]),
    )
    assert "**Cut further: 2 of 3 networks. Within budget after landing: 3 of 3.**" in text
    assert "1 of 3 are above (▲).** One reading differs from another, here by −1.0 % to +3.0 %." in text
    assert "was +10.0 % off the reading that the fractions refer to" in text
    assert "Without the correction for that drift, 1 of 3 networks are within" in text
    assert "The sensor noted: late (2 networks); throttled (1 network)." in text
    assert "least important per second first" in text and "interval crossed it" in text
    assert cells(rows, "ECC") == (
        ["ECC", "0.4", "−1.00", "+5.00", "7", "90.00", "80.00", "−2.00", "−3.00", "2.00", "target"]
    )
    assert cells(rows, "AMC")[-3] == "+0.94 ▲"


def test_an_interval_that_crosses_the_budget_is_not_within(make_record: Make) -> None:
    text, _ = parts(run(make_record, "ecc", compressed=0.995, landed=0.995, final=0.9))
    assert "Within budget after landing: 0 of 1." in text


def test_simulated_pages(make_record: Make) -> None:
    """Nothing is said of intervals, drift and final readings, which a simulation doesn't have."""
    text, rows = parts(make_record("ecc", reading_share=0.97), make_record("amc", reading_share=1.0))
    assert "**Cut further: 0 of 2 networks. Within budget after landing: 2 of 2.**" in text
    assert "interval" not in text and "drift" not in text and "final reading" not in text
    assert cells(rows, "ECC") == ["ECC", "0.35", "−0.50", "−3.00", "0", "82.00", "82.00", "−3.00"]


def test_a_cell_is_a_mean_over_seeds(make_record: Make) -> None:
    _, rows = parts(*(make_record("ecc", seed=seed, reading_share=share) for seed, share in ((0, 0.97), (1, 0.99))))
    assert cells(rows, "ECC")[-1] == "−2.00"


def test_pages_without_a_landing_have_no_section(make_record: Make) -> None:
    assert section(checked([make_record("dense", None), make_record(reason="gave up")]), Unit("mJ", 1e-3, 2)) is None

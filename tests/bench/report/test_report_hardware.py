"""What a page says of readings on hardware: each share of it counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.record import FirstPass, Record, Repair
from bench.report import checked
from bench.report.hardware import section
from bench.report.text import Unit

Make = Callable[..., Record]
BUDGET_S, DENSE_S = 0.4e-3, 1e-3


def run(
    make_record: Make,
    method: str,
    *,
    reading: float,
    first: float | None = None,
    repaired: bool = False,
    drift: float = 1.1,
    flags: Sequence[str] = (),
) -> Record:
    """A run whose network takes `reading` of its budget, before a repair `first` of it; the machine drifted."""
    base = make_record(method)
    assert base.measures is not None and base.budget is not None
    measures = base.measures.model_copy(
        update={
            "estimate": 0.99 * BUDGET_S,
            "reading": reading * BUDGET_S,
            "interval": (0.98 * reading * BUDGET_S, 1.02 * reading * BUDGET_S),
            "flags": tuple(flags),
            "detail": {"amount": drift * reading * BUDGET_S, "ended": "target"},
        }
    )
    repair = Repair(
        widths=measures.widths,
        estimate=0.95 * BUDGET_S,
        reading=(first or 0.0) * BUDGET_S,
        accuracy_after=0.9,
        removed_channels=7,
    )
    budget = {"fraction": BUDGET_S / DENSE_S, "amount": BUDGET_S, "dense_reading": DENSE_S, "dense_estimate": DENSE_S}
    platform = {"name": "cpu", "source": "measured", "unit": "s", "meter": "clock", "host": "a processor"}
    return base.model_copy(
        update={
            "measures": measures,
            "budget": base.budget.model_copy(update=budget),
            "platform": base.platform.model_copy(update=platform),
            "repair": repair if repaired else None,
            "first_pass": None if first is None else FirstPass(reading=first * BUDGET_S, dense=DENSE_S),
            "dense_again": drift * DENSE_S,
        }
    )


def said(*records: Record) -> tuple[str, str]:
    """The section's text, and its table."""
    found = section(checked(records), Unit("µs", 1e-6, 2))
    assert found is not None
    text, _, table = found.rpartition("\n\n")
    return text, table


def test_without_repair(make_record: Make) -> None:
    """Two of three within; with a drift of a tenth, one."""
    runs = [run(make_record, name, reading=of) for name, of in (("ecc", 0.9), ("netadapt", 0.95), ("amc", 1.03))]
    text, table = said(*runs)
    assert "**Within the budget by reading: 2 of 3**." in text and "after repair" not in text
    assert "was +10.0 % off the reading that the fractions refer to" in text
    assert "by their bare amounts, 1 of 3 networks are within" in text
    assert "Before repair" not in text and "The sensor noted" not in text
    (row,) = (line for line in table.splitlines() if line.startswith("| AMC"))
    # estimate 0.99 of the budget, reading 1.03 of it; the interval is 2 % to each side
    assert [cell.strip() for cell in row.split("|")[1:-1]] == (
        ["AMC", "0.4", "0", "−1.00", "+4.04", "+3.00 ▲", "2.00", "target", "+3.00", "–", "–"]
    )


def test_after_repair(make_record: Make) -> None:
    """Two were above and are within; of two left alone the passes differ by 1 % to either side."""
    text, table = said(
        run(make_record, "ecc", first=1.045, reading=0.98, repaired=True),
        run(make_record, "netadapt", first=1.14, reading=0.9, repaired=True, drift=1.2),
        run(make_record, "amc", first=0.9, reading=0.909, drift=1.2),
        run(make_record, "uniform", first=0.9, reading=0.891),
    )
    assert "by reading: 2 of 4**; **after repair, all of them read anew: 4 of 4**" in text
    assert "least important per second first" in text
    assert "the estimates of those above their budgets were −5.0 % off the budgets" in text  # 0.95 of it, both
    assert "their readings +10.0 % to +20.0 % off the estimates" in text  # 1.045 / 0.95, 1.14 / 0.95
    assert "not cut on (2), read anew with the others, came out −1.0 % to +1.0 % off their first readings" in text
    assert "was +10.0 % to +20.0 % off the reading" in text
    (row,) = (line for line in table.splitlines() if line.startswith("| ECC"))
    assert [cell.strip() for cell in row.split("|")[6:-1]] == ["−2.00", "2.00", "target", "+4.50", "7", "90.00"]


def test_flags_are_counted(make_record: Make) -> None:
    text, _ = said(
        run(make_record, "ecc", reading=0.9, flags=["throttled: heat", "late samples"]),
        run(make_record, "amc", reading=0.9, flags=["late samples"]),
    )
    assert text.endswith("The sensor noted: late samples (2 networks); throttled: heat (1 network).")


def test_simulated_pages_have_none(make_record: Make) -> None:
    assert section(checked([make_record()]), Unit("mJ", 1e-3, 2)) is None

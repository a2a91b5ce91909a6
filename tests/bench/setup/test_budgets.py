"""Budgets as text: every unit of both metrics, ranges and their ends, and others where the offered ones don't fit."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.setup import protocols
from bench.setup.budgets import Budget, Reach, budget_text, distinct, reachable
from shared.errors import BadInput

DENSE = 0.02  # J or s per image
METRICS = ["energy", "latency"]
UNITS = {"energy": "J", "latency": "s"}
MICRO, MU = "\u00b5", "\u03bc"  # the micro sign and the Greek letter
POWERS = {"n": -9, "u": -6, MICRO: -6, MU: -6, "m": -3, "": 0}


def reach(floor: float = 0.002, top: float = 0.019, unit: str = "J", dense: float = DENSE) -> Reach:
    """`top` is Ê(dense); all in the unit."""
    return Reach(floor, dense, top, unit)


def parsed(text: str, metric: str = "energy", **changes: float) -> Budget:
    assert budget_text(metric)(text) == text
    (budget,) = distinct((text,), reach(unit=UNITS[metric], **changes))  # type: ignore[arg-type]
    return budget


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("text", ["0.6", ".6", "+0.6", "0.600", "6e-1", "6E-1"])
def test_a_bare_number_is_a_fraction_of_the_dense_reading_in_both_metrics(metric: str, text: str) -> None:
    budget = parsed(text, metric)
    assert (budget.fraction, budget.amount) == pytest.approx((0.6, 0.012))
    assert budget.name == "0.6"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "text",
    ["12000000n", "12000u", f"12e3{MICRO}", f"12e3 {MU}", "12m", "12. m", "0.012", "1.2e-2 ", ".012", "+.012"],
)
def test_an_amount_is_taken_in_its_unit(metric: str, text: str) -> None:
    budget = parsed(text + UNITS[metric], metric)
    assert (budget.fraction, budget.amount) == pytest.approx((0.6, 0.012))


@given(st.floats(1e-9, 1e3), st.sampled_from(METRICS), st.sampled_from(list(POWERS)), st.sampled_from(["", " "]))
def test_any_amount_in_any_unit_reads_back(amount: float, metric: str, prefix: str, space: str) -> None:
    dense, number = 1.5 * amount, amount / 10.0 ** POWERS[prefix]
    budget = parsed(f"{number!r}{space}{prefix}{UNITS[metric]}", metric, floor=amount / 2, top=dense, dense=dense)
    assert budget.amount == pytest.approx(amount, rel=1e-12)
    assert budget.fraction * dense == pytest.approx(amount, rel=1e-12)


@given(
    st.floats(1e-6, 1e3),
    st.floats(0.01, 0.9),
    st.floats(0.92, 1.2),
    st.sampled_from(METRICS),
)
def test_the_ends_of_the_printed_range_can_be_asked_for(dense: float, low: float, high: float, metric: str) -> None:
    """Rounding to nearest would go outwards half of the time."""
    place = reach(low * dense, high * dense, UNITS[metric], dense)
    number, unit = r"([\d.e+-]+)", UNITS[metric]
    found = re.fullmatch(
        f"{number} {unit} to below {number} {unit} per image, fractions {number} to below {number}", str(place)
    )
    assert found is not None
    lowest, highest, least, most = map(float, found.groups())
    assert lowest == pytest.approx(low * dense, rel=1e-3) and highest == pytest.approx(place.top, rel=1e-3)
    below = 1 - 1e-12  # of what is not in the range itself
    for text in (f"{lowest!r}{unit}", f"{highest * below!r}{unit}", f"{least!r}", f"{most * below!r}"):
        assert place.holds(distinct((text,), place)[0].amount)


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_budgets_lie_below_the_dense_network_by_model_and_by_reading(reading: float, estimate: float) -> None:
    place = Reach(1e-9, reading, estimate, "J")
    least = min(reading, estimate)
    assert place.top == least and not place.holds(least) and place.holds(math.nextafter(least, 0))


@pytest.mark.parametrize(
    ("metric", "text", "other"),
    [
        ("energy", "12ms", "latency"),
        ("energy", "12ns", "latency"),
        ("energy", f"12 {MICRO}s", "latency"),
        ("energy", "0.012s", "latency"),
        ("latency", "0.012J", "energy"),
        ("latency", "12mJ", "energy"),
        ("latency", f"12{MU}J", "energy"),
    ],
)
def test_a_unit_of_the_other_metric_names_that_metric(metric: str, text: str, other: str) -> None:
    with pytest.raises(BadInput) as caught:
        budget_text(metric)(text)
    message = str(caught.value)
    assert f"a budget for --metric {metric} " in message and repr(text) in message and "\n" not in message
    assert f"try --metric {other}, or --budgets" in message


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "J",
        "ms",
        "much",
        "0",
        "-0.5",
        "0J",
        "0ms",
        "-3 s",
        "nan",
        "nanJ",
        "infs",
        "1e999",
        "5kJ",
        "5pJ",
        "0x1",
        "1_0",
    ],
)
def test_what_is_no_positive_number_is_refused_with_an_example(metric: str, text: str) -> None:
    with pytest.raises(BadInput) as caught:
        budget_text(metric)(text)
    units, example = {"energy": ("J, mJ, uJ, nJ", "24.7mJ"), "latency": ("s, ms, us, ns", "3.2ms")}[metric]
    message = str(caught.value)
    assert "expected a positive budget, a fraction of dense or in " + units in message
    assert f"got {text!r}; try --budgets" in message and example in message


def test_budgets_of_an_unknown_metric_are_refused() -> None:
    with pytest.raises(BadInput, match="--metric energy or latency or macs or size, got 'power'"):
        budget_text("power")


@pytest.mark.parametrize(("metric", "unit"), [("energy", "J"), ("latency", "s")])
def test_the_floor_can_be_asked_for_and_the_top_can_not(metric: str, unit: str) -> None:
    lowest, below_top = 0.002, math.nextafter(0.019, 0)
    assert parsed(f"{lowest!r}{unit}", metric).amount == lowest
    assert parsed(f"{below_top!r}{unit}", metric).amount == below_top
    for amount, side in [
        (0.019, "not below the dense network"),
        (DENSE, "not below the dense network"),
        (math.nextafter(0.002, 0), "below what the network can reach"),
    ]:
        with pytest.raises(BadInput, match=rf"\(0\.002001 {unit} to below 0\.01899 .*, got .* {unit}, {side}; try"):
            parsed(f"{amount!r}{unit}", metric)


def test_one_budget_in_several_spellings_counts_once_in_the_order_asked_for() -> None:
    found = distinct(("0.6", "0.3", ".60", "12ms", "6000us"), reach(unit="s"))
    assert [budget.name for budget in found] == ["0.6", "0.3"]
    with pytest.raises(BadInput, match="differ in six digits"):
        distinct(("0.6", "0.60000001"), reach())
    assert len(distinct(("0.6", "0.600001"), reach())) == 2


def test_offers_are_taken_where_all_their_budgets_can_be_reached() -> None:
    assert reachable([("0.5", "0.35", "0.1")], reach()) == ("0.5", "0.35", "0.1")  # the last one is the floor itself
    assert reachable([("12mJ", "0.05"), ("12mJ", "0.2")], reach()) == ("12mJ", "0.2")
    assert reachable([("12mJ", "0.3"), ("0.6", "0.2")], reach()) == ("12mJ", "0.3")


@pytest.mark.parametrize(
    ("floor", "top", "offer", "expected"),
    [
        (0.004, 0.016, ("0.5", "0.1"), ("0.6", "0.4")),  # 0.2 to 0.8; 0.1 is below
        (0.004, 0.016, ("0.8", "0.5"), ("0.6", "0.4")),  # the top itself can't be asked for
        (0.0, 0.016, ("0.9", "0.8", "0.7"), ("0.6", "0.4", "0.2")),
        (0.0156, 0.0164, ("0.5",), ("0.8",)),
        (0.01901, 0.01915, ("0.5", "0.4"), ("0.955", "0.953")),  # 0.9505 to 0.9575, which two decimals would leave
    ],
)
def test_budgets_are_spread_over_what_can_be_reached_where_one_can_not(
    floor: float, top: float, offer: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert reachable([offer], reach(floor, top)) == expected


@pytest.mark.parametrize(
    ("dataset", "dense", "top", "expected"),
    [
        ("cityscapes", 1.9708, 1.97, ("1.6519J", "1.5238J", "1.4451J", "1.3843J")),  # Table 2
        ("garment-scenes", 1.9708, 1.97, ("0.8382", "0.7732", "0.7333", "0.7024")),  # its shares of the paper's dense
        ("cityscapes", 1.5, 1.49, ("0.8382", "0.7732", "0.7333", "0.7024")),  # a platform that takes fewer joules
        ("cityscapes", 1.9708, 1.5, ("0.66", "0.56", "0.46", "0.36")),  # 0.2537 to 0.7611, which no list lies in
    ],
)
def test_budgets_of_paper_are_its_joules_where_they_mean_something(
    dataset: str, dense: float, top: float, expected: tuple[str, ...]
) -> None:
    offers = protocols.energy_budgets(protocols.get("paper", "erfnet"), "erfnet", dataset, "1080ti")
    place = reach(0.5, top, dense=dense)
    assert reachable(offers, place) == expected
    assert len(distinct(expected, place)) == 4


@given(st.floats(0.0, 0.99), st.floats(1e-4, 0.9), st.integers(1, 6))
def test_spread_budgets_are_distinct_and_in_the_range_however_narrow(low: float, width: float, count: int) -> None:
    high = min(low + width, 1.0)
    if high - low < 1e-4:
        low = high - 1e-4
    place = reach(low * DENSE, high * DENSE)
    budgets = distinct(reachable([("2.0",) * count], place), place)  # raises where one is outside
    fractions = [budget.fraction for budget in budgets]
    step = (high - low) / (count + 1)
    assert len(fractions) == count and fractions == sorted(fractions, reverse=True)
    for found, k in zip(fractions, range(count, 0, -1), strict=True):
        assert abs(found - (low + k * step)) <= max(0.5 * step, 1e-9) * (1 + 1e-6)
        assert abs(found - (low + k * step)) <= 0.005 * (1 + 1e-6)


def test_where_nothing_can_be_reached_every_budget_is_refused_in_one_line() -> None:
    nothing = reach(floor=0.03, top=0.019)
    with pytest.raises(BadInput, match="within the reachable range"):
        distinct(reachable([("0.5",)], nothing), nothing)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1.2MMACs", 1.2e6), ("1.2 MMAC", 1.2e6), ("900kMACs", 9e5), ("0.5", 2e6), ("0.002GMAC", 2e6), ("7e5MACs", 7e5)],
)
def test_multiply_adds_in_the_units_that_tables_print_and_people_type(text: str, amount: float) -> None:
    counts = Reach(floor=1e5, dense_reading=4e6, dense_estimate=4e6, unit="MAC")
    (budget,) = distinct((budget_text("macs")(text),), counts)
    assert budget.amount == pytest.approx(amount)
    with pytest.raises(BadInput, match="try --metric macs, or --budgets"):
        budget_text("energy")("3MMACs")

"""Budgets as text: every unit of both metrics, ranges and their ends, and defaults where the protocol's don't fit."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import protocols
from bench.budgets import Budget, budget_text, default_budgets, distinct
from shared.errors import BadInput

DENSE = 0.02  # J or s per image


def ground(
    floor: float = 0.002,
    top: float = 0.019,
    unit: str = "J",
    fractions: tuple[float, ...] = (0.5,),
    dense: float = DENSE,
    protocol: Any = None,
    network: str = "mobilenet",
    dataset: str = "fashion-mnist",
    platform: str = "1080ti",
) -> Any:
    """What budgets need to know of a platform and a protocol; `floor` and `top` in the unit."""
    return SimpleNamespace(
        floor=floor,
        top=top,
        unit=unit,
        dense_reading=dense,
        reachable=f"{floor:.4g} {unit} to below {top:.4g} {unit}",
        protocol=protocol or SimpleNamespace(name="quick", budgets=fractions),
        workload=SimpleNamespace(network=network, dataset=dataset),
        platform=SimpleNamespace(name=platform),
    )


def parsed(text: str, metric: str = "energy", **changes: Any) -> Budget:
    assert budget_text(metric)(text) == text
    (budget,) = distinct((text,), ground(unit={"energy": "J", "latency": "s"}[metric], **changes))
    return budget


@pytest.mark.parametrize("metric", ["energy", "latency"])
@pytest.mark.parametrize("text", ["0.6", ".6", "+0.6", "0.600", "6e-1", "6E-1"])
def test_a_bare_number_is_a_fraction_of_the_dense_reading_in_both_metrics(metric: str, text: str) -> None:
    budget = parsed(text, metric)
    assert (budget.fraction, budget.amount) == pytest.approx((0.6, 0.012))
    assert budget.name == "0.6"


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("energy", "0.012J"),
        ("energy", "1.2e-2 J"),
        ("latency", "12ms"),
        ("latency", "12. ms"),
        ("latency", "12000us"),
        ("latency", "12e3µs"),
        ("latency", "0.012s"),
        ("latency", ".012 s"),
    ],
)
def test_an_amount_is_taken_in_its_unit(metric: str, text: str) -> None:
    budget = parsed(text, metric)
    assert (budget.fraction, budget.amount) == pytest.approx((0.6, 0.012))


@given(st.floats(1e-7, 1e3), st.sampled_from([("energy", "J", 0), ("latency", "us", 6), ("latency", "ms", 3)]))
def test_any_amount_reads_back(amount: float, unit: tuple[str, str, int]) -> None:
    metric, symbol, places = unit
    dense = 1.5 * amount
    budget = parsed(f"{amount * 10**places!r}{symbol}", metric, floor=amount / 2, top=dense, dense=dense)
    assert budget.amount == pytest.approx(amount, rel=1e-12)
    assert budget.fraction * dense == pytest.approx(amount, rel=1e-12)


@pytest.mark.parametrize(
    ("metric", "text", "other"),
    [
        ("energy", "12ms", "latency"),
        ("energy", "12us", "latency"),
        ("energy", "12 µs", "latency"),
        ("energy", "0.012s", "latency"),
        ("latency", "0.012J", "energy"),
    ],
)
def test_a_unit_of_the_other_metric_names_that_metric(metric: str, text: str, other: str) -> None:
    with pytest.raises(BadInput) as caught:
        budget_text(metric)(text)
    message = str(caught.value)
    assert f"a budget for --metric {metric} " in message and repr(text) in message and "\n" not in message
    assert f"try --metric {other}, or --budgets" in message


@pytest.mark.parametrize("metric", ["energy", "latency"])
@pytest.mark.parametrize(
    "text",
    ["", "J", "ms", "much", "0", "-0.5", "0J", "0ms", "-3 s", "nan", "nanJ", "infs", "1e999", "5kJ", "0x1", "1_0"],
)
def test_what_is_no_positive_number_is_refused_with_an_example(metric: str, text: str) -> None:
    with pytest.raises(BadInput) as caught:
        budget_text(metric)(text)
    units, example = {"energy": ("in J,", "0.0247J"), "latency": ("in us or µs or ms or s,", "3.2ms")}[metric]
    message = str(caught.value)
    assert "a positive budget, a fraction of dense or " + units in message
    assert f"got {text!r}; try --budgets" in message and example in message


def test_budgets_of_an_unknown_metric_are_refused() -> None:
    with pytest.raises(BadInput, match="--metric energy or latency, got 'power'"):
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
        with pytest.raises(BadInput, match=rf"0\.002 {unit} to below 0\.019 {unit}\), got .* {unit}, {side}; try"):
            parsed(f"{amount!r}{unit}", metric)


def test_one_budget_in_several_spellings_counts_once_in_the_order_asked_for() -> None:
    found = distinct(("0.6", "0.3", ".60", "12ms", "6000us"), ground(unit="s"))
    assert [budget.name for budget in found] == ["0.6", "0.3"]
    with pytest.raises(BadInput, match="differ in six digits"):
        distinct(("0.6", "0.60000001"), ground())
    assert len(distinct(("0.6", "0.600001"), ground())) == 2


def test_defaults_are_the_protocol_s_where_all_of_them_can_be_reached() -> None:
    fractions = (0.5, 0.35, 0.1)  # the last one is the floor itself
    assert default_budgets(ground(fractions=fractions)) == ("0.5", "0.35", "0.1")


@pytest.mark.parametrize(
    ("floor", "top", "fractions", "expected"),
    [
        (0.004, 0.016, (0.5, 0.1), ("0.6", "0.4")),  # 0.2 to 0.8; 0.1 is below
        (0.004, 0.016, (0.8, 0.5), ("0.6", "0.4")),  # the top itself can't be asked for
        (0.0, 0.016, (0.9, 0.8, 0.7), ("0.6", "0.4", "0.2")),
        (0.0156, 0.0164, (0.5,), ("0.8",)),
        (0.01901, 0.01915, (0.5, 0.4), ("0.955", "0.953")),  # 0.9505 to 0.9575, which two decimals would leave
    ],
)
def test_defaults_are_spread_over_what_can_be_reached_where_one_can_not(
    floor: float, top: float, fractions: tuple[float, ...], expected: tuple[str, ...]
) -> None:
    assert default_budgets(ground(floor, top, fractions=fractions)) == expected


@pytest.mark.parametrize(
    ("dataset", "dense", "top", "expected"),
    [
        ("cityscapes", 1.9708, 1.97, ("1.6519J", "1.5238J", "1.4451J", "1.3843J")),  # Table 2
        ("garment-scenes", 1.9708, 1.97, ("0.8382", "0.7732", "0.7333", "0.7024")),  # its shares of the paper's dense
        ("cityscapes", 1.5, 1.49, ("0.8382", "0.7732", "0.7333", "0.7024")),  # a platform that takes fewer joules
        ("cityscapes", 1.9708, 1.5, ("0.66", "0.56", "0.46", "0.36")),  # 0.2537 to 0.7611, which no list lies in
    ],
)
def test_defaults_of_paper_are_its_joules_where_they_mean_something(
    dataset: str, dense: float, top: float, expected: tuple[str, ...]
) -> None:
    paper = protocols.get("paper", "erfnet")
    place = ground(0.5, top, dense=dense, protocol=paper, network="erfnet", dataset=dataset)
    assert default_budgets(place) == expected
    assert len(distinct(expected, place)) == 4


def test_joules_of_the_paper_are_no_budget_in_seconds() -> None:
    paper = protocols.get("paper", "erfnet")
    place = ground(0.1, 1.97, "s", dense=1.9708, protocol=paper, network="erfnet", dataset="cityscapes")
    assert default_budgets(place) == tuple(map(str, paper.budgets))


@given(st.floats(0.0, 0.99), st.floats(1e-4, 0.9), st.integers(1, 6))
def test_spread_defaults_are_distinct_and_in_the_range_however_narrow(low: float, width: float, count: int) -> None:
    high = min(low + width, 1.0)
    if high - low < 1e-4:
        low = high - 1e-4
    place = ground(low * DENSE, high * DENSE, fractions=(2.0,) * count)
    budgets = distinct(default_budgets(place), place)  # raises where one is outside
    fractions = [budget.fraction for budget in budgets]
    step = (high - low) / (count + 1)
    assert len(fractions) == count and fractions == sorted(fractions, reverse=True)
    for found, k in zip(fractions, range(count, 0, -1), strict=True):
        assert abs(found - (low + k * step)) <= max(0.5 * step, 1e-9) * (1 + 1e-6)
        assert abs(found - (low + k * step)) <= 0.005 * (1 + 1e-6)


def test_where_nothing_can_be_reached_the_defaults_are_refused_in_one_line() -> None:
    nothing = ground(floor=0.03, top=0.019)
    with pytest.raises(BadInput, match="within the reachable range"):
        distinct(default_budgets(nothing), nothing)

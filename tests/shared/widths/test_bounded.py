"""Widths within a budget, against brute force over all whole widths."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.energy import BilinearModel
from shared.errors import Infeasible
from shared.widths.bounded import BoundedWidths, lower_bounds


@st.composite
def chains(draw: st.DrawFn) -> tuple[BoundedWidths, list[float]]:
    """A random chain model with a budget that its lower bounds meet, and a ratio per unit."""
    upper = draw(st.lists(st.integers(1, 15), min_size=1, max_size=6))
    bounds = [draw(st.integers(1, 3)), *upper, draw(st.integers(1, 10))]
    shares = st.floats(0.0, 2.0).map(lambda value: round(value, 3))
    coefficients = draw(st.lists(shares, min_size=len(upper) + 1, max_size=len(upper) + 1))
    model = BilinearModel(
        torch.tensor(draw(shares), dtype=torch.float64),
        torch.tensor(coefficients, dtype=torch.float64),
        tuple((index, index + 1) for index in range(len(upper) + 1)),
        tuple(float(bound) for bound in bounds),
    )

    def energy(widths: torch.Tensor) -> torch.Tensor:
        ends = [widths.new_full((*widths.shape[:-1], 1), bounds[end]) for end in (0, -1)]
        return model(torch.cat([ends[0], widths, ends[1]], dim=-1))

    lower = lower_bounds(upper)
    least, most = (float(energy(torch.tensor(widths, dtype=torch.float64))) for widths in (lower, upper))
    # budgets at which some width fits to the last digit are the ones that rounding could spoil
    exact = [draw(st.integers(low, high)) for low, high in zip(lower, upper, strict=True)]
    budget = draw(
        st.one_of(
            st.floats(0.0, 1.1).map(lambda share: least + share * (most - least)),
            st.just(float(energy(torch.tensor(exact, dtype=torch.float64)))),
        )
    )
    ratios = draw(st.lists(st.floats(0.0, 1.0), min_size=len(upper), max_size=len(upper)))
    return BoundedWidths(energy, budget, lower=lower, upper=upper), ratios


@given(chains())
def test_no_choice_ends_above_the_budget_and_the_limit_is_the_largest_that_fits(
    case: tuple[BoundedWidths, list[float]],
) -> None:
    bounds, ratios = case
    widths: list[int] = []
    for unit, ratio in enumerate(ratios):
        later = bounds.lower[unit + 1 :]
        fitting = [
            width
            for width in range(bounds.lower[unit], bounds.upper[unit] + 1)
            if bounds.energy([*widths, width, *later]) <= bounds.budget
        ]
        assert bounds.limit(widths) == max(fitting)
        assert bounds.width(widths, 1.0) == max(fitting)
        wanted = math.floor(ratio * bounds.upper[unit] + 0.5)
        width = bounds.width(widths, ratio)
        assert width == min(fitting, key=lambda one: abs(one - wanted))
        widths.append(width)
    assert bounds.energy(widths) <= bounds.budget


@st.composite
def whole_joules(draw: st.DrawFn) -> tuple[BoundedWidths, list[float]]:
    """Small integers, exact in floats in any order, for any pairs of positions; the budget is some network's energy."""
    upper = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    lower = [draw(st.integers(1, high)) for high in upper]
    first, last, constant = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 9))
    pairs = list(itertools.combinations(range(len(upper) + 2), 2))
    terms = [(i, j, draw(st.integers(0, 4))) for i, j in draw(st.lists(st.sampled_from(pairs), unique=True))]

    def energy(widths: torch.Tensor) -> torch.Tensor:
        columns = [widths.new_tensor(first), *widths.unbind(-1), widths.new_tensor(last)]
        return sum((factor * columns[i] * columns[j] for i, j, factor in terms), constant + 0 * widths[..., 0])

    some = torch.tensor([draw(st.integers(low, high)) for low, high in zip(lower, upper, strict=True)])
    bounds = BoundedWidths(energy, float(energy(some)), lower=lower, upper=upper)
    return bounds, draw(st.lists(st.floats(0.0, 1.0), min_size=len(upper), max_size=len(upper)))


@given(whole_joules())
def test_limit_is_the_largest_width_that_leaves_any_way_into_the_budget(
    case: tuple[BoundedWidths, list[float]],
) -> None:
    bounds, ratios = case
    ranges = [range(low, high + 1) for low, high in zip(bounds.lower, bounds.upper, strict=True)]
    networks = list(itertools.product(*ranges))  # not only with later units at lower bounds
    within = torch.tensor([widths for widths in networks if bounds.energy(widths) <= bounds.budget])
    widths: list[int] = []
    for unit, ratio in enumerate(ratios):
        assert bounds.limit(widths) == int(within[:, unit].max())
        widths.append(bounds.width(widths, ratio))
        within = within[within[:, unit] == widths[unit]]
        assert len(within)  # in the end the network itself is among those within the budget


def test_limit_is_exact_where_the_energy_is_not_linear() -> None:
    bounds = BoundedWidths(lambda widths: widths.square().sum(-1), 50.0, lower=(1, 1), upper=(10, 10))
    assert bounds.limit([]) == 7  # 49 + 1
    assert bounds.limit([5]) == 5


def test_limit_is_exact_where_the_division_is_not() -> None:
    for budget, low in itertools.combinations(range(60, 0, -1), 2):  # 11 / 15 * 15 is a hair below 11
        assert BoundedWidths(lambda widths: widths[..., 0], budget, lower=(low,), upper=(99,)).limit([]) == budget
    wide = BoundedWidths(lambda widths: widths[..., 0], 50_000.5, lower=(1,), upper=(100_000,))
    assert wide.limit([]) == 50_000


def test_a_width_that_costs_nothing_is_free() -> None:
    bounds = BoundedWidths(lambda widths: widths[..., 0], 3.0, lower=(1, 1), upper=(10, 10))
    assert (bounds.limit([]), bounds.limit([3])) == (3, 10)


def test_lower_bounds_are_the_exact_ceilings() -> None:
    widths = range(1, 2000)
    assert lower_bounds(widths) == tuple(math.ceil(Fraction(1, 5) * width) for width in widths)


def test_budget_below_the_lower_bounds_is_refused_with_the_numbers() -> None:
    with pytest.raises(Infeasible, match=r"at least 4 \(.*\(2, 2\).* got 3\.5;"):
        BoundedWidths(lambda widths: widths.sum(-1), 3.5, lower=(2, 2), upper=(9, 9))
    assert BoundedWidths(lambda widths: widths.sum(-1), 4.0, lower=(2, 2), upper=(9, 9)).limit([]) == 2


@pytest.mark.parametrize("lower", [(0, 1), (3, 1), (1,)])
def test_bounds_that_do_not_fit_together_are_refused(lower: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected lower bounds"):
        BoundedWidths(lambda widths: widths.sum(-1), 9.0, lower=lower, upper=(2, 2))

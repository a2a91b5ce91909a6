"""Greedy widths against a loop that removes channel by channel, priced by differences of the estimate."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import NamedTuple

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from shared.energy import BilinearModel
from shared.errors import Infeasible
from shared.widths.greedy import cumulative_norms, greedy_widths, removals


class Case(NamedTuple):
    """Whole-number norms and a whole-number chain of terms between ends of one channel each."""

    norms: list[list[int]]  # of each unit's channels
    bounds: tuple[int, ...]  # widths to begin with, at most the channels
    constant: int
    factors: list[int]  # of the products of neighbouring widths, ends included

    def energy(self, widths: tuple[int, ...]) -> int:
        line = [1, *widths, 1]
        return self.constant + sum(f * a * b for f, a, b in zip(self.factors, line, line[1:], strict=False))

    def padded(self) -> Tensor:
        rows = torch.zeros(len(self.norms), max(map(len, self.norms)))
        for row, norms in zip(rows, self.norms, strict=True):
            row[: len(norms)] = torch.tensor(norms)
        return rows

    def model(self) -> BilinearModel:
        """The same energy; its bounds are powers of two, so that floats are exact."""
        bounds = (1.0, *(16.0 for _ in self.bounds), 1.0)
        coefficients = [f * a * b for f, a, b in zip(self.factors, bounds, bounds[1:], strict=False)]
        pairs = tuple((i, i + 1) for i in range(len(self.factors)))
        constant = torch.tensor(self.constant, dtype=torch.float64)
        return BilinearModel(constant, torch.tensor(coefficients, dtype=torch.float64), pairs, bounds)

    def greedy(self, budget: float) -> tuple[int, ...]:
        model = self.model()

        def positions(widths: Tensor) -> Tensor:
            return torch.cat([torch.ones(1), widths.double(), torch.ones(1)])

        return greedy_widths(
            self.padded(),
            self.bounds,
            lambda widths: float(model(positions(widths))),
            lambda widths: model.gradient(positions(widths))[1:-1],
            budget,
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    units = draw(st.integers(1, 4))
    # all norms differ, so that no two prices are equal but by chance
    sizes = [draw(st.integers(1, 6)) for _ in range(units)]
    flat = draw(st.lists(st.integers(1, 10**6), min_size=sum(sizes), max_size=sum(sizes), unique=True))
    norms = [[flat.pop() for _ in range(size)] for size in sizes]
    bounds = tuple(draw(st.integers(1, size)) for size in sizes)
    factors = draw(st.lists(st.integers(0, 50), min_size=units + 1, max_size=units + 1))
    return Case(norms, bounds, draw(st.integers(0, 50)), factors)


def brute_force(case: Case, budget: float) -> tuple[tuple[int, ...] | None, bool]:
    """The widths, None where they can't be had, and whether two prices were ever equal; in exact fractions."""
    alive = [sorted(norms, reverse=True)[:width] for norms, width in zip(case.norms, case.bounds, strict=True)]
    tied = False
    while case.energy(widths := tuple(map(len, alive))) > budget:
        prices = []
        for unit, channels in enumerate(alive):
            less = case.energy((*widths[:unit], widths[unit] - 1, *widths[unit + 1 :]))
            if len(channels) > 1 and less < case.energy(widths):
                prices += [(Fraction(norm, case.energy(widths) - less), unit, norm) for norm in channels]
        if not prices:
            return None, tied
        price, unit, norm = min(prices)
        tied |= sum(other == price for other, *_ in prices) > 1
        alive[unit].remove(norm)
    return widths, tied


@given(cases(), st.floats(0.0, 1.1))
def test_widths_are_those_of_removing_the_cheapest_channel_again_and_again(case: Case, share: float) -> None:
    budget = share * case.energy(case.bounds)
    expected, tied = brute_force(case, budget)
    assume(not tied)  # where two channels cost the same, either may go first
    if expected is None:
        with pytest.raises(Infeasible, match="one channel per unit"):
            case.greedy(budget)
        return
    widths = case.greedy(budget)
    assert widths == expected
    assert case.energy(widths) <= budget
    assert all(1 <= width <= bound for width, bound in zip(widths, case.bounds, strict=True))


def test_a_budget_that_is_met_to_the_last_digit_removes_no_more() -> None:
    case = Case([[3, 1, 2], [5, 4, 6]], (3, 3), 1, [2, 3, 1])
    whole = case.energy(case.bounds)
    assert case.greedy(whole) == (3, 3)
    fewer = case.greedy(whole - 1)
    assert fewer == (2, 3)  # norm 1 of the first unit goes first
    assert case.greedy(case.energy(fewer)) == fewer
    assert case.greedy(case.energy((1, 1))) == (1, 1)


def test_the_last_channels_and_what_saves_nothing_stay() -> None:
    case = Case([[2, 1], [4, 0], [3, 1, 0]], (2, 2, 3), 0, [1, 0, 0, 0])  # the first unit alone costs
    assert case.greedy(1) == (1, 2, 3)
    with pytest.raises(Infeasible, match=r"at least 1 \(one channel per unit\), got 0\.5; try more$"):
        case.greedy(0.5)


def test_savings_are_asked_anew_as_neighbours_go() -> None:
    """Energy a * b. At the dense widths a channel of either saves 3; each that goes lowers what the other's save."""
    case = Case([[10, 15, 16], [14, 22, 34]], (3, 3), 0, [0, 1, 0])
    # 10 / 3 before 14 / 3; then 15 / 3 before 14 / 2, where by the savings of before 14 / 3 would have gone
    order = [case.greedy(budget) for budget in (9, 6, 3, 2, 1)]
    assert order == [(3, 3), (2, 3), (1, 3), (1, 2), (1, 1)]


@given(cases(), st.integers(2, 4))
def test_in_multiples_each_step_is_the_cheapest_group_of_least_norms(case: Case, multiple: int) -> None:
    """Brute force over the groups, in exact fractions; energy is linear in each width alone."""
    model = case.model()
    ends = torch.ones(1)
    path = list(
        removals(
            cumulative_norms(case.padded()),
            case.bounds,
            lambda widths: model.gradient(torch.cat([ends, widths.double(), ends]))[1:-1],
            multiple,
        )
    )
    assert path[0] == case.bounds
    for widths, after in itertools.pairwise([*path, None]):
        prices: dict[tuple[int, ...], Fraction] = {}
        for unit, width in enumerate(widths):
            fewer = max(below for below in range(width) if below % multiple == 0 or width <= multiple)
            cut = (*widths[:unit], fewer, *widths[unit + 1 :])
            if fewer >= 1 and (saved := case.energy(widths) - case.energy(cut)) > 0:
                gone = sorted(case.norms[unit], reverse=True)[fewer:width]
                prices[cut] = Fraction(sum(gone), saved)
        if after is None:
            assert not prices
        else:
            assert prices[after] == min(prices.values())

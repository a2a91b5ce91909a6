"""Widths within a budget against exhaustive search over multipliers and the model itself."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.energy import BilinearModel
from shared.errors import Infeasible
from shared.networks.units import Structure, Unit
from shared.widths.uniform import largest_width, uniform_widths

bounds_lists = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def plain_structure(bounds: list[int]) -> Structure:
    units = tuple(Unit(index, f"layer{index}", bound, ()) for index, bound in enumerate(bounds))
    return Structure(units, (), image_channels=3, outputs=10)


def random_model(structure: Structure, seed: int) -> BilinearModel:
    draw = torch.Generator().manual_seed(seed)
    bounds = structure.position_bounds
    coefficients = torch.rand(len(bounds) - 1, generator=draw, dtype=torch.float64)
    terms = tuple((j, j + 1) for j in range(len(bounds) - 1))
    return BilinearModel(torch.tensor(0.2, dtype=torch.float64), coefficients, terms, tuple(map(float, bounds)))


@settings(deadline=None, max_examples=60)
@given(bounds=bounds_lists, seed=st.integers(0, 1000), fraction=st.floats(0.01, 1.2))
def test_uniform_widths_are_those_of_the_largest_multiplier(bounds: list[int], seed: int, fraction: float) -> None:
    structure = plain_structure(bounds)
    model = random_model(structure, seed)
    budget = fraction * float(model(structure.positions(structure.upper_bounds)))
    # oracle: every multiplier at which some width turns, in exact integers: round(c m) with m = k / (2 * lcm)
    steps = 2 * math.lcm(*bounds)
    turns = sorted({(2 * k + 1) * steps // (2 * bound) for bound in bounds for k in range(bound)} | {0, steps})
    allowed = []
    for turn in turns:
        widths = tuple(max(1, (2 * bound * turn + steps) // (2 * steps)) for bound in bounds)
        if float(model(structure.positions(widths))) <= budget:
            allowed.append(widths)
    if allowed:
        assert uniform_widths(structure, model, budget) == max(allowed)
    else:
        with pytest.raises(Infeasible, match="at least"):
            uniform_widths(structure, model, budget)


def test_uniform_widths_of_a_generous_budget_are_dense() -> None:
    structure = plain_structure([7, 30, 12])
    assert uniform_widths(structure, random_model(structure, 0), 1e9) == (7, 30, 12)


@settings(deadline=None, max_examples=60)
@given(bounds=bounds_lists, seed=st.integers(0, 1000), budget=st.floats(0.05, 5.0), data=st.data())
def test_largest_width_meets_the_budget(bounds: list[int], seed: int, budget: float, data: st.DataObject) -> None:
    structure = plain_structure(bounds)
    model = random_model(structure, seed)
    widths = [data.draw(st.integers(1, bound)) for bound in bounds]
    index = data.draw(st.integers(1, len(bounds)))
    positions = structure.positions(widths)
    before = positions.clone()
    width = largest_width(model, positions, index, budget)
    assert torch.equal(positions, before)
    positions[index] = width
    assert float(model(positions)) == pytest.approx(budget, rel=1e-9)


def test_largest_width_where_the_estimate_does_not_depend_on_it() -> None:
    flat = BilinearModel(torch.tensor(1.0).double(), torch.zeros(2).double(), ((0, 1), (1, 2)), (3.0, 8.0, 4.0))
    positions = torch.tensor([3.0, 8.0, 4.0], dtype=torch.float64)
    assert largest_width(flat, positions, 1, 1.0) == math.inf
    assert largest_width(flat, positions, 1, 0.5) == -math.inf

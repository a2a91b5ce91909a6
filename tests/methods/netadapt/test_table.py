"""The lookup table against the model that it tabulates, and interpolation against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.netadapt.table import Entry, LookupTable
from shared.energy import BilinearModel


def random_model(bounds: tuple[int, ...], terms: tuple[tuple[int, int], ...], seed: int) -> BilinearModel:
    draw = torch.Generator().manual_seed(seed)
    coefficients = torch.rand(len(terms), generator=draw, dtype=torch.float64) ** 4  # uneven
    intercept = torch.rand((), generator=draw, dtype=torch.float64)
    return BilinearModel(intercept, coefficients, terms, tuple(map(float, bounds)))


@st.composite
def models(draw: st.DrawFn) -> tuple[tuple[int, ...], BilinearModel]:
    bounds = tuple(draw(st.lists(st.integers(1, 2048), min_size=2, max_size=7)))
    pairs = [(i, j) for i in range(len(bounds)) for j in range(i + 1, len(bounds))]
    terms = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=8, unique=True))
    return bounds, random_model(bounds, tuple(terms), draw(st.integers(0, 1000)))


@settings(deadline=None, max_examples=100)
@given(given_model=models(), points=st.integers(2, 16), seed=st.integers(0, 1000))
def test_total_equals_the_model(given_model: tuple, points: int, seed: int) -> None:
    bounds, model = given_model
    table = LookupTable.from_model(model, bounds, points)
    draw = np.random.default_rng(seed)
    rows = torch.from_numpy(draw.integers(1, np.array(bounds) + 1, size=(50, len(bounds))).astype(float))
    rows[:, [0, -1]] = torch.tensor([bounds[0], bounds[-1]], dtype=torch.float64)  # the ends never change
    torch.testing.assert_close(table(rows), model(rows), rtol=1e-6, atol=0)
    assert table(rows[0]).shape == () and table(rows[0]).dtype == torch.float64
    assert table(rows[0]) == table(rows)[0]
    assert all(len(grid) <= points for entry in table.entries for grid in entry.grids)
    assert (table.source, table.unit, table.platform, table.batch) == ("energy model", "J", None, None)


def test_table_is_filled_on_its_grid_alone() -> None:
    """Entries hold joules of their own group: without the others and without the constant."""
    asked = []
    model = random_model((3, 33, 65, 10), ((0, 1), (1, 2), (2, 3)), seed=2)

    class Spy(BilinearModel):
        def __call__(self, positions):  # type: ignore[no-untyped-def]
            asked.append(positions)
            return super().__call__(positions)

    spy = Spy(model.intercept, model.coefficients, model.terms, model.upper_bounds)
    table = LookupTable.from_model(spy, (3, 33, 65, 10), points=5)
    assert table.size == sum(len(rows) if rows.ndim > 1 else 1 for rows in asked)
    constant, first, middle, last = table.entries
    assert constant.positions == () and constant.energy == float(model.intercept)
    assert (first.positions, middle.positions, last.positions) == ((1,), (1, 2), (2,))  # the ends are fixed
    narrow, wide = middle.grids
    assert narrow.tolist() == [1, 9, 17, 25, 33] and wide.tolist() == [1, 17, 33, 49, 65]
    expected = float(model.coefficients[1]) * np.outer(narrow / 33, wide / 65)
    np.testing.assert_allclose(middle.energy, expected, rtol=1e-12, atol=1e-15)


def test_interpolation_between_and_on_grid_points() -> None:
    grid, other = np.array([1.0, 3.0, 7.0]), np.array([2.0, 4.0])
    energy = np.array([[1.0, 5.0], [2.0, -1.0], [8.0, 3.0]])  # not bilinear
    entry = Entry((0, 1), (grid, other), energy)
    on_grid = np.array([[x, y] for x in grid for y in other])
    np.testing.assert_array_equal(entry.at(on_grid), energy.ravel())
    # (6, 2.5): three quarters of the way from 3 to 7, a quarter of the way from 2 to 4
    expected = 0.25 * (0.75 * 2 + 0.25 * -1) + 0.75 * (0.75 * 8 + 0.25 * 3)
    np.testing.assert_allclose(entry.at(np.array([6.0, 2.5])), expected, rtol=1e-14)


def test_one_axis_and_none() -> None:
    diagonal = Entry((1,), (np.array([1.0, 3.0]),), np.array([10.0, 20.0]))
    rows = np.array([[7.0, 1.0], [7.0, 2.5], [7.0, 3.0]])
    np.testing.assert_allclose(diagonal.at(rows), [10.0, 17.5, 20.0], rtol=1e-15)
    np.testing.assert_array_equal(Entry((), (), np.array(4.0)).at(rows), [4.0, 4.0, 4.0])


def test_positions_outside_the_grid_are_refused() -> None:
    table = LookupTable.from_model(random_model((3, 8, 10), ((0, 1), (1, 2)), 0), (3, 8, 10))
    for row in ((3, 0, 10), (3, 9, 10), (3, float("nan"), 10), (2, 8, 10), (3, 8, 9)):
        with pytest.raises(ValueError, match="within 1"):
            table(torch.tensor(row))
    squared = random_model((3, 8), ((0, 1), (1, 1)), 0)
    with pytest.raises(ValueError, match="squares"):
        LookupTable.from_model(squared, (3, 8))

"""Sampling near a budget, and the search for the worst case against every width vector of a small network."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from bench.studies.energy_models.stress import BAND, Climb, multiplier_widths, random_widths, worst_case
from shared.energy import BilinearModel
from shared.energy.terms import terms
from shared.networks import Structure, build, structure
from shared.networks.units import Unit


def small(bounds: tuple[int, ...]) -> Structure:
    """A structure without operations: the searches ask for widths alone."""
    units = tuple(Unit(index, f"u{index}", bound, ()) for index, bound in enumerate(bounds))
    return Structure(units, (), image_channels=3, outputs=10)


def planted(table: Structure, coefficients: list[float], intercept: float = 0.1) -> BilinearModel:
    return BilinearModel(
        torch.tensor(intercept, dtype=torch.float64),
        torch.tensor(coefficients, dtype=torch.float64),
        tuple((i, i + 1) for i in range(len(coefficients))),
        tuple(map(float, table.position_bounds)),
    )


@pytest.fixture(scope="module")
def mobilenet() -> tuple[Structure, BilinearModel]:
    with torch.device("meta"):
        table = structure(build("mobilenet"))
    draw = np.random.default_rng(3)
    return table, planted(table, list(0.9 * draw.dirichlet(np.ones(len(terms(table, "bilinear"))))))


@pytest.mark.parametrize("budget", [0.2, 0.3, 0.7])
def test_random_widths_meet_the_budget(mobilenet: tuple[Structure, BilinearModel], budget: float) -> None:
    table, model = mobilenet
    widths = random_widths(table, model, budget, count=50, generator=np.random.default_rng(0))
    assert len(widths) == 50  # of MobileNet's many channels one more always fits into the band
    estimates = model(table.positions(widths)).numpy()
    assert (estimates <= budget).all() and (estimates >= (1 - BAND) * budget).all()
    assert (widths >= 1).all() and (widths <= np.array(table.upper_bounds)).all()
    assert len(np.unique(widths, axis=0)) == 50
    shares = widths / np.array(table.upper_bounds)
    assert (shares.std(axis=1) > 0.05).all()  # not one multiplier for all units


def test_random_widths_are_scaled_shares(mobilenet: tuple[Structure, BilinearModel]) -> None:
    """Each vector is max(1, round(c * min(1, t * u))) for the drawn shares u and the largest t that fits."""
    table, model = mobilenet
    widths = random_widths(table, model, 0.4, count=5, generator=np.random.default_rng(8))
    shares = 1 - np.random.default_rng(8).random((5, len(table.units)))
    bounds = np.array(table.upper_bounds)
    for row, share in zip(widths, shares, strict=True):
        scales = np.arange(0, 40, 1e-3)[:, None]
        kept = np.clip(np.floor(bounds * np.minimum(1, share * scales) + 0.5), 1, bounds)
        fitting = kept[model(table.positions(kept)).numpy() <= 0.4]
        assert np.abs(fitting[-1] - row).max() <= 2  # the grid of t is coarser than the bisection


def test_multipliers_are_all_that_are_near(mobilenet: tuple[Structure, BilinearModel]) -> None:
    table, model = mobilenet
    budget = 0.5
    found = {tuple(row) for row in multiplier_widths(table, model, budget)}
    expected = set()
    for step in range(1, 4001):
        widths = tuple(max(1, int(np.floor(bound * step / 4000 + 0.5))) for bound in table.upper_bounds)
        if abs(model(table.positions(widths)).item() / budget - 1) <= BAND:
            expected.add(widths)
    assert found == expected and len(found) > 5
    estimates = model(table.positions(np.array(sorted(found)))).numpy()
    assert estimates.min() < budget < estimates.max()


def test_out_of_reach_gives_nothing(mobilenet: tuple[Structure, BilinearModel]) -> None:
    table, model = mobilenet  # its intercept alone is 0.1
    draw = np.random.default_rng(0)
    assert not len(random_widths(table, model, 0.05, count=5, generator=draw))
    assert not len(multiplier_widths(table, model, 0.05))
    ones = model(table.positions([1] * len(table.units))).item()
    assert not len(random_widths(table, model, ones / 1.01, count=5, generator=draw))  # near, but above
    assert len(random_widths(table, model, ones, count=5, generator=draw)) == 5
    assert worst_case(table, model, lambda p: p.sum(axis=1), 0.05, Climb(3, 3, 3), draw) is None


def rough(positions: np.ndarray) -> np.ndarray:
    """A landscape of true joules with jumps, which no product of neighbours can follow."""
    shares = positions / positions.max(axis=0, initial=1)
    return 0.1 + shares.sum(axis=1) / 4 + 0.05 * (positions.astype(int) % 3 == 0).sum(axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_the_climb_finds_the_worst_of_all_widths(seed: int) -> None:
    table = small((9, 12, 7))
    draw = np.random.default_rng(seed)
    model = planted(table, list(draw.uniform(0.1, 0.6, 4)))
    budget = 0.6 * model(torch.tensor(table.position_bounds, dtype=torch.float64)).item()
    everything = np.array(list(itertools.product(*(range(1, bound + 1) for bound in table.upper_bounds))))
    bounds = np.array(table.position_bounds)

    def joules(positions: np.ndarray) -> np.ndarray:
        return rough(np.vstack([positions, bounds]))[:-1]

    positions = table.positions(everything).numpy()
    estimates = model(positions).numpy()
    near = (estimates <= budget) & (estimates >= (1 - BAND) * budget)
    best = (joules(positions) / estimates - 1)[near].max()
    found = worst_case(table, model, joules, budget, Climb(8, 16, 60), draw)
    assert found is not None and near.sum() > 5
    assert found.excess == pytest.approx(best, rel=1e-12)


def test_the_climb_finds_a_planted_worst_case(mobilenet: tuple[Structure, BilinearModel]) -> None:
    """Truth is the model with a surcharge that grows as every second unit narrows: the search has to alternate."""
    table, model = mobilenet
    bounds = np.array(table.position_bounds)

    def surcharge(positions: np.ndarray) -> np.ndarray:
        return 0.5 * (1 - (positions / bounds)[:, 1:-1:2].mean(axis=1))

    def joules(positions: np.ndarray) -> np.ndarray:
        return model(positions).numpy() * (1 + surcharge(positions))

    def search(rounds: int) -> Any:
        draw = np.random.default_rng(5)
        return worst_case(table, model, joules, 0.3, Climb(8, 16, rounds), draw)

    start, found, again = search(0), search(150), search(150)
    assert found.excess > 0.4 > 1.2 * start.excess  # 0.5 can't be had at this budget
    assert found.excess == pytest.approx(surcharge(table.positions(found.widths[None]).numpy())[0], rel=1e-9)
    assert (1 - BAND) * 0.3 <= found.estimate <= 0.3
    assert found.widths.tolist() == again.widths.tolist()

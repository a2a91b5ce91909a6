"""Networks that test an energy model: networks near a budget, and the worst that a search finds.

Widths are int64 (n, units) arrays here, and `energy_model` must not fall when a width grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.networks.units import Structure
from shared.widths.uniform import Energy

Widths = NDArray[np.int64]
Joules = NDArray[np.float64]
BAND = 0.02  # largest relative distance from the budget of an estimate that counts as near it
GRID = 4_000  # number of multipliers


def multiplier_widths(structure: Structure, energy_model: Energy, budget: float) -> Widths:
    """The distinct widths of uniform multipliers whose estimate is within BAND of the budget."""
    bounds = np.array(structure.upper_bounds)
    multipliers = np.arange(1, GRID + 1)[:, None] / GRID
    widths = np.unique(np.maximum(1, np.floor(bounds * multipliers + 0.5)).astype(np.int64), axis=0)
    return widths[np.abs(_estimates(structure, energy_model, widths) / budget - 1) <= BAND]


def random_widths(
    structure: Structure, energy_model: Energy, budget: float, *, count: int, generator: np.random.Generator
) -> Widths:
    """Up to `count` width vectors with estimates at most BAND below the budget, none above it.

    Each is a vector of uniform shares, scaled by bisection to meet the budget, and capped at the dense widths. Empty
    where the budget is out of reach.
    """
    bounds = np.array(structure.upper_bounds)
    shares = 1 - generator.random((count, bounds.size))  # in (0, 1]
    low, high = np.zeros(count), 1 / shares.min(axis=1)  # scales of all ones and of the dense network

    def widths(scales: Joules) -> Widths:
        capped = np.minimum(1, shares * scales[:, None])
        return np.clip(np.floor(bounds * capped + 0.5), 1, bounds).astype(np.int64)

    for _ in range(60):  # halvings, after which a float64 has no digits left
        middle = (low + high) / 2
        fits = _estimates(structure, energy_model, widths(middle)) <= budget
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    largest = widths(low)
    return largest[_near(_estimates(structure, energy_model, largest), budget)]


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The widths (units,) that the search has seen whose joules lie furthest above their estimate, relative to it."""

    widths: Widths
    estimate: float
    joules: float

    @property
    def excess(self) -> float:
        """(joules - estimate) / estimate."""
        return self.joules / self.estimate - 1


class Climb(NamedTuple):
    """The counts of the hill climbing in `worst_case`."""

    climbers: int  # starts from random widths
    proposals: int  # moves that each climber tries in a round
    rounds: int


def worst_case(
    structure: Structure,
    energy_model: Energy,
    true_joules: Callable[[NDArray[np.float64]], Joules],
    budget: float,
    climb: Climb,
    generator: np.random.Generator,
) -> WorstCase | None:
    """Climb (true joules - estimate) / estimate over widths with estimates at most BAND below the budget, none above.

    In each round every climber tries moves, and takes the best of them if it is an improvement. A move gives one or two
    units other widths, every second time an end of the range. Then it sets one unit to the width at which the estimate
    meets the budget again. The band excludes tiny networks, whose relative errors are larger but which nobody with this
    budget would use. None where the budget is out of reach.
    """
    climbers, proposals, rounds = climb
    bounds = np.array(structure.upper_bounds)

    def excess(widths: Widths) -> Joules:
        estimates = _estimates(structure, energy_model, widths)
        joules = true_joules(structure.positions(widths).numpy())
        return np.where(_near(estimates, budget), joules / estimates - 1, -np.inf)

    current = random_widths(structure, energy_model, budget, count=climbers, generator=generator)
    if not len(current):
        return None
    best = excess(current)
    for _ in range(rounds):
        moved = np.repeat(current, proposals, axis=0)
        rows = np.arange(len(moved))
        for share in (1.0, 0.5):  # every move changes a first unit, half of them a second one
            unit = generator.integers(bounds.size, size=len(moved))
            ends = np.where(generator.random(len(moved)) < 0.5, 1, bounds[unit])
            anywhere = generator.integers(1, bounds[unit] + 1)
            drawn = np.where(generator.random(len(moved)) < 0.5, ends, anywhere)
            changes = generator.random(len(moved)) < share
            moved[rows, unit] = np.where(changes, drawn, moved[rows, unit])
        last = generator.integers(bounds.size, size=len(moved))
        moved[rows, last] = _width_at(structure, energy_model, moved, last, budget)
        values = excess(moved).reshape(len(current), proposals)
        chosen = values.argmax(axis=1)
        better = values.max(axis=1) > best
        moved = moved.reshape(len(current), proposals, -1)[np.arange(len(current)), chosen]
        current = np.where(better[:, None], moved, current)
        best = np.where(better, values.max(axis=1), best)
    worst = current[[best.argmax()]]
    estimate = _estimates(structure, energy_model, worst)[0]
    return WorstCase(worst[0], float(estimate), float(true_joules(structure.positions(worst).numpy())[0]))


def _width_at(
    structure: Structure, energy_model: Energy, widths: Widths, unit: NDArray[np.int64], budget: float
) -> Widths:
    """The largest width (n,) of each row's `unit` that is within the budget, for a model linear in every width."""
    rows, bounds = np.arange(len(widths)), np.array(structure.upper_bounds)[unit]
    least, most = widths.copy(), widths.copy()
    least[rows, unit], most[rows, unit] = 0, bounds
    rest, dense = _estimates(structure, energy_model, least), _estimates(structure, energy_model, most)
    share = np.divide(budget - rest, dense - rest, out=np.ones_like(rest), where=dense > rest)
    return np.clip(np.floor(share * bounds), 1, bounds).astype(np.int64)


def _estimates(structure: Structure, energy_model: Energy, widths: Widths) -> Joules:
    return energy_model(structure.positions(widths)).detach().numpy()


def _near(estimates: Joules, budget: float) -> NDArray[np.bool_]:
    return (estimates <= budget) & (estimates >= (1 - BAND) * budget)

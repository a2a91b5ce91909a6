"""Where an energy model is put to the test: networks near a budget, and the worst ones that a search can find.

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
BAND = 0.02  # how far from the budget an estimate may lie to count as near it
GRID = 4_000  # multipliers that are tried


def multiplier_widths(structure: Structure, energy_model: Energy, budget: float) -> Widths:
    """Every uniform multiplier's widths whose estimate is within BAND of the budget, each once."""
    bounds = np.array(structure.upper_bounds)
    multipliers = np.arange(1, GRID + 1)[:, None] / GRID
    widths = np.unique(np.maximum(1, np.floor(bounds * multipliers + 0.5)).astype(np.int64), axis=0)
    return widths[np.abs(_estimates(structure, energy_model, widths) / budget - 1) <= BAND]


def random_widths(
    structure: Structure, energy_model: Energy, budget: float, *, count: int, generator: np.random.Generator
) -> Widths:
    """Up to `count` width vectors with estimates at most BAND below the budget, none above it.

    Each is a vector of uniform shares, scaled, and capped at the dense widths, until it meets the budget. None where
    the budget is out of reach.
    """
    bounds = np.array(structure.upper_bounds)
    shares = 1 - generator.random((count, bounds.size))  # in (0, 1]
    low, high = np.zeros(count), 1 / shares.min(axis=1)  # all ones, and the dense network

    def widths(scales: Joules) -> Widths:
        kept = np.minimum(1, shares * scales[:, None])
        return np.clip(np.floor(bounds * kept + 0.5), 1, bounds).astype(np.int64)

    for _ in range(60):  # halvings, past which a float64 has no digits left
        middle = (low + high) / 2
        fits = _estimates(structure, energy_model, widths(middle)) <= budget
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    found = widths(low)
    return found[_near(_estimates(structure, energy_model, found), budget)]


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The widths (units,) whose joules lie furthest above their estimate, among those that the search has seen."""

    widths: Widths
    estimate: float
    joules: float

    @property
    def excess(self) -> float:
        """(joules - estimate) / estimate."""
        return self.joules / self.estimate - 1


class Climb(NamedTuple):
    """How long `worst_case` searches."""

    climbers: int  # that start from random widths
    proposals: int  # moves that each of them tries in a round
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

    In each round every climber tries moves and keeps the best if that is better than where it stands: one or two units
    get other widths, an end of the range every second time, and one unit the width at which the estimate meets the
    budget again. The band keeps it at the budget: tiny networks, whose relative errors are larger, are not what a
    budget is about. None where the budget is out of reach.
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
        for share in (1.0, 0.5):  # of the moves in which a first and another unit change
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
    """The largest width (n,) of each row's `unit` within the budget, of a model that is linear in every width."""
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

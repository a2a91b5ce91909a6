"""Widths that an energy budget allows; budgets are in the energy model's unit."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from shared.errors import Infeasible
from shared.networks.units import Structure

Energy = Callable[[Tensor], Tensor]  # positions (n, p) or (p,) -> estimates (n,) or ()


def uniform_widths(structure: Structure, energy_model: Energy, budget: float) -> tuple[int, ...]:
    """The widths max(1, round(c * m)), halves rounded up, for the largest multiplier m <= 1 within the budget.

    `energy_model` must not fall when a width grows; it is asked for one row some dozen times.
    Raises Infeasible when one channel per unit is above the budget.
    """
    bounds = torch.tensor(structure.upper_bounds, dtype=torch.float64)
    # m matters only where some c * m passes a half: between two neighbours of this list all widths stay as they are
    turns = torch.cat([(torch.arange(bound, dtype=torch.float64) + 0.5) / bound for bound in structure.upper_bounds])
    turns = turns.round(decimals=12).unique()  # 1/6 and 1.5/9 once
    turns = torch.cat([torch.zeros(1), turns, torch.ones(1)])
    multipliers = (turns[:-1] + turns[1:]) / 2

    def widths(step: int) -> Tensor:
        return (bounds * multipliers[step] + 0.5).floor().clamp(min=1.0)

    def fits(step: int) -> bool:
        return float(energy_model(structure.positions(widths(step)))) <= budget

    if not fits(0):
        least = float(energy_model(structure.positions(widths(0))))
        raise Infeasible(
            f"expected a budget of at least {least:.6g} (one channel per unit), got {budget:.6g}; try more"
        )
    low, high = 0, len(multipliers)  # fits(low), not fits(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return tuple(int(width) for width in widths(low))


def largest_width(energy_model: Energy, positions: Tensor, index: int, budget: float) -> float:
    """The real number w at which the estimate meets the budget when position `index` is w and the others stay.

    positions: (p,). The bilinear model is linear in each width, so two evaluations give w up to rounding: ask it again
    where a whole number of channels must not end above the budget. Negative when the others alone are above the budget.
    Where the estimate does not depend on this position: +inf, or -inf when it is above the budget.
    """
    scale = max(1.0, float(positions[index]))
    rows = positions.detach().double().repeat(2, 1)  # (2, p)
    rows[0, index], rows[1, index] = 0.0, scale
    rest, whole = energy_model(rows).tolist()
    if whole == rest:
        return math.inf if rest <= budget else -math.inf
    return float((budget - rest) / (whole - rest) * scale)

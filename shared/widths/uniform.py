"""The largest widths within an energy budget, which is in the energy model's unit."""

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

    `energy_model` must not fall when a width grows; it gets one row some dozen times.
    Raises Infeasible when one channel per unit is above the budget.
    """
    bounds = torch.tensor(structure.upper_bounds, dtype=torch.float64)
    # A width changes only where c * m passes k + 1/2. Between two neighbouring breakpoints all widths are constant, so
    # one multiplier from each interval represents them all.
    halves = [(torch.arange(bound, dtype=torch.float64) + 0.5) / bound for bound in structure.upper_bounds]
    breakpoints = torch.cat(halves).round(decimals=12).unique()  # 0.5/3 and 1.5/9 differ by rounding alone
    breakpoints = torch.cat([torch.zeros(1), breakpoints, torch.ones(1)])
    multipliers = (breakpoints[:-1] + breakpoints[1:]) / 2

    def widths(interval: int) -> Tensor:
        return (bounds * multipliers[interval] + 0.5).floor().clamp(min=1.0)

    def fits(interval: int) -> bool:
        return float(energy_model(structure.positions(widths(interval)))) <= budget

    if not fits(0):
        least = float(energy_model(structure.positions(widths(0))))
        raise Infeasible(
            f"expected a budget of at least {least:.6g} (one channel per unit), got {budget:.6g}; try more"
        )
    low, high = 0, len(multipliers)  # bisection: fits(low), not fits(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return tuple(int(width) for width in widths(low))


def largest_width(energy_model: Energy, positions: Tensor, index: int, budget: float) -> float:
    """The real number w with which position `index` makes the estimate equal the budget, the others as in `positions`.

    positions: (p,). The bilinear model is linear in a single width, so w follows from two evaluations, up to rounding.
    A caller that needs a whole width within the budget has to check it with the model. w is negative when the other
    positions alone exceed the budget. Where the estimate does not depend on this position, it is +inf if the estimate
    is within the budget and else -inf.
    """
    scale = max(1.0, float(positions[index]))
    rows = positions.detach().double().repeat(2, 1)  # (2, p)
    rows[0, index], rows[1, index] = 0.0, scale
    without, total = energy_model(rows).tolist()
    if total == without:
        return math.inf if without <= budget else -math.inf
    return float((budget - without) / (total - without) * scale)

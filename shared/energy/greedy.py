"""Channels that go one by one, the least important per unit of energy first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shared.energy.budget import BudgetTooSmallError


def greedy_widths(
    norms: Tensor,
    bounds: tuple[int, ...],
    energy: Callable[[Tensor], float],
    savings: Callable[[Tensor], Tensor],
    budget: float,
) -> tuple[int, ...]:
    """Widths after removing channel after channel, the least norm per energy saved first, until the budget holds.

    norms: (units, largest bound), zero-padded. bounds: widths to begin with. energy: Ê of widths (units,). savings:
    what one channel of each unit saves there, (units,); the estimate is linear in each single width, so its slope.
    Within a unit channels go in the order of their norms; one of every unit stays. What a channel saves falls with
    every neighbour that goes, so it is asked anew after each removal. Raises BudgetTooSmallError when one channel per
    unit is above the budget.
    """
    descending = norms.double().sort(dim=1, descending=True).values
    widths, units = torch.tensor(bounds), torch.arange(len(bounds))
    while (now := energy(widths)) > budget:
        weakest = descending[units, widths - 1]  # of every unit, the channel that would go next
        saved = savings(widths)
        price = torch.where((widths > 1) & (saved > 0), weakest / saved, torch.inf)
        unit = int(price.argmin())
        if price[unit] == torch.inf:
            raise BudgetTooSmallError(f"one channel per unit takes {now:.6g}, above the budget of {budget:.6g}")
        widths[unit] -= 1
    return tuple(widths.tolist())

"""Greedy removal of channels, one by one or in groups: the least importance per energy saved goes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from shared.errors import Infeasible


def cumulative_norms(norms: Tensor) -> Tensor:
    """The sum of the k largest norms of every unit, for k = 0, 1, …: (units, largest bound + 1), float64 on the CPU.

    norms: (units, largest bound), zero-padded.
    """
    descending = norms.cpu().double().sort(dim=1, descending=True).values  # a removal is too little work for a GPU
    return torch.cat([torch.zeros(len(norms), 1), descending.cumsum(dim=1)], dim=1)


def removals(
    worth: Tensor, bounds: tuple[int, ...], savings: Callable[[Tensor], Tensor], multiple: int = 1
) -> Iterator[tuple[int, ...]]:
    """Yield `bounds` and then the widths after each removal; a removal takes the least worth per energy saved.

    worth: total worth of the k most important channels of each unit, (units, k = 0 to the largest bound).
    bounds: widths to start from. savings: widths (units,) -> energy that one channel of each unit saves, (units,): the
    slope, since the estimate is linear in a single width. It is evaluated after each removal, because a channel saves
    less when its neighbours in the next layer are fewer.
    multiple: a unit wider than this is cut to the next lower multiple at once. With 8, a unit goes from 20 channels to
    16, to 8, and then to 7, 6, … 1.

    Every unit keeps one channel. Units in which a channel saves nothing are not cut.
    """
    widths, units = torch.tensor(bounds), torch.arange(len(bounds))
    while True:
        yield tuple(widths.tolist())
        fewer = torch.where(widths > multiple, (widths - 1) // multiple * multiple, widths - 1).clamp(min=1)
        lost, saved = worth[units, widths] - worth[units, fewer], (widths - fewer) * savings(widths)
        price = torch.where(saved > 0, lost / saved, torch.inf)
        unit = int(price.argmin())
        if price[unit] == torch.inf:
            return
        widths[unit] = fewer[unit]


def greedy_widths(
    norms: Tensor,
    bounds: tuple[int, ...],
    energy: Callable[[Tensor], float],
    savings: Callable[[Tensor], Tensor],
    budget: float,
) -> tuple[int, ...]:
    """The first widths of `removals` that are within the budget, with sums of norms as worth.

    norms: (units, largest bound), zero-padded. energy: widths (units,) -> Ê. Raises Infeasible when the last widths are
    above the budget.
    """
    estimate = 0.0
    for widths in removals(cumulative_norms(norms), bounds, savings):
        if (estimate := energy(torch.tensor(widths))) <= budget:
            return widths
    raise Infeasible(f"expected a budget of at least {estimate:.6g} (one channel per unit), got {budget:.6g}; try more")

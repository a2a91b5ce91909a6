"""Channels that go one by one, or in groups, the least important per unit of energy first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from shared.errors import Infeasible


def kept_norms(norms: Tensor) -> Tensor:
    """The sum of every unit's k largest norms, for k = 0, 1, ...: (units, largest bound + 1), float64 on the CPU.

    norms: (units, largest bound), zero-padded.
    """
    descending = norms.cpu().double().sort(dim=1, descending=True).values  # one by one is nothing for a GPU
    return torch.cat([torch.zeros(len(norms), 1), descending.cumsum(dim=1)], dim=1)


def removals(
    worth: Tensor, bounds: tuple[int, ...], savings: Callable[[Tensor], Tensor], multiple: int = 1
) -> Iterator[tuple[int, ...]]:
    """The widths after each removal, the least worth lost per energy saved first; first `bounds` themselves.

    worth: of each unit's k most important channels, (units, k = 0 to the largest bound). bounds: widths to begin with.
    savings: what one channel of each unit saves at widths (units,), as many numbers; the estimate is linear in each
    single width, so its slope. multiple: a unit wider than that loses as many channels at once as bring it to the
    multiple below. One channel of every unit stays, and units in which a channel saves nothing stay whole. What a
    channel saves falls with every neighbour that goes, so it is asked anew after each removal.
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
    """The first widths of `removals` by `norms` whose `energy`, Ê of widths (units,), is within the budget.

    norms: (units, largest bound), zero-padded. Raises Infeasible when those of the last removal are above it.
    """
    now = 0.0
    for widths in removals(kept_norms(norms), bounds, savings):
        if (now := energy(torch.tensor(widths))) <= budget:
            return widths
    raise Infeasible(f"one channel per unit takes {now:.6g}, above the budget of {budget:.6g}")

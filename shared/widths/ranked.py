"""Widths from one ranking of all channels of a network: the lowest scores go until the budget is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shared.errors import Infeasible


def lowest_scores(
    scores: Tensor, bounds: Sequence[int], energy: Callable[[Tensor], float], budget: float, least: Sequence[int]
) -> Tensor:
    """Mask of the channels to remove, bool (units, largest bound): as few of the lowest scores as meet the budget.

    scores: (units, largest bound), padded with anything. energy: widths (units,) -> Ê, which must not grow when a width
    falls. least: channels that every unit keeps, those of its highest scores. Among equal scores the later unit, and in
    it the higher index, goes first. Raises Infeasible when the widths `least` are above
    the budget, and FloatingPointError for NaN.
    """
    if bool(scores.isnan().any()):
        raise FloatingPointError("expected scores that are numbers, got NaN; try a lower learning rate")
    limits, floors = torch.tensor(bounds), torch.tensor(least)
    real = torch.arange(scores.shape[1]) < limits[:, None]
    values = torch.where(real, scores.cpu().double(), -torch.inf)
    ranks = values.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    removable = real & (ranks >= floors[:, None])
    last_first = torch.where(removable, values, torch.inf).flatten().flip(0)
    order = last_first.numel() - 1 - last_first.argsort(stable=True)[: int(removable.sum())]
    units = order // scores.shape[1]

    def widths(removed: int) -> Tensor:
        return limits - torch.bincount(units[:removed], minlength=len(limits))

    if (estimate := energy(widths(len(order)))) > budget:
        raise Infeasible(f"expected a budget of at least {estimate:.6g} (the least widths), got {budget:.6g}; try more")
    low, high = -1, len(order)  # bisection: more than `low` have to go, `high` are enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if energy(widths(middle)) <= budget else (middle, high)
    dead = torch.zeros(scores.numel(), dtype=torch.bool)
    dead[order[:high]] = True
    return dead.view(scores.shape)

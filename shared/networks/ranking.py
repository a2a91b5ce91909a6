"""Which channels go when widths are given and importance decides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def weakest_channels(importance: Tensor, widths: Sequence[int], upper_bounds: Sequence[int]) -> Tensor:
    """The channels beyond the `widths` most important of every unit: bool (units, largest upper bound).

    importance: (units, largest upper bound), zero-padded. True is to be removed, False beyond a unit's upper bound.
    Among equal importances the lower index ranks first and stays.
    """
    rank = importance.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    kept, bounds = (torch.tensor(tuple(counts), device=rank.device)[:, None] for counts in (widths, upper_bounds))
    return (rank >= kept) & (torch.arange(rank.shape[1], device=rank.device) < bounds)

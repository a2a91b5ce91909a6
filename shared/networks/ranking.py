"""Which channels to remove when the widths are given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def weakest_channels(importance: Tensor, widths: Sequence[int], upper_bounds: Sequence[int]) -> Tensor:
    """Mask of the channels to remove, all but the `widths` most important of every unit: bool (units, largest bound).

    importance: (units, largest upper bound), zero-padded. Among equal importances the lower index ranks first and is
    kept. Padding beyond a unit's upper bound is False:

        >>> weakest_channels(torch.tensor([[5.0, 1.0, 5.0, 0.0]]), widths=(1,), upper_bounds=(3,)).tolist()
        [[False, True, True, False]]
    """
    rank = importance.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    kept, bounds = (torch.tensor(tuple(counts), device=rank.device)[:, None] for counts in (widths, upper_bounds))
    return (rank >= kept) & (torch.arange(rank.shape[1], device=rank.device) < bounds)

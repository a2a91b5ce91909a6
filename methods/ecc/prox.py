"""ECC's proximal operator, Algorithm 2, and the trim of its dual variable y.

Yang, Zhu, Liu, "ECC: Platform-Independent Energy-Constrained Deep Neural Network Compression via a Bilinear Regression
Model", CVPR 2019, section 3.3. Pure functions of small tensors; `methods.ecc.metric` computes the importances.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Algorithm 2 keeps what is strictly greater than its threshold. The published code
# (github.com/hyang1990/energy_constrained_compression) also keeps ties, and has to: the trim below makes an importance
# equal to its threshold. This relative margin keeps such ties in spite of rounding.
ROUND_OFF = 1e-12


def keep_channels(
    importance: Tensor, *, bound: Tensor | float, dual: Tensor | float, rho: float, step_size: float
) -> Tensor:
    """The channels that the proximal operator (8) keeps: Algorithm 2, without the trim of y.

    importance: a, squared B-norms of the channels (..., channels), zero-padded for a batch of units.
    bound: s, a real number, and dual: y >= 0; both (...) or numbers. rho: rho_1 >= 0. step_size: alpha > 0.
    Returns bool (..., channels) on importance's device, True = kept. An importance equal to its threshold is kept;
    among equal importances the lower index ranks first. So zeros (dead channels, padding) are kept where their
    threshold is zero: intersect the result with the channels that are alive.

    The kept set is a global minimum of (8). Keeping a channel costs nothing and pruning it costs half its importance.
    L1 depends only on the number of kept channels; its increments, here the thresholds, never fall with the rank, while
    the importances never rise. Raises ValueError for negative rho or dual, with which this does not hold.
    """
    numbers = importance.detach().double().cpu()
    ranked = descending(numbers)
    bounds, duals = (torch.as_tensor(value, dtype=torch.float64).cpu().unsqueeze(-1) for value in (bound, dual))
    if rho < 0 or step_size <= 0 or bool((duals < 0).any()):
        got = f"{rho}, {duals.min():g} and {step_size}"
        raise ValueError(f"expected rho >= 0, dual >= 0 and step_size > 0, got {got}; try clamping the dual at zero")
    rank = torch.arange(1, ranked.shape[-1] + 1, dtype=torch.float64)
    excess = (rank - bounds).clamp(min=0)  # [r - s]_+
    # [r - s]_+^2 - [r - 1 - s]_+^2 without cancellation, so that rounded thresholds don't fall with the rank either
    marginal = torch.where(excess > 1, 2 * excess - 1, excess * excess)
    threshold = rho * step_size * marginal + 2 * step_size * duals
    count = (ranked >= threshold * (1 - ROUND_OFF)).sum(-1, keepdim=True)  # the first ranks are kept, see the docstring
    # The last kept value tells which channels these are. Sorting indices as well would take ten times as long.
    last = ranked.gather(-1, (count - 1).clamp(min=0))
    above, tied = numbers > last, numbers == last
    keep = above | (tied & (tied.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
    return keep.to(importance.device)


def descending(importance: Tensor) -> Tensor:
    """The importances (..., channels) of every unit sorted in descending order, float64 on the CPU."""
    # numpy is ten times as fast as torch here, which sorts indices as well.
    return torch.from_numpy(-np.sort(-importance.detach().double().cpu().numpy(), axis=-1))


def channel_price(ranked: Tensor, *, bound: Tensor, step_size: float) -> Tensor:
    """a_(floor(s)) / (2 alpha), the largest y with which the operator keeps floor(s) channels: float64 (units,).

    ranked: `descending` importances (units, channels). bound: s (units,); floor(s) is clamped to 1..channels. This is
    the price of the unit's next channel to be removed, in units of the Lagrangian (4).
    """
    last = bound.floor().clamp(1, ranked.shape[-1]).long() - 1
    return ranked.gather(-1, last.unsqueeze(-1)).squeeze(-1) / (2 * step_size)


def trim_dual(dual: Tensor, ranked: Tensor, *, bound: Tensor, step_size: float) -> Tensor:
    """y, lowered so that the operator keeps at least floor(s) live channels (section 3.3.3: phi >= floor(s)).

    Arguments and result as in `channel_price`. Ranks up to floor(s) have no penalty, so only a large y could prune
    them. Where floor(s) is 0, y stays. The paper trims when it updates y. The published code trims just before it uses
    y, as here, which guarantees phi >= floor(s) for the present importances.
    """
    return torch.where(bound >= 1, dual.minimum(channel_price(ranked, bound=bound, step_size=step_size)), dual)

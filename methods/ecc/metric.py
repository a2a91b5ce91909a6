"""The importances of Algorithm 2: a fast version of shared.networks.importance(metric=…), its oracle in the tests.

Yang, Zhu, Liu, "ECC: Platform-Independent Energy-Constrained Deep Neural Network Compression via a Bilinear Regression
Model", CVPR 2019, section 3.3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shared.networks import Slice, Structure

# Entries of a large tensor per chunk and CPU thread. A chunk's weights, moments and intermediate results (1 MiB in
# float32) fit a core's cache, so weights and moments are read from memory once and nothing is written back.
CHUNK_ENTRIES = 1 << 16


class ChannelNorms:
    """a_i = sum of w^2 * B over channel i's consumer columns and depthwise filters, for all channels of all units.

    B is the diagonal metric of (6), Adam's: sqrt(v / (1 - beta_2^t)) + eps, with which Adam's step is the gradient step
    inside (7), along the bias-corrected mean gradient. The published code does not correct v
    (github.com/hyang1990/energy_constrained_compression); its B is 3 % of this one after one step and 80 % after a
    thousand.

    optimizer: of `shared.training.make_optimizer`. A call needs a step before it. It works on the weights' device and
    copies one vector to the CPU, which is its only synchronisation.
    fisher: take v / (1 - beta_2^t) as B instead, a diagonal of the empirical Fisher information.
    shares: divide the sums of each layer by what they come to together, before those of a unit's layers are added.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        optimizer: torch.optim.Adam,
        *,
        fisher: bool = False,
        shares: bool = False,
    ) -> None:
        parameters = dict(model.named_parameters())
        parts = [
            (unit, part) for unit in structure.units for part in unit.slices if part.role in ("consumer", "depthwise")
        ]
        # Large tensors come first and are summed one by one. The small ones are summed together: launching an operation
        # for each would take longer than the sums.
        chunked = parameters[parts[0][1].tensor].device.type == "cpu"
        parts.sort(key=lambda pair: not chunked or parameters[pair[1].tensor].numel() <= CHUNK_ENTRIES)
        self.shape = (len(structure.units), max(structure.upper_bounds))
        self._optimizer, self._fisher, self._shares = optimizer, fisher, shares
        self._weights: list[Tensor] = [parameters[part.tensor] for _, part in parts]
        self._slices = [(part, unit.upper_bound) for unit, part in parts]
        self._large = sum(chunked and weight.numel() > CHUNK_ENTRIES for weight in self._weights)
        # For every sum that is copied to the CPU: its index in the flattened result.
        self._place = torch.cat([unit.index * self.shape[1] + torch.arange(unit.upper_bound) for unit, _ in parts])

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Importances (units, largest upper bound), zero-padded, float64 on the CPU."""
        (group,), first = self._optimizer.param_groups, self._weights[0]
        states = [self._optimizer.state[weight] for weight in self._weights]
        # The fused optimiser counts its steps on the device, where the count stays.
        correction = 1 - group["betas"][1] ** states[0]["step"].double()
        correction = (correction if self._fisher else correction.sqrt()).to(first.dtype)
        # so that B contains Adam's eps after the division by the correction below
        floor = None if self._fisher else correction * group["eps"]
        moments = [state["exp_avg_sq"] for state in states]
        parts = list(zip(self._weights, moments, self._slices, strict=True))
        sums = [_sums_by_chunks(*part, floor) for part in parts[: self._large]]
        sums += _sums_together(parts[self._large :], floor)
        if self._shares:
            sums = list(torch._foreach_div(sums, [part.sum() for part in sums]))
            correction = torch.ones_like(correction)
        numbers = torch.cat([*sums, correction.view(1)]).cpu().double()
        flat = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.float64)
        return flat.index_add_(0, self._place, numbers[:-1] / numbers[-1]).view(self.shape)


Owned = tuple[Slice, int]  # a slice of a weight, and the number of its channels


def _sums_together(parts: Sequence[tuple[Tensor, Tensor, Owned]], floor: Tensor | None) -> list[Tensor]:
    """For each (weight, v, slice) the sum of w^2 (sqrt(v) + floor) over each channel's entries, (channels,).

    Without a floor it is the sum of w^2 v.
    """
    if not parts:
        return []
    weights, moments, slices = map(list, zip(*parts, strict=True))
    if floor is None:
        metric = torch._foreach_mul(moments, weights)
    else:
        metric = torch._foreach_sqrt(moments)
        torch._foreach_add_(metric, [floor] * len(metric))
        torch._foreach_mul_(metric, weights)
    torch._foreach_mul_(metric, weights)
    return [
        _by_channel(
            terms.sum([dim for dim in range(terms.ndim) if dim != part.dim]), terms.shape[part.dim], part, channels
        )
        for terms, (part, channels) in zip(metric, slices, strict=True)
    ]


def _sums_by_chunks(weight: Tensor, moment: Tensor, owned: Owned, floor: Tensor | None) -> Tensor:
    """The same sums for one large tensor, chunk by chunk."""
    part, channels = owned
    # Flattened to (outer, channels * inner) in the order of memory, so that no memory format needs a copy.
    order = sorted(range(weight.ndim), key=weight.stride, reverse=True)
    outer = math.prod(weight.shape[dim] for dim in order[: order.index(part.dim)])
    weights, moments = (tensor.permute(order).reshape(outer, -1) for tensor in (weight, moment))
    rows = min(outer, max(1, CHUNK_ENTRIES * torch.get_num_threads() // weights.shape[1]))
    metric, totals = torch.empty_like(weights[:rows]), torch.empty_like(weights[:rows])
    for chunk, (some_weights, some_moments) in enumerate(zip(weights.split(rows), moments.split(rows), strict=True)):
        some = metric[: len(some_weights)]
        if floor is None:
            torch.mul(some_moments, some_weights, out=some)
        else:
            torch.sqrt(some_moments, out=some).add_(floor).mul_(some_weights)
        if chunk == 0:
            torch.mul(some, some_weights, out=totals)
        else:
            totals[: len(some)].addcmul_(some, some_weights)
    return _by_channel(totals.sum(0), weight.shape[part.dim], part, channels)


def _by_channel(sums: Tensor, size: int, part: Slice, channels: int) -> Tensor:
    """Add up the neighbouring sums of each channel of a slice: (size * neighbours,) -> (channels,).

    size: entries of the tensor along the slice's dimension.
    """
    neighbours = len(sums) // size
    own = sums[part.offset * neighbours : (part.offset + channels * part.repeat) * neighbours]
    return own if len(own) == channels else own.view(channels, -1).sum(1)

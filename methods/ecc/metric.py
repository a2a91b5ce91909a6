"""The importances of Algorithm 2: squared norms of all channels in the optimiser's metric, in one pass over weights.

Yang, Zhu, Liu, "ECC: Platform-Independent Energy-Constrained Deep Neural Network Compression via a Bilinear Regression
Model", CVPR 2019, section 3.3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from shared.networks import Structure

# Entries worked on at a time on a CPU: weights, second moments and the products between them (768 KiB in float32) stay
# in a core's cache, so weights and moments are read from memory once and nothing is written back.
CHUNK_ENTRIES = 1 << 16


class ChannelNorms:
    """a_i = sum over channel i's consumer columns and depthwise filters of w^2 * B, for all channels of all units.

    B is the diagonal metric of (6). For Adam it is sqrt(v / (1 - beta_2^t)) + eps: its step is then the gradient step
    inside (7), along the bias-corrected mean gradient. The published code does not correct v
    (github.com/hyang1990/energy_constrained_compression), which makes B 3 % of this after one step and 80 % after a
    thousand. B = 1 for optimisers without second moments, such as SGD.

    Each call works on the device of the weights and sends one vector to the CPU, its only synchronisation.
    """

    def __init__(self, model: nn.Module, structure: Structure, optimizer: torch.optim.Optimizer) -> None:
        parameters = dict(model.named_parameters())
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        parts = [
            (unit, part) for unit in structure.units for part in unit.slices if part.role in ("consumer", "depthwise")
        ]
        self.shape = (len(structure.units), max(structure.upper_bounds))
        self._optimizer = optimizer
        self._weights = [parameters[part.tensor] for _, part in parts]
        self._groups = [groups[id(weight)] for weight in self._weights]
        self._slices = [part for _, part in parts]
        # for every number that is sent: the part it belongs to, and its place in the flattened result
        self._part_of = torch.repeat_interleave(torch.tensor([unit.upper_bound for unit, _ in parts]))
        self._place = torch.cat([unit.index * self.shape[1] + torch.arange(unit.upper_bound) for unit, _ in parts])

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Importances (units, largest upper bound), zero-padded, float64 on the CPU."""
        moments, corrections = self._moments()
        # eps times the correction, so that B has Adam's eps once the sums are divided by the correction
        eps = [group.get("eps", 0.0) for group in self._groups]
        floors = [floor * scale for floor, scale in zip(eps, corrections.unbind(), strict=True)]
        totals: list[Any] = [0.0] * len(self._weights)
        for batch in self._batches(moments):
            parts, weights, seconds = map(list, zip(*batch, strict=True))
            metric = torch._foreach_sqrt(seconds)
            torch._foreach_add_(metric, [floors[part] for part in parts])
            torch._foreach_mul_(metric, weights)
            torch._foreach_mul_(metric, weights)
            for part, products in zip(parts, metric, strict=True):
                own = self._slices[part].dim
                totals[part] = totals[part] + products.sum([dim for dim in range(products.ndim) if dim != own])
        sums = [
            total.view(-1, part.repeat).sum(1) if part.repeat > 1 else total
            for total, part in zip(totals, self._slices, strict=True)
        ]
        sent = torch.cat([*sums, corrections]).cpu().double()
        norms, scales = sent[: len(self._place)], sent[len(self._place) :]
        flat = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.float64)
        return flat.index_add_(0, self._place, norms / scales[self._part_of]).view(self.shape)

    def _moments(self) -> tuple[list[Tensor], Tensor]:
        """v of every part, and sqrt(1 - beta_2^t) (parts,) on the weights' device."""
        moments, steps, decays = [], [], []
        for weight, group in zip(self._weights, self._groups, strict=True):
            state = self._optimizer.state.get(weight, {})
            moment = state.get("exp_avg_sq")
            if moment is None:  # Adam before its first step has B = eps; SGD has B = 1
                moment = torch.zeros_like(weight) if "betas" in group else torch.ones_like(weight)
                steps.append(torch.ones(()))
                decays.append(0.0)
            else:
                steps.append(state["step"])  # a tensor; fused optimisers keep it on the device, where it stays
                decays.append(group["betas"][1])
            moments.append(moment)
        device = self._weights[0].device
        decay = torch.tensor(decays, dtype=torch.float64).to(device, non_blocking=True)
        count = torch.stack(steps).to(device, torch.float64, non_blocking=True)
        return moments, (1 - decay**count).sqrt().to(self._weights[0].dtype)

    def _batches(self, moments: list[Tensor]) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
        """(part, weights, moments) in lists worth one pass: all at once on an accelerator, CHUNK_ENTRIES on a CPU."""
        limit = CHUNK_ENTRIES if self._weights[0].device.type == "cpu" else float("inf")
        batch: list[tuple[int, Tensor, Tensor]] = []
        entries = 0
        for part, (weight, moment) in enumerate(zip(self._weights, moments, strict=True)):
            pieces: list[tuple[Tensor, ...]] = [(weight, moment)]
            if weight.numel() > limit and self._slices[part].dim != 0:
                rows = max(1, CHUNK_ENTRIES * len(weight) // weight.numel())
                pieces = list(zip(weight.split(rows), moment.split(rows), strict=True))
            for some_weights, some_moments in pieces:
                if batch and entries + some_weights.numel() > limit:
                    yield batch
                    batch, entries = [], 0
                batch.append((part, some_weights, some_moments))
                entries += some_weights.numel()
        yield batch

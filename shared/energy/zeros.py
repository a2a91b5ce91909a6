"""What single zero weights save, on a platform that skips them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.networks import Structure, active_channels
from shared.networks.pruning import channel_entries


@dataclass(frozen=True)
class ZeroSavings:
    """Joules per image that zeros among the weights of a network save, by the name of a weight tensor.

    product: of one weight's products, which a zero makes none of. fetch: of one stored weight. entries: weights of the
    dense network's tensors. code: how many times its
    size a weight that is not zero takes in a coded tensor; a tensor that the code would enlarge is stored plainly.
    Weights of channels that are not active are not counted, since Ê of the widths leaves them out already.
    """

    product: Mapping[str, float]
    fetch: Mapping[str, float]
    entries: Mapping[str, int]
    code: float

    def saved(self, name: str, kept: Tensor, entries: int) -> Tensor:
        """Joules that a tensor of `entries` weights saves where `kept` (any shape) of them are not zero."""
        kept = kept.double()
        return self.product[name] * (entries - kept) + self.fetch[name] * (
            entries - (self.code * kept).clamp(max=entries)
        )

    @property
    def most(self) -> float:
        """Joules that the dense network saves if all of its weights are zero and no channel goes."""
        return sum((self.product[name] + self.fetch[name]) * entries for name, entries in self.entries.items())

    def of(self, network: nn.Module, structure: Structure) -> float:
        """Joules that the zeros of a network save, whose structure at its dense widths is `structure`."""
        kept = kept_weights(network, structure, self.entries)
        return float(sum(self.saved(name, *numbers) for name, numbers in kept.items()))

    def price(self, name: str) -> float:
        """Joules of one weight in a coded tensor: what keeping it costs."""
        return self.product[name] + self.code * self.fetch[name]


def kept_weights(network: nn.Module, structure: Structure, names: Collection[str]) -> dict[str, tuple[Tensor, int]]:
    """For each weight tensor how many weights between active channels are not zero, and how many there are."""
    parameters = {name: tensor.detach() for name, tensor in network.named_parameters() if name in names}
    for unit, row in zip(structure.units, active_channels(network, structure), strict=True):
        channels = row[: unit.upper_bound].nonzero().flatten()
        for part in unit.slices if len(channels) < unit.upper_bound else ():
            if part.tensor in parameters:
                entries = channel_entries(channels, part.repeat)
                parameters[part.tensor] = parameters[part.tensor].index_select(part.dim, entries)
    return {name: (torch.count_nonzero(tensor), tensor.numel()) for name, tensor in parameters.items()}

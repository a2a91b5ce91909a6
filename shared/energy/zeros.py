"""What zeros of weights and of masked inputs save, on a platform that skips them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shared.networks import Structure, active_channels
from shared.networks.masks import masks_of
from shared.networks.pruning import kept_entries


class LayerZeros(NamedTuple):
    """The zeros of a layer between active channels."""

    kept: Tensor  # weights that are not zero, a whole number
    entries: int  # weights
    channels: int  # that a filter reads
    masked: int = 0  # values of its input, see shared.networks.masks


@dataclass(frozen=True)
class ZeroSavings:
    """Joules per image that zeros of a network save, by the names of its weight tensors.

    product: of one weight's products, which a zero makes none of. fetch: of one stored weight. entries: weights of the
    dense network's tensors. shown: values of a layer's input per channel, padding included. input_fetch: of one stored
    value of the input. code: how many times its size a value that is not zero takes in a coded tensor; a tensor that
    the code would enlarge is stored plainly.
    Weights of channels that are not active are not counted, since Ê of the widths leaves them out already.
    """

    product: Mapping[str, float]
    fetch: Mapping[str, float]
    entries: Mapping[str, int]
    shown: Mapping[str, int]
    input_fetch: Mapping[str, float]
    code: float

    def saved(self, name: str, zeros: LayerZeros) -> Tensor:
        """Joules that a layer's zeros save, shape of `zeros.kept`. Products need a weight and an input to be there."""
        kept, entries, unmasked = zeros.kept.double(), zeros.entries, self.unmasked(name, zeros)
        products = self.product[name] * (entries - kept * unmasked)
        weights = self.fetch[name] * (entries - (self.code * kept).clamp(max=entries))
        values = self.shown[name] * zeros.channels
        return products + weights + self.input_fetch[name] * values * (1 - min(1.0, self.code * unmasked))

    def unmasked(self, name: str, zeros: LayerZeros) -> float:
        """Share of the layer's input values, padding included, that no mask hides.

        Products fall by this share, as if every value took part in as many: the paper's relaxed form.
        """
        values = self.shown[name] * zeros.channels  # none where all channels went
        return 1 - zeros.masked / values if values else 1.0

    def most(self, structure: Structure) -> float:
        """Joules that zeros save at most while no channel goes: of the weights that read a channel one stays."""
        kept = dict.fromkeys(self.entries, 0)
        for unit in structure.units:
            for part in unit.slices:
                if part.role == "consumer" and part.tensor in kept:
                    kept[part.tensor] += unit.upper_bound
        left = {name: LayerZeros(torch.tensor(count), self.entries[name], 1) for name, count in kept.items()}
        return float(sum(self.saved(name, zeros) for name, zeros in left.items()))

    def of(self, network: nn.Module, structure: Structure) -> float:
        """Joules that the zeros of a network save, whose structure at its dense widths is `structure`."""
        layers = self.found(network, structure)
        return float(sum(self.saved(name, zeros) for name, zeros in layers.items()))

    def price(self, name: str, unmasked: float = 1.0) -> float:
        """Joules of one weight in a coded tensor: what keeping it costs. unmasked: share of the layer's inputs."""
        return self.product[name] * unmasked + self.code * self.fetch[name]

    def found(self, network: nn.Module, structure: Structure) -> dict[str, LayerZeros]:
        """The zeros of each layer between active channels, by the names of the weights."""
        tensors = {name: tensor for name, tensor in network.state_dict().items() if name in self.entries}
        masks = {f"{name}.weight": mask for name, mask in masks_of(network.state_dict()).items()}
        active = active_channels(network, structure)
        kept = [row[: unit.upper_bound].nonzero().flatten() for unit, row in zip(structure.units, active, strict=True)]
        for (name, dim), owners in structure.owners.items():
            if name in tensors:
                entries = kept_entries(tensors[name].shape[dim], owners, kept)
                tensors[name] = tensors[name].index_select(dim, entries)
                if dim == 1 and name in masks:  # of the inputs that the weight reads; the table may know no masks
                    masks[name] = masks[name].index_select(0, entries)
        return {
            name: LayerZeros(
                torch.count_nonzero(tensor),
                tensor.numel(),
                tensor.shape[1],
                int((masks[name] == 0).sum()) if name in masks else 0,
            )
            for name, tensor in tensors.items()
        }

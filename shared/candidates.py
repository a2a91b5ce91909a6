"""Pruned and reconstructed networks at any widths, made quickly enough to be judged by the hundred."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from shared.networks import Slice, Structure, compact, zero_channels
from shared.networks.pruning import channel_entries, is_channels_last
from shared.networks.ranking import weakest_channels
from shared.reconstruction import Reconstruction


class Candidates:
    """The networks that one-shot pruning of `model` gives, reconstructed and not fine-tuned.

    batches: (images, labels) on which the un-pruned network is calibrated; draw: places of their rows. `skipped` names
    the layers that are not reconstructed.
    `at(widths)` is a really smaller network for evaluation, one module whose tensors are cut anew by each call.
    `cut(widths)` is the same network as a module of its own, to be trained. Both do what the masked network does.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        batches: Iterable[tuple[Tensor, Tensor]],
        draw: torch.Generator,
    ) -> None:
        self.structure, self._model = structure, model
        self._reconstruction = Reconstruction(model, structure, batches, draw)
        self.skipped = self._reconstruction.skipped
        self._tensors = {name: tensor.detach() for name, tensor in model.state_dict(keep_vars=True).items()}
        self._channels_last = {name for name, tensor in self._tensors.items() if is_channels_last(tensor)}
        self._small = copy.deepcopy(model).eval().requires_grad_(False)
        self._parts: dict[str, list[tuple[int, Slice]]] = {}  # by tensor: (unit, slice) to cut
        for unit in structure.units:
            for part in unit.slices:
                self._parts.setdefault(part.tensor, []).append((unit.index, part))

    @torch.no_grad()
    def at(self, widths: Sequence[int]) -> nn.Module:
        """The network at `widths` in evaluation mode, valid until the next call; not for training."""
        kept = [self._reconstruction.kept(unit, width) for unit, width in enumerate(widths)]
        for name, parts in self._parts.items():
            module_name, _, leaf = name.rpartition(".")
            module = self._small.get_submodule(module_name)
            tensor = self._cut(name, parts, kept)
            old = getattr(module, leaf)
            new = nn.Parameter(tensor, requires_grad=False) if isinstance(old, nn.Parameter) else tensor
            setattr(module, leaf, new)
            if any(part.role == "depthwise" for _, part in parts) and isinstance(module, nn.Conv2d):
                module.groups = len(tensor)
        return self._small

    def cut(self, widths: Sequence[int]) -> nn.Module:
        """The network at `widths` as a new compact module with the weights of `at(widths)`."""
        network = at_widths(self._model, self.structure, widths)
        network.load_state_dict(self.at(widths).state_dict())
        return network

    def _cut(self, name: str, parts: list[tuple[int, Slice]], kept: list[Tensor]) -> Tensor:
        """One tensor with the channels that it keeps, its kept columns reconstructed where it reads a unit."""
        tensor = self._tensors[name]
        outputs = next((kept[unit] for unit, part in parts if part.role == "producer"), None)
        for unit, part in parts:
            tensor = tensor.index_select(part.dim, channel_entries(kept[unit], part.repeat))
        for unit, part in parts:
            if part.role == "consumer":
                solved = self._reconstruction.weight(name, unit, len(kept[unit]), outputs)
                if solved is not None:
                    tensor.copy_(solved.reshape(tensor.shape))
        # index_select drops the memory format, which would make the evaluation 1.7 times as slow
        return tensor.to(memory_format=torch.channels_last) if name in self._channels_last else tensor


def at_widths(model: nn.Module, structure: Structure, widths: Sequence[int]) -> nn.Module:
    """A network of `model`'s layers at `widths`, to load weights into: its own mean nothing."""
    network = copy.deepcopy(model).requires_grad_(True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)  # compact would cut a channel whose weights are zero as they come
    equal = torch.zeros(len(widths), max(structure.upper_bounds))
    zero_channels(network, structure, weakest_channels(equal, widths, structure.upper_bounds))
    return compact(network, structure)

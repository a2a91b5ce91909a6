"""One-shot pruned and reconstructed networks at any widths, fast enough for searches that score hundreds of them."""

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
    """Prunes `model` to given widths in one shot and reconstructs the weights of the consumers; no fine-tuning.

    batches: (images, labels) for the Gram matrices of the unpruned network. draw: generator of the output pixels that
    they are collected at. importance: (units, largest upper bound), by which channels are kept; by default the L1 norm
    of their consumer weights. `skipped` names the layers that are not reconstructed.

    `at(widths)` returns a smaller network for evaluation: always the same module, whose tensors each call replaces.
    `cut(widths)` returns a new module with the same weights, for training. Both compute what `model` computes with the
    pruned channels masked and the consumers' weights replaced.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        batches: Iterable[tuple[Tensor, Tensor]],
        draw: torch.Generator,
        importance: Tensor | None = None,
    ) -> None:
        self.structure, self._model = structure, model
        self._reconstruction = Reconstruction(model, structure, batches, draw, importance)
        self.skipped = self._reconstruction.skipped
        self._tensors = {name: tensor.detach() for name, tensor in model.state_dict(keep_vars=True).items()}
        self._channels_last = {name for name, tensor in self._tensors.items() if is_channels_last(tensor)}
        self._small = copy.deepcopy(model).eval().requires_grad_(False)
        self._parts: dict[str, list[tuple[int, Slice]]] = {}  # tensor name -> its (unit index, slice) pairs
        for unit in structure.units:
            for part in unit.slices:
                self._parts.setdefault(part.tensor, []).append((unit.index, part))

    @torch.no_grad()
    def at(self, widths: Sequence[int]) -> nn.Module:
        """The network at `widths` in evaluation mode. The next call changes it; it can't be trained."""
        channels = [self._reconstruction.kept_channels(unit, width) for unit, width in enumerate(widths)]
        for name, parts in self._parts.items():
            module_name, _, leaf = name.rpartition(".")
            module = self._small.get_submodule(module_name)
            tensor = self._cut(name, parts, channels)
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

    def _cut(self, name: str, parts: list[tuple[int, Slice]], channels: list[Tensor]) -> Tensor:
        """The tensor `name` without the removed channels; the columns of a consumer get the solved weights."""
        tensor = self._tensors[name]
        outputs = next((channels[unit] for unit, part in parts if part.role == "producer"), None)
        for unit, part in parts:
            tensor = tensor.index_select(part.dim, channel_entries(channels[unit], part.repeat))
        for unit, part in parts:
            if part.role == "consumer":
                solved = self._reconstruction.weight(name, unit, len(channels[unit]), outputs)
                if solved is not None:
                    tensor.copy_(solved.reshape(tensor.shape))
        # index_select drops the memory format, which would make the evaluation 1.7 times as slow
        return tensor.to(memory_format=torch.channels_last) if name in self._channels_last else tensor


def at_widths(model: nn.Module, structure: Structure, widths: Sequence[int]) -> nn.Module:
    """A network with `model`'s layers at `widths` and arbitrary weights, to load a state dict into."""
    network = copy.deepcopy(model).requires_grad_(True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)  # `compact` would also cut channels whose weights in `model` happen to be zero
    equal = torch.zeros(len(widths), max(structure.upper_bounds))
    zero_channels(network, structure, weakest_channels(equal, widths, structure.upper_bounds))
    return compact(network, structure)

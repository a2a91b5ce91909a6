"""One-shot pruned and reconstructed networks at any widths, fast enough for searches that score hundreds of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from shared.networks import Structure, resized
from shared.networks.pruning import follow_shapes, is_channels_last, kept_entries
from shared.networks.units import Owner
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
        self._parts: dict[str, dict[int, list[Owner]]] = {}  # tensor name -> dimension -> who owns parts
        for (name, dim), owners in structure.owners.items():
            self._parts.setdefault(name, {})[dim] = owners
        # of no unit, such as batch norm's counts: who has used a candidate may have changed them
        self._buffers = {name: buffer for name, buffer in self._small.named_buffers() if name not in self._parts}

    @torch.no_grad()
    def at(self, widths: Sequence[int]) -> nn.Module:
        """The network at `widths` in evaluation mode. The next call changes it; it can't be trained."""
        channels = [self._reconstruction.kept_channels(unit, width) for unit, width in enumerate(widths)]
        for name, buffer in self._buffers.items():
            buffer.copy_(self._tensors[name])
        for name, parts in self._parts.items():
            module_name, _, leaf = name.rpartition(".")
            module = self._small.get_submodule(module_name)
            tensor = self._cut(name, parts, channels)
            old = getattr(module, leaf)
            new = nn.Parameter(tensor, requires_grad=False) if isinstance(old, nn.Parameter) else tensor
            setattr(module, leaf, new)
            if leaf == "weight":
                follow_shapes(module)
        return self._small

    def cut(self, widths: Sequence[int]) -> nn.Module:
        """The network at `widths` as a new compact module with the weights of `at(widths)`."""
        network = resized(self._model, widths, self.structure).requires_grad_(True)
        network.load_state_dict(self.at(widths).state_dict())
        return network

    def _cut(self, name: str, parts: dict[int, list[Owner]], channels: list[Tensor]) -> Tensor:
        """The tensor `name` without the removed channels; the columns of a consumer get the solved weights."""
        tensor = self._tensors[name]
        for dim, owners in parts.items():
            tensor = tensor.index_select(dim, kept_entries(tensor.shape[dim], owners, channels))
        every = [owner for owners in parts.values() for owner in owners]
        outputs = next((channels[owner.unit] for owner in every if owner.role == "producer"), None)
        for owner in every:
            if owner.role == "consumer":
                solved = self._reconstruction.weight(name, owner.unit, len(channels[owner.unit]), outputs)
                if solved is not None:
                    tensor.copy_(solved.reshape(tensor.shape))
        # index_select drops the memory format, which would make the evaluation 1.7 times as slow
        return tensor.to(memory_format=torch.channels_last) if name in self._channels_last else tensor

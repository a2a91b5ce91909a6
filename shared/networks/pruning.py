"""Reads, zeroes and cuts channels by the slices in a `Structure`; loops run over units, never over channels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from shared.networks import trace
from shared.networks.units import Role, Slice, Structure

ROLES: tuple[Role, ...] = get_args(Role)


def active_channels(model: nn.Module, structure: Structure | None = None) -> Tensor:
    """Mask of the channels with a non-zero consumer column: bool (units, largest upper bound), padded with False.

    Entries are compared with zero one by one: the norm of tiny ones would underflow to zero. Traces the model when
    `structure` is not given.
    """
    tensors = dict(model.named_parameters())
    rows = []
    for unit in (structure or trace.structure(model)).units:
        consumers = [part for part in unit.slices if part.role == "consumer"]
        alive = [_per_channel(torch.any, tensors[part.tensor] != 0, part) for part in consumers]
        rows.append(torch.stack(alive).any(dim=0))
    return pad_sequence(rows, batch_first=True)


def active_widths(model: nn.Module) -> tuple[int, ...]:
    """The number of active channels of every unit (the paper's phi), in execution order."""
    return tuple(active_channels(model).sum(dim=1).tolist())


def importance(model: nn.Module, structure: Structure, metric: Mapping[str, Tensor] | None = None) -> Tensor:
    """Squared norm of each channel's consumer columns and depthwise filters: (units, largest upper bound), zero-padded.

    metric: positive factors by tensor name, shaped like the tensors; the result is then the sum of factor * entry^2,
    the a_i of ECC's Algorithm 2. Producer rows never count.
    """
    tensors = dict(model.named_parameters())
    rows = []
    for unit in structure.units:
        row = tensors[unit.slices[0].tensor].new_zeros(unit.upper_bound)
        for part in unit.slices:
            if part.role in ("consumer", "depthwise"):
                squares = tensors[part.tensor].detach().square()
                if metric is not None:
                    squares *= metric[part.tensor]
                row += _per_channel(torch.sum, squares, part)
        rows.append(row)
    return pad_sequence(rows, batch_first=True)


@torch.no_grad()
def zero_channels(
    model: nn.Module,
    structure: Structure,
    dead: Tensor,
    optimizer: torch.optim.Optimizer | None = None,
    roles: Collection[Role] = ROLES,
) -> None:
    """Zero all parameter slices of the dead channels, and the same entries of the optimizer's state, in place.

    dead: bool (units, largest upper bound). A dead channel's activations and gradients are then exactly zero, in
    training and in evaluation mode. So it stays dead through any steps of Adam or SGD with weight decay, without a
    mask. Running statistics are left alone: a batch norm whose weight and bias are zero doesn't use them.
    roles: of the slices that are zeroed; where some are left, a channel may grow back.
    """
    dead = dead.cpu()  # the only synchronisation with a GPU, and only for a mask that is on it
    touched = [(unit, row) for unit, row in zip(structure.units, dead, strict=True) if bool(row.any())]
    parameters = dict(model.named_parameters()) if touched else {}
    parts, entries = [], []
    for unit, row in touched:  # few channels die at a time: index those instead of masking all
        channels = row[: unit.upper_bound].nonzero().flatten()
        for part in unit.slices:
            if part.role in roles and (parameter := parameters.get(part.tensor)) is not None:
                parts.append((parameter, part.dim))
                entries.append(channel_entries(channels, part.repeat))
    if not parts:
        return
    indices = torch.cat(entries).to(parts[0][0].device, non_blocking=True)  # one copy to the device for all slices
    for (parameter, dim), part_indices in zip(parts, indices.split([len(one) for one in entries]), strict=True):
        state = optimizer.state.get(parameter, {}) if optimizer is not None else {}
        for tensor in (parameter, *state.values()):
            if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:  # a moment, not the count of steps
                tensor.index_fill_(dim, part_indices, 0)


def compact(model: nn.Module, structure: Structure | None = None) -> nn.Module:
    """A smaller copy without the channels whose consumer columns are all zero; outputs are equal, in both modes.

    A unit without any active channel keeps its first. `config["widths"]` of the copy, where there is one, is updated.
    Convolutions keep their memory format. Traces the model when `structure` is not given.
    """
    table = structure or trace.structure(model)
    small = copy.deepcopy(model)
    widths = []
    for unit, row in zip(table.units, active_channels(model, table), strict=True):
        channels = row[: unit.upper_bound].nonzero().flatten()
        channels = channels if len(channels) else channels.new_zeros(1)
        widths.append(len(channels))
        for part in unit.slices if len(channels) < unit.upper_bound else ():
            _cut(small, part, channel_entries(channels, part.repeat))
    for module in small.modules():
        _follow_shapes(module)
    config: Any = getattr(model, "config", None)
    if config is not None:
        small.config = {**config, "widths": widths}  # type: ignore[assignment]
    return small


def channel_entries(channels: Tensor, repeat: int) -> Tensor:
    """Indices of these channels along a dimension with `repeat` entries per channel: int64 (channels * repeat,)."""
    return (channels[:, None] * repeat + torch.arange(repeat, device=channels.device)).flatten()


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a tensor (outputs, channels, h, w) is stored with its channels next to each other."""
    return tensor.ndim == 4 and tensor.stride(1) == 1 and tensor.stride(3) == tensor.shape[1]


def _per_channel(reduction: Callable[..., Tensor], tensor: Tensor, part: Slice) -> Tensor:
    """Reduce all entries of each channel of the slice to one: (channels,)."""
    entries = reduction(tensor, dim=[dim for dim in range(tensor.ndim) if dim != part.dim])
    return reduction(entries.view(-1, part.repeat), dim=1)


def _cut(model: nn.Module, part: Slice, entries: Tensor) -> None:
    """Keep only `entries` along the slice's dimension, in a parameter or buffer of the model."""
    owner_name, _, name = part.tensor.rpartition(".")
    owner = model.get_submodule(owner_name)
    tensor = getattr(owner, name)
    smaller = tensor.detach().index_select(part.dim, entries)
    if is_channels_last(tensor):
        smaller = smaller.to(memory_format=torch.channels_last)  # index_select loses it, and training would be slower
    setattr(owner, name, nn.Parameter(smaller, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else smaller)


def _follow_shapes(module: Any) -> None:
    """Set a layer's size attributes, such as `in_channels`, to the shapes of its tensors."""
    match module:
        case nn.Conv2d() if trace.is_depthwise(module):
            module.depthwise = True  # type: ignore[assignment]
            module.groups = module.in_channels = module.out_channels = module.weight.shape[0]
        case nn.Conv2d():
            module.out_channels, module.in_channels = module.weight.shape[:2]
        case nn.ConvTranspose2d():
            module.in_channels, module.out_channels = module.weight.shape[:2]
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.BatchNorm2d():
            module.num_features = module.weight.shape[0]

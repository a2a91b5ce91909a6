"""Reads, zeroes and cuts channels by the slices in a `Structure`; loops run over units, never over channels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from shared.errors import BadInput
from shared.networks import trace
from shared.networks.forms import is_grouped
from shared.networks.units import Owner, Role, Slice, Structure

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
        alive = [per_channel(torch.any, tensors[part.tensor] != 0, part, unit.upper_bound) for part in consumers]
        rows.append(torch.stack(alive).any(dim=0))
    return pad_sequence(rows, batch_first=True)


def active_widths(model: nn.Module) -> tuple[int, ...]:
    """The number of active channels of every unit (the paper's phi), in execution order."""
    return tuple(active_channels(model).sum(dim=1).tolist())


def importance(
    model: nn.Module,
    structure: Structure,
    metric: Mapping[str, Tensor] | None = None,
    roles: tuple[Role, ...] = ("consumer", "depthwise"),
) -> Tensor:
    """Squared norm of each channel's consumer columns and depthwise filters: (units, largest upper bound), zero-padded.

    metric: positive factors by tensor name, shaped like the tensors; the result is then the sum of factor * entry^2,
    the a_i of ECC's Algorithm 2. roles: which of its tensors count. Producer rows never do.
    """
    tensors = dict(model.named_parameters())
    rows = []
    for unit in structure.units:
        row = tensors[unit.slices[0].tensor].new_zeros(unit.upper_bound)
        for part in unit.slices:
            if part.role in roles:
                squares = tensors[part.tensor].detach().square()
                if metric is not None:
                    squares *= metric[part.tensor]
                row += per_channel(torch.sum, squares, part, unit.upper_bound)
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
                entries.append(entries_of(part, channels))
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
    return keeping(model, table, channels_left(model, table))


def channels_left(model: nn.Module, structure: Structure) -> list[Tensor]:
    """Indices of the channels that `compact` leaves of every unit, ascending."""
    rows = active_channels(model, structure)
    active = [row[: unit.upper_bound].nonzero().flatten() for unit, row in zip(structure.units, rows, strict=True)]
    return [channels if len(channels) else channels.new_zeros(1) for channels in active]


def resized(model: nn.Module, widths: Sequence[int], structure: Structure | None = None) -> nn.Module:
    """A copy with the first `widths` channels of every unit, in execution order, whatever their weights are.

    Raises BadInput for widths that are too many, too few or outside 1..upper bound. Otherwise as `compact`.
    """
    table = structure or trace.structure(model)
    bounds, config = table.upper_bounds, getattr(model, "config", None)
    name = config["name"] if isinstance(config, dict) and "name" in config else type(model).__name__
    if len(widths) != len(bounds):
        raise BadInput(f"{len(bounds)} widths for {name}", len(widths), f"one for each upper bound of {bounds}")
    for unit, (width, bound) in enumerate(zip(widths, bounds, strict=True)):
        if not (isinstance(width, Integral) and not isinstance(width, bool) and 1 <= int(width) <= bound):
            raise BadInput(f"an integer from 1 to {bound} as width {unit} of {name}", width, f"widths within {bounds}")
    device = next(model.parameters()).device
    return keeping(model, table, [torch.arange(int(width), device=device) for width in widths])


def keeping(model: nn.Module, structure: Structure, kept: Sequence[Tensor]) -> nn.Module:
    """A copy with these channels of every unit, ascending indices each."""
    small = copy.deepcopy(model)
    for name, dim in structure.owners:
        _cut(small, name, dim, structure, kept)
    for module in small.modules():
        follow_shapes(module)
    widths = [len(channels) for channels in kept]
    if any(operation.kind == "norm" for operation in structure.operations):
        modules = dict(small.named_modules())
        for operation in structure.at(widths).operations:
            if operation.kind == "norm" and operation.module is None:  # no tensor of its own tells its size
                _follow_size(modules.get(operation.name), operation.outputs.dense)
    config: Any = getattr(model, "config", None)
    if isinstance(config, dict):
        small.config = {**config, "widths": widths}  # type: ignore[assignment]
    return small


def channel_entries(channels: Tensor, repeat: int) -> Tensor:
    """Indices of these channels along a dimension with `repeat` entries per channel: int64 (channels * repeat,)."""
    return (channels[:, None] * repeat + torch.arange(repeat, device=channels.device)).flatten()


def entries_of(part: Slice | Owner, channels: Tensor) -> Tensor:
    """Indices of these channels' entries along the slice's dimension: int64 (channels * repeat,)."""
    return channel_entries(channels, part.repeat) + part.offset


def kept_entries(size: int, owners: Sequence[Owner], kept: Sequence[Tensor]) -> Tensor:
    """Indices along a dimension of `size` entries that are left: those of kept channels, and those of no unit.

    owners: of the dimension's parts, by offset. kept: ascending indices of the channels that each unit keeps.
    """
    device = kept[owners[0].unit].device
    pieces, end = [], 0
    for owner in owners:
        pieces += [torch.arange(end, owner.offset, device=device), entries_of(owner, kept[owner.unit])]
        end = owner.offset + owner.upper_bound * owner.repeat
    return torch.cat([*pieces, torch.arange(end, size, device=device)])


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a tensor (outputs, channels, h, w) is stored with its channels next to each other."""
    return tensor.ndim == 4 and tensor.stride(1) == 1 and tensor.stride(3) == tensor.shape[1]


def owned(tensor: Tensor, part: Slice, channels: int) -> Tensor:
    """The entries of a tensor that belong to a slice of so many channels, a view."""
    entries = channels * part.repeat
    return tensor if tensor.shape[part.dim] == entries else tensor.narrow(part.dim, part.offset, entries)


def per_channel(reduction: Callable[..., Tensor], tensor: Tensor, part: Slice, channels: int) -> Tensor:
    """Reduce all entries of each channel of the slice to one: (channels,)."""
    entries = reduction(owned(tensor, part, channels), dim=[dim for dim in range(tensor.ndim) if dim != part.dim])
    return reduction(entries.view(-1, part.repeat), dim=1)


def cut_along(tensor: Tensor, name: str, dim: int, structure: Structure, kept: Sequence[Tensor]) -> Tensor:
    """The kept channels' entries along `dim` of a tensor that is shaped like the network's of that name."""
    owners = structure.owners.get((name, dim), [])
    if all(len(kept[owner.unit]) == owner.upper_bound for owner in owners):
        return tensor
    smaller = tensor.detach().index_select(dim, kept_entries(tensor.shape[dim], owners, kept).to(tensor.device))
    # index_select loses the memory format, and training would be slower
    return smaller.to(memory_format=torch.channels_last) if is_channels_last(tensor) else smaller


def _cut(model: nn.Module, name: str, dim: int, structure: Structure, kept: Sequence[Tensor]) -> None:
    """Keep only the kept channels' entries along `dim` of a parameter or buffer of the model."""
    owner_name, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner_name)
    tensor = getattr(module, leaf)
    smaller = cut_along(tensor, name, dim, structure, kept)
    if smaller is tensor:
        return
    setattr(module, leaf, nn.Parameter(smaller, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else smaller)


def follow_shapes(module: Any) -> None:
    """Set a layer's size attributes, such as `in_channels`, to the shapes of its tensors."""
    match module:
        case nn.Conv2d() | nn.ConvTranspose2d() if is_grouped(module):
            made = max(1, module.out_channels // module.groups)  # by each of its groups, before and after
            transposed = isinstance(module, nn.ConvTranspose2d)
            depth = max(1, module.in_channels // module.groups)
            module.groups = module.weight.shape[0] // (depth if transposed else made)
            module.in_channels, module.out_channels = module.groups * depth, module.groups * made
            module.depthwise = True  # type: ignore[assignment]
        case nn.Conv2d():
            module.out_channels, module.in_channels = module.weight.shape[:2]
        case nn.ConvTranspose2d():
            module.in_channels, module.out_channels = module.weight.shape[:2]
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.modules.batchnorm._NormBase() if module.weight is not None or module.running_mean is not None:
            _follow_size(module, len(module.weight if module.weight is not None else module.running_mean))
        case nn.GroupNorm() if module.weight is not None:
            _follow_size(module, len(module.weight))
        case nn.PReLU():
            module.num_parameters = len(module.weight)


def _follow_size(norm: Any, channels: int) -> None:
    """Set the sizes of a normalisation of this many channels."""
    match norm:
        case nn.modules.batchnorm._NormBase():
            norm.num_features = channels
        case nn.GroupNorm():
            neighbours = norm.num_channels // norm.num_groups
            norm.num_channels, norm.num_groups = channels, channels // neighbours

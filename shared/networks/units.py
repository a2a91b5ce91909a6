"""The structure of a network: which tensor slices each prunable unit owns, and the operations of a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from shared.cache import content_key
from shared.networks.operations import Channels, Operation, fields_of, priced

Role = Literal["producer", "bias", "norm", "scale", "depthwise", "consumer", "mask"]


@dataclass(frozen=True)
class Slice:
    """A unit's part of one tensor: channel i owns `repeat` entries along `dim`, from offset + i * repeat on.

    role: producer (weight rows that compute the channel), bias, norm (a normalisation's weight, bias and running
    statistics), scale (another factor, slope or offset per channel), depthwise (the filters that read this channel
    alone), consumer (weight columns that read the channel) or mask (of a layer's input, see shared.networks.masks).
    """

    tensor: str  # name in the state dict
    dim: int
    repeat: int  # height * width for the columns that read a flattened map, channels of a group, else 1
    role: Role
    offset: int = 0  # of the first channel: entries of what is concatenated before it


@dataclass(frozen=True)
class Unit:
    """A group of channels with one width: removing channel i removes entry i of all its slices.

    Where convolutions have groups, a channel of the unit stands for as many channels as go together.
    """

    index: int  # from 0 in execution order
    name: str  # of the first module that produces the channels
    upper_bound: int  # the dense width
    slices: tuple[Slice, ...]  # of all tensors that have these channels, through every layer that an addition ties


class Owner(NamedTuple):
    """A unit's part of one dimension of a tensor: `upper_bound` channels with `repeat` entries each, from `offset`."""

    offset: int
    unit: int
    upper_bound: int
    repeat: int
    role: Role


@dataclass(frozen=True)
class Structure:
    """Units and operations of a network, both in execution order. `shared.networks.structure` derives it.

    Position 0 is the number of image channels, position u + 1 the width of unit u, the last one the number of outputs.

    Between two convolutions lies one unit. To remove its channel i is to remove row i of the first weight and bias,
    entry i of the batch norm's four tensors, and column i of the second weight:

        >>> from torch import nn
        >>> from shared.networks import structure
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> network.input_shape = (3, 8, 8)
        >>> for part in structure(network).units[0].slices:
        ...     print(part.tensor, "along", part.dim, part.role)
        0.weight along 0 producer
        0.bias along 0 bias
        1.weight along 0 norm
        1.bias along 0 norm
        1.running_mean along 0 norm
        1.running_var along 0 norm
        3.weight along 1 consumer
        >>> structure(network).position_bounds
        (3, 4, 2)
    """

    units: tuple[Unit, ...]
    operations: tuple[Operation, ...]
    image_channels: int
    outputs: int

    @cached_property
    def upper_bounds(self) -> tuple[int, ...]:
        """The dense width of every unit."""
        return tuple(unit.upper_bound for unit in self.units)

    @cached_property
    def position_bounds(self) -> tuple[int, ...]:
        """The dense positions: image channels, upper bounds, outputs."""
        return (self.image_channels, *self.upper_bounds, self.outputs)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the operations' fields that simulated platforms price (see `priced`); independent of the widths."""
        return content_key([priced(operation) for operation in self.operations], self.position_bounds)

    @cached_property
    def exact_fingerprint(self) -> str:
        """Hash of all fields of the operations: what decides the cost of a forward pass on hardware."""
        return content_key([fields_of(operation) for operation in self.operations], self.position_bounds)

    @cached_property
    def edges(self) -> tuple[tuple[int | None, int | None, float], ...]:
        """(input position, output position, constant) of every linear layer and every convolution without groups.

        The constant times the two positions is the layer's number of multiply-adds. A layer that reads a concatenation
        has an edge for each part of it, and the multiply-adds are their sum. A side that never changes is None; its
        number of channels is in the constant.
        """
        ones = np.ones(len(self.position_bounds))
        return tuple(
            (inputs.position, outputs.position, float(replace(operation, inputs=inputs, outputs=outputs).macs(ones)))
            for operation in self.operations
            if operation.kind in ("conv", "transposed_conv", "linear")
            for inputs in operation.inputs.parts
            for outputs in operation.outputs.parts
        )

    @cached_property
    def owners(self) -> dict[tuple[str, int], list[Owner]]:
        """Which units own parts of a tensor along a dimension, in the order of the entries."""
        owners: dict[tuple[str, int], list[Owner]] = {}
        for unit in self.units:
            for part in unit.slices:
                owner = Owner(part.offset, unit.index, unit.upper_bound, part.repeat, part.role)
                owners.setdefault((part.tensor, part.dim), []).append(owner)
        return {key: sorted(found) for key, found in owners.items()}

    def at(self, widths: Sequence[int]) -> Structure:
        """The structure of this network pruned to `widths`, without another trace."""
        counts = (self.image_channels, *widths, self.outputs)

        def cut(channels: Channels) -> Channels:
            return Channels.of(
                part if part.position is None else replace(part, count=counts[part.position]) for part in channels.parts
            )

        def moved(part: Slice) -> Slice:
            before = [other for other in self.owners[part.tensor, part.dim] if other.offset < part.offset]
            gone = sum((other.upper_bound - widths[other.unit]) * other.repeat for other in before)
            return replace(part, offset=part.offset - gone)

        return replace(
            self,
            units=tuple(
                replace(unit, upper_bound=width, slices=tuple(moved(part) for part in unit.slices))
                for unit, width in zip(self.units, widths, strict=True)
            ),
            operations=tuple(
                replace(
                    operation,
                    inputs=cut(operation.inputs),
                    outputs=cut(operation.outputs),
                    scales=operation.scales and cut(operation.scales),
                )
                for operation in self.operations
            ),
        )

    @cached_property
    def prunable_share(self) -> float:
        """Share of the dense network's multiply-adds in layers that read or make channels of a unit."""
        dense, units = self.position_bounds, range(1, len(self.units) + 1)
        counts = [
            (float(operation.macs(dense)), any(part.position in units for side in sides for part in side.parts))
            for operation in self.operations
            for sides in [(operation.inputs, operation.outputs)]
        ]
        total = sum(count for count, _ in counts)
        return sum(count for count, prunable in counts if prunable) / total if total else 0.0

    def positions(self, widths: ArrayLike | Tensor) -> Tensor:
        """Widths (..., units) with image channels and outputs added: float64 (..., units + 2); differentiable."""
        rows = torch.as_tensor(widths, dtype=torch.float64)
        if rows.ndim == 0 or rows.shape[-1] != len(self.units):
            raise ValueError(
                f"expected {len(self.units)} widths, got shape {tuple(rows.shape)}; try widths without the fixed ends"
            )
        image, outputs = (rows.new_full((*rows.shape[:-1], 1), end) for end in (self.image_channels, self.outputs))
        return torch.cat([image, rows, outputs], dim=-1)

    def macs(self, widths: ArrayLike | Tensor) -> Tensor:
        """Multiply-adds per image at widths (..., units): int64 (...,)."""
        positions = self.positions(widths).detach().cpu().numpy()
        return torch.as_tensor(sum(operation.macs(positions) for operation in self.operations)).to(torch.int64)

    def parameters(self, widths: ArrayLike | Tensor) -> Tensor:
        """Trainable parameters at widths (..., units): int64 (...,)."""
        positions = self.positions(widths).detach().cpu().numpy()
        return torch.as_tensor(sum(operation.parameters(positions) for operation in self.operations)).to(torch.int64)

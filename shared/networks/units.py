"""The structure of a network: which tensor slices each prunable unit owns, and the operations of a forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from shared.cache import content_key
from shared.networks.operations import Channels, Operation, priced

Role = Literal["producer", "bias", "norm", "depthwise", "consumer", "mask"]


@dataclass(frozen=True)
class Slice:
    """A unit's part of one tensor: channel i owns entries i * repeat to (i + 1) * repeat - 1 along `dim`.

    role: producer (weight rows that compute the channel), bias, norm (batch norm's weight, bias and running
    statistics), depthwise (the channel's own filter), consumer (weight columns that read the channel) or mask (of a
    layer's input, see shared.networks.masks).
    """

    tensor: str  # name in the state dict
    dim: int
    repeat: int  # height * width for the columns that read a flattened map, else 1
    role: Role


@dataclass(frozen=True)
class Unit:
    """A group of channels with one width: removing channel i removes entry i of all its slices."""

    index: int  # from 0 in execution order
    name: str  # of the first module that produces the channels
    upper_bound: int  # the dense width
    slices: tuple[Slice, ...]  # of all tensors that have these channels, through every layer that an addition ties


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
        return content_key([dataclasses.asdict(operation) for operation in self.operations], self.position_bounds)

    @cached_property
    def edges(self) -> tuple[tuple[int | None, int | None, float], ...]:
        """(input position, output position, constant) of every linear layer and every convolution but depthwise ones.

        A layer's multiply-adds are the constant times its two positions. A side that never changes is None; its number
        of channels is in the constant.
        """
        ones = np.ones(len(self.position_bounds))
        return tuple(
            (operation.inputs.position, operation.outputs.position, float(operation.macs(ones)))
            for operation in self.operations
            if operation.kind in ("conv", "transposed_conv", "linear")
        )

    def at(self, widths: Sequence[int]) -> Structure:
        """The structure of this network pruned to `widths`, without another trace."""
        counts = (self.image_channels, *widths, self.outputs)

        def cut(channels: Channels) -> Channels:
            position = channels.position
            return channels if position is None else dataclasses.replace(channels, count=counts[position])

        return dataclasses.replace(
            self,
            units=tuple(
                dataclasses.replace(unit, upper_bound=width) for unit, width in zip(self.units, widths, strict=True)
            ),
            operations=tuple(
                dataclasses.replace(operation, inputs=cut(operation.inputs), outputs=cut(operation.outputs))
                for operation in self.operations
            ),
        )

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

"""The table of a network: which tensor slices each prunable unit owns, and what its forward pass launches."""

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

Role = Literal["producer", "bias", "norm", "depthwise", "consumer"]


@dataclass(frozen=True)
class Slice:
    """The part of one tensor that goes with a unit: channel i owns entries [i * repeat, (i + 1) * repeat) along `dim`.

    tensor: its name in the state dict. repeat: height * width for the columns after a flatten, else 1.
    role: producer (weight rows that make the channel), bias, norm (batch norm's weight, bias and running statistics),
    depthwise (the channel's own filter) or consumer (weight columns that read the channel).
    """

    tensor: str
    dim: int
    repeat: int
    role: Role


@dataclass(frozen=True)
class Unit:
    """Channels that live and die together: one width. `name` is the module that produces them first."""

    index: int
    name: str
    upper_bound: int
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Structure:
    """Units and operations of a network, both in execution order; made by `shared.networks.structure`.

    Position 0 is the image's channels, position u + 1 the width of unit u, the last one the network's outputs.
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
        """Hash of what simulated platforms price in the operations, at any widths; `priced` says which fields."""
        return content_key([priced(operation) for operation in self.operations], self.position_bounds)

    @cached_property
    def exact_fingerprint(self) -> str:
        """Hash of all that the operations say, dilation too: what decides the cost of a forward pass on hardware."""
        return content_key([dataclasses.asdict(operation) for operation in self.operations], self.position_bounds)

    @cached_property
    def edges(self) -> tuple[tuple[int | None, int | None, float], ...]:
        """(in position, out position, constant) of every convolution (not depthwise) and linear layer.

        Its multiply-adds are the constant times the positions; a side that never changes is None and in the constant.
        """
        ones = np.ones(len(self.position_bounds))
        return tuple(
            (operation.inputs.position, operation.outputs.position, float(operation.macs(ones)))
            for operation in self.operations
            if operation.kind in ("conv", "transposed_conv", "linear")
        )

    def at(self, widths: Sequence[int]) -> Structure:
        """The structure of this network cut to `widths`, without tracing it anew."""
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
        """Widths (..., units) with the fixed ends added: float64 (..., units + 2), differentiable for a tensor."""
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

"""NetAdapt's lookup table: joules per group of operations on a grid of (input width, output width).

Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", ECCV 2018: a network costs
what its layers' entries add up to. Here the entries come from the energy model that all methods share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.energy import BilinearModel

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Entry:
    """Joules of one group of operations by its input width (position `first`) and output width (position `second`).

    joules: (n, m) on the widths `first_grid` (n,) and `second_grid` (m,), both rising.
    """

    first: int
    second: int
    first_grid: Floats
    second_grid: Floats
    joules: Floats

    def at(self, positions: Floats) -> Floats:
        """Bilinear interpolation at each row of positions (..., p): (...,). Exact for a bilinear function."""
        low, high, share = _places(self.first_grid, positions[..., self.first])
        left, right, part = _places(self.second_grid, positions[..., self.second])
        below = (1 - part) * self.joules[low, left] + part * self.joules[low, right]
        above = (1 - part) * self.joules[high, left] + part * self.joules[high, right]
        return (1 - share) * below + share * above


@dataclass(frozen=True, eq=False)
class LookupTable:
    """Sum of interpolated entries plus a constant; a stand-in for the energy model in NetAdapt's search."""

    constant: float
    entries: tuple[Entry, ...]
    position_bounds: tuple[int, ...]

    @classmethod
    def from_model(cls, model: BilinearModel, position_bounds: tuple[int, ...], points: int = 9) -> LookupTable:
        """Tabulate `model` term by term: one entry per term, `points` widths per axis from 1 to the dense position.

        What a term adds is the estimate with its two positions alone, over the estimate at no channels at all, which is
        the constant.
        """
        empty = torch.zeros(len(position_bounds), dtype=torch.float64)
        constant = float(model(empty))
        entries = []
        for first, second in model.terms:
            if first == second:
                raise ValueError(
                    f"expected terms of two positions, got ({first}, {second}); try a table without squares"
                )
            first_grid, second_grid = (_grid(position_bounds[position], points) for position in (first, second))
            rows = empty.repeat(len(first_grid), len(second_grid), 1)  # (n, m, p)
            rows[..., first] = torch.from_numpy(first_grid)[:, None]
            rows[..., second] = torch.from_numpy(second_grid)[None, :]
            joules = model(rows.flatten(0, 1)).reshape(rows.shape[:2]).numpy() - constant
            entries.append(Entry(first, second, first_grid, second_grid, joules))
        return cls(constant, tuple(entries), position_bounds)

    @property
    def readings(self) -> int:
        """How many numbers were asked of the energy model to fill the table."""
        return 1 + sum(entry.joules.size for entry in self.entries)

    def __call__(self, positions: Tensor) -> Tensor:
        """Joules at each row of positions (n, p) or (p,): float64 (n,) or (). Raises ValueError outside the grid."""
        rows = positions.detach().cpu().double().numpy()
        inside = (rows >= 1) & (rows <= np.array(self.position_bounds))
        if not inside.all():
            raise ValueError(
                f"expected positions within 1..{self.position_bounds}, got {rows[~inside][0]:g}; try its widths"
            )
        total = np.full(rows.shape[:-1], self.constant)
        for entry in self.entries:
            total = total + entry.at(rows)
        return torch.as_tensor(total)


def _grid(bound: int, points: int) -> Floats:
    """At most `points` whole widths from 1 to `bound`, evenly spaced."""
    return np.unique(np.linspace(1, bound, points).round())


def _places(grid: Floats, values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """The grid points below and above each value, and how far it is from the one to the other (0..1)."""
    place = np.interp(values, grid, np.arange(len(grid)))
    low = np.floor(place).astype(np.intp)
    return low, np.minimum(low + 1, len(grid) - 1), place - low

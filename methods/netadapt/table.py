"""NetAdapt's lookup table: energy per group of operations on a grid of (input width, output width).

Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", ECCV 2018: a
network costs the sum of its layers' entries. `from_model` fills a table from the energy model that all methods share,
`methods.netadapt.readings` from readings of single operations; `methods.netadapt.table_file` writes one to disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.energy import BilinearModel
from shared.networks import Structure

Floats = NDArray[np.float64]

POINTS = 9  # widths per axis


@dataclass(frozen=True, eq=False)
class Entry:
    """Energy of one group of operations as a function of the positions that it depends on."""

    positions: tuple[int, ...]  # two for a convolution, one for a depthwise one, none for what never changes
    grids: tuple[Floats, ...]  # ascending widths, one grid per position
    energy: Floats  # at the grid points; one axis per position
    operations: tuple[str, ...] = ()  # names; none for a term of an energy model

    def at(self, rows: Floats) -> Floats:
        """Multilinear interpolation at each row of positions (..., p): (...,). Exact for a bilinear function."""
        cells = [_cell(grid, rows[..., position]) for position, grid in zip(self.positions, self.grids, strict=True)]
        total = np.zeros(rows.shape[:-1])
        for corner in itertools.product((0, 1), repeat=len(cells)):
            index = tuple(cell[side] for cell, side in zip(cells, corner, strict=True))
            weight = np.ones(rows.shape[:-1])
            for (_, _, share), side in zip(cells, corner, strict=True):
                weight *= share if side else 1 - share
            total += weight * self.energy[index]
        return total


@dataclass(frozen=True, eq=False)
class LookupTable:
    """The sum of interpolated entries is the energy per image; takes the energy model's place in NetAdapt's search."""

    entries: tuple[Entry, ...]
    position_bounds: tuple[int, ...]  # the dense positions: image channels, widths, outputs
    source: str  # where the numbers are from: "energy model", or that of a platform, such as "simulated"
    platform: str | None = None  # None where the source doesn't say
    batch: int | None = None  # images at once in a reading
    unit: str = "J"

    @classmethod
    def from_model(
        cls, model: BilinearModel, position_bounds: tuple[int, ...], points: int = POINTS, platform: str | None = None
    ) -> LookupTable:
        """Tabulate `model`: an entry for the constant and one per term, at most `points` widths per axis.

        A term's value is the estimate with all other positions zero, minus the constant, which is the estimate at zero
        channels everywhere. Raises ValueError for a model with squares of a position.
        """
        empty = np.zeros(len(position_bounds))
        constant = model(empty).numpy()
        entries = [Entry((), (), constant)]
        for term in model.terms:
            if term[0] == term[1]:
                raise ValueError(f"expected terms of two positions, got {term}; try a table without squares")
            counts = [position_bounds[position] for position in term]
            positions, grids, widths = term_grid(term, counts, position_bounds, points)
            rows = np.tile(empty, (*widths.shape[:-1], 1))  # (*grid, p)
            rows[..., list(term)] = widths
            energy = model(rows.reshape(-1, len(empty))).numpy().reshape(rows.shape[:-1]) - constant
            entries.append(Entry(positions, grids, energy))
        return cls(tuple(entries), position_bounds, "energy model", platform, None, model.unit)

    @property
    def size(self) -> int:
        """Number of tabulated values."""
        return sum(entry.energy.size for entry in self.entries)

    def energy(self, structure: Structure, widths: Sequence[int]) -> float:
        """Energy of one network."""
        return float(self(structure.positions(widths)))

    def __call__(self, positions: Tensor) -> Tensor:
        """Energy at each row of positions (n, p) or (p,): float64 (n,) or (), in `unit`.

        Raises ValueError outside the grid, and for other ends than the network's image channels and outputs.
        """
        rows = positions.detach().cpu().double().numpy()
        bounds = np.array(self.position_bounds)
        inside = (rows >= [bounds[0], *np.ones(len(bounds) - 2), bounds[-1]]) & (rows <= bounds)
        if not inside.all():
            raise ValueError(
                f"expected positions within 1..{self.position_bounds} and its ends, got {rows[~inside][0]:g}; "
                "try the network's own widths"
            )
        return torch.as_tensor(sum((entry.at(rows) for entry in self.entries), start=np.zeros(rows.shape[:-1])))


def term_grid(
    term: Sequence[int | None], counts: Sequence[int], position_bounds: tuple[int, ...], points: int
) -> tuple[tuple[int, ...], tuple[Floats, ...], Floats]:
    """The positions of `term` that can change, a grid for each, and the term's widths at each grid point.

    The widths have shape (*grid, len(term)). Where a position is an end of the network, or None, the width is that in
    `counts`. A term (u, u) has one grid, and its two widths are equal.
    """
    free = range(1, len(position_bounds) - 1)  # positions of units
    positions = tuple(dict.fromkeys(position for position in term if position is not None and position in free))
    grids = tuple(_grid(position_bounds[position], points) for position in positions)
    shape = tuple(map(len, grids))
    mesh: dict[int | None, Floats] = dict(zip(positions, np.meshgrid(*grids, indexing="ij"), strict=True))
    widths = [mesh.get(position, np.full(shape, float(count))) for position, count in zip(term, counts, strict=True)]
    return positions, grids, np.stack(widths, axis=-1)


def _grid(bound: int, points: int) -> Floats:
    """At most `points` whole widths from 1 to `bound`, as evenly spaced as rounding allows."""
    return np.unique(np.linspace(1, bound, points).round())


def _cell(grid: Floats, values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Indices of the grid points below and above each value, and its distance from the lower one as a share (0..1)."""
    index = np.interp(values, grid, np.arange(len(grid)))
    low = np.floor(index).astype(np.intp)
    return low, np.minimum(low + 1, len(grid) - 1), index - low

"""A simulated platform as the rest of the suite sees it: true joules, noisy counted readings, a batch to infer at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from shared.cache import content_key
from shared.errors import BadInput
from shared.networks.operations import Operation, priced
from shared.platforms import parameters
from shared.platforms.kernels import Array
from shared.platforms.noise import row_normals
from shared.platforms.simulator import Simulation, simulate

LARGEST_BATCH = 65_536
STILL_FALLING = 0.9  # what a doubled batch must at most multiply a figure by to count as lowering it


class SimulatedPlatform:
    """A chip that exists as a data file. Its joules are simulated: calibrated to six published dense figures, no more.

    unit: of what `measure` and `true` say, "J" or "s". instead_of: why the hardware that is here does not answer.
    `calibration` identifies the constants and formulas, `queries` counts the readings that `measure` has given.
    """

    source: Literal["simulated"] = "simulated"
    meter = "simulator"
    host = None

    def __init__(self, path: Path, unit: Literal["J", "s"] = "J", instead_of: str = "") -> None:
        self.name, self.unit, self.instead_of = path.stem, unit, instead_of
        self.parameters, self.entries = parameters.load(path)
        self.calibration = parameters.version(self.entries)
        self.queries = 0

    def simulate(self, operations: Sequence[Operation], positions: ArrayLike, batch: int) -> Simulation:
        """Joules with their causes and seconds, per image and without noise, for each row of `positions` (n, p)."""
        return simulate(tuple(operations), _checked_positions(positions), _checked_batch(batch), self.parameters)

    def true(self, operations: Sequence[Operation], positions: ArrayLike, batch: int) -> Array:
        """Noise-free amounts per image (n,) in the platform's unit: for final scoring and tests, never for a method."""
        amounts = self.true_joules if self.unit == "J" else self.true_seconds
        return amounts(operations, positions, batch)

    def true_joules(self, operations: Sequence[Operation], positions: ArrayLike, batch: int) -> Array:
        """Noise-free joules per image (n,): for final scoring and tests, never for a method."""
        return self.simulate(operations, positions, batch).joules

    def true_seconds(self, operations: Sequence[Operation], positions: ArrayLike, batch: int) -> Array:
        """Noise-free seconds per image (n,): for final scoring and tests, never for a method."""
        return self.simulate(operations, positions, batch).seconds

    def measure(self, operations: Sequence[Operation], positions: ArrayLike, batch: int, *, trial: int = 0) -> Array:
        """One noisy reading per row of `positions` (n, p): amounts per image (n,), each counted in `queries`.

        A reading is the true value times 1 + sigma * a standard normal number, which stands for what differs from run
        to run (clocks, temperature, sensor). It depends on platform, operations, batch, widths and `trial` alone: the
        same trial reads the same again, and averaging over trials approaches the true value.
        """
        amounts = self.true(operations, positions, batch)
        seed = int(content_key("reading", self.name, _fingerprint(tuple(operations)), batch, trial), 16)
        factors = 1 + self.parameters.reading_noise * row_normals(seed, _checked_positions(positions))
        self.queries += amounts.size
        return amounts * factors

    def inference_batch(self, operations: Sequence[Operation], position_bounds: Sequence[int]) -> int:
        """The smallest power of two from which on doubling the batch lowers the all-ones share by less than a tenth.

        The share is what the network costs with every width at 1, over what it costs dense. Below that batch a tiny
        network costs little but kernel launches, dense or not, and a single doubling may leave the share where it is;
        so every later doubling counts too. `position_bounds` are the dense positions, ends included. Raises BadInput
        when the share or the dense joules per image still fall by that much at LARGEST_BATCH.
        """
        ones = [position_bounds[0], *(1 for _ in position_bounds[1:-1]), position_bounds[-1]]
        batches = [2**k for k in range(LARGEST_BATCH.bit_length() + 1)]
        joules = np.array([self.true_joules(operations, [ones, list(position_bounds)], batch) for batch in batches])
        dense, shares = joules[:, 1], joules[:, 0] / joules[:, 1]
        falling = np.flatnonzero(shares[1:] <= STILL_FALLING * shares[:-1])
        chosen = int(batches[falling[-1] + 1]) if falling.size else 1
        if chosen > LARGEST_BATCH or dense[-1] <= STILL_FALLING * dense[-2]:
            expected = f"a network whose launches stop counting by batch {LARGEST_BATCH}"
            raise BadInput(expected, f"an all-ones share of {shares[-1]:.3g} there", "larger inputs or widths")
        return chosen


def names() -> tuple[str, ...]:
    """The simulated platforms, one data file each."""
    return tuple(sorted(path.stem for path in parameters.FOLDER.glob("*.toml")))


def get(name: str, unit: Literal["J", "s"] = "J", instead_of: str = "") -> SimulatedPlatform:
    """A fresh platform with its own count of queries; raises BadInput for an unknown name."""
    if name not in names():
        raise BadInput("a simulated platform", repr(name), " or ".join(names()))
    return SimulatedPlatform(parameters.FOLDER / f"{name}.toml", unit, instead_of)


def _checked_positions(positions: ArrayLike) -> Array:
    rows = np.asarray(positions, dtype=np.float64)
    if rows.ndim != 2:
        raise BadInput("positions of shape (n, p)", tuple(rows.shape), "a row per width vector")
    whole = (rows >= 1) & (rows == np.floor(rows)) & np.isfinite(rows)
    if not bool(whole.all()):
        raise BadInput("whole numbers of channels, 1 or more", float(rows[~whole][0]), "rounding the widths first")
    return np.asfortranarray(rows)  # kernels read it by column


def _checked_batch(batch: int) -> int:
    if batch < 1:
        raise BadInput("a batch of 1 or more images", batch, "1")
    return batch


@lru_cache(maxsize=32)
def _fingerprint(operations: tuple[Operation, ...]) -> str:
    return content_key([priced(operation) for operation in operations])

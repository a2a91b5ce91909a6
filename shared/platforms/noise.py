"""Standard normal numbers as a pure function of a seed and a row, for whole tables at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(state: Words) -> Words:
    """The SplitMix64 generator's output for each state (Steele, Lea, Flood, "Fast Splittable PRNGs", OOPSLA 2014)."""
    word = state + _GAMMA
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def row_normals(seed: int, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """A standard normal number for each row of `table` (n, p), the same for the same (seed, row) wherever it stands."""
    bits = np.ascontiguousarray(table.T + 0.0).view(np.uint64)  # adding zero turns -0.0 into 0.0
    state = np.full(table.shape[0], seed % 2**64, dtype=np.uint64)
    for column in bits:
        state = splitmix64(state ^ column)
    # Box-Muller; half a step above zero keeps the logarithm finite.
    first, second = (((splitmix64(state + np.uint64(k)) >> np.uint64(11)) + 0.5) / 2.0**53 for k in (1, 2))
    return np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)

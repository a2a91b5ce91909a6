"""Widths chosen one unit after the other that never exceed an energy budget.

The rule is the action bound of AMC (He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices",
ECCV 2018, Algorithm 1) with joules in place of multiply-adds, and exact: in whole channels, by the bilinear model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shared.energy.budget import largest_width
from shared.errors import Infeasible

WidthEnergy = Callable[[Tensor], Tensor]  # widths (n, units) or (units,) -> estimates (n,) or ()

LOWER_SHARE = 0.2  # of the dense width, that AMC's search leaves every layer at least


def lower_bounds(dense_widths: Sequence[int]) -> tuple[int, ...]:
    """The smallest whole widths of at least `LOWER_SHARE` of the dense ones."""
    return tuple(math.ceil(LOWER_SHARE * width) for width in dense_widths)


class BoundedWidths:
    """Turns ratios into widths, unit after unit, such that whatever follows can still meet the budget.

    energy: Ê of widths, in the unit of the budget, not falling when a width grows. lower, upper: whole numbers of
    channels, one per unit.
    With every later unit at its lower bound the estimate is within the budget after each choice, so the last choice
    ends within it. Early units choose freely, late ones take what is left (as AMC does).

    Raises Infeasible when the lower bounds themselves are above the budget.
    """

    def __init__(self, energy: WidthEnergy, budget: float, *, lower: Sequence[int], upper: Sequence[int]) -> None:
        self._energy, self.budget = energy, float(budget)
        self.lower, self.upper = tuple(lower), tuple(upper)
        if len(self.lower) != len(self.upper) or not all(
            1 <= low <= high for low, high in zip(self.lower, self.upper, strict=True)
        ):
            raise ValueError(
                f"expected lower bounds within 1 and the upper bounds {self.upper}, got {self.lower}; try one per unit"
            )
        least = self.energy(self.lower)
        if not least <= self.budget:
            raise Infeasible(
                f"expected a budget of at least {least:.6g} (widths at their lower bounds {self.lower}), "
                f"got {self.budget:.6g}; try a larger budget"
            )

    def energy(self, widths: Sequence[int]) -> float:
        """The estimate of one network."""
        return float(self._energy(torch.tensor(widths, dtype=torch.float64)))

    def limit(self, decided: Sequence[int]) -> int:
        """The largest width of the unit after the `decided` ones that leaves the rest a way into the budget."""
        unit = len(decided)
        low, high = self.lower[unit], self.upper[unit]
        row = torch.tensor([*decided, *self.lower[unit:]], dtype=torch.float64)

        def fits(width: int) -> bool:
            row[unit] = width
            return float(self._energy(row)) <= self.budget

        # linear in one width, so the solution is exact up to rounding; the two loops put that right and end at once
        width = int(min(max(largest_width(self._energy, row, unit, self.budget), low), high))
        while width < high and fits(width + 1):
            width += 1
        while width > low and not fits(width):
            width -= 1
        return width

    def width(self, decided: Sequence[int], ratio: float) -> int:
        """The width nearest to `ratio` (0..1) of the unit's upper bound within its bounds."""
        unit = len(decided)
        wanted = math.floor(ratio * self.upper[unit] + 0.5)
        return min(max(wanted, self.lower[unit]), self.limit(decided))

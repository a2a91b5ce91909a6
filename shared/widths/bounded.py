"""Chooses widths one unit after the other so that the network never exceeds an energy budget.

The rule is the action bound of AMC (He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices",
ECCV 2018, Algorithm 1) with joules in place of multiply-adds. It is exact: whole channels, by the bilinear model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shared.errors import Infeasible
from shared.widths.uniform import largest_width

WidthEnergy = Callable[[Tensor], Tensor]  # widths (n, units) or (units,) -> estimates (n,) or ()

LOWER_SHARE = 0.2  # AMC keeps at least this share of every layer's channels


def lower_bounds(dense_widths: Sequence[int]) -> tuple[int, ...]:
    """The smallest whole widths of at least `LOWER_SHARE` of the dense ones."""
    return tuple(math.ceil(LOWER_SHARE * width) for width in dense_widths)


class BoundedWidths:
    """Turns ratios into widths, unit after unit, so that the units still to come can meet the budget.

    energy: widths -> Ê, in the budget's unit; it must not fall when a width grows. lower, upper: bounds in whole
    channels, one per unit.

    After each choice the estimate with all later units at their lower bounds is within the budget, hence the last
    choice ends within it. Early units are hardly restricted and late ones get what remains, as in AMC. Example: Ê is
    the sum of the widths, the budget 12, and three units have bounds 2..10. The first unit may choose up to 8, since
    8 + 2 + 2 = 12. If it takes 7, the second may choose up to 3; if that takes 3, the third gets 2.

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
        if not least <= self.budget:  # also for NaN
            raise Infeasible(
                f"expected a budget of at least {least:.6g} (widths at their lower bounds {self.lower}), "
                f"got {self.budget:.6g}; try a larger budget"
            )

    def energy(self, widths: Sequence[int]) -> float:
        """Ê of one network."""
        return float(self._energy(torch.tensor(widths, dtype=torch.float64)))

    def limit(self, decided: Sequence[int]) -> int:
        """The largest width of the next unit with which all later units, at their lower bounds, meet the budget."""
        unit = len(decided)
        low, high = self.lower[unit], self.upper[unit]
        row = torch.tensor([*decided, *self.lower[unit:]], dtype=torch.float64)

        def fits(width: int) -> bool:
            row[unit] = width
            return float(self._energy(row)) <= self.budget

        # Ê is linear in a single width, so the solution is exact up to rounding. The loops correct the rounding, at
        # most by a channel.
        width = int(min(max(largest_width(self._energy, row, unit, self.budget), low), high))
        while width < high and fits(width + 1):
            width += 1
        while width > low and not fits(width):
            width -= 1
        return width

    def width(self, decided: Sequence[int], ratio: float) -> int:
        """The width nearest to `ratio` (0..1) of the next unit's upper bound, clipped to lower bound and `limit`."""
        unit = len(decided)
        wanted = math.floor(ratio * self.upper[unit] + 0.5)
        return min(max(wanted, self.lower[unit]), self.limit(decided))

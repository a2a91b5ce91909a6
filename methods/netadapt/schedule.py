"""How far NetAdapt's next step goes, which candidates it has, and how long each is trained.

Two published schedules: `Geometric` of the ECC authors' adaptation to energy, `Additive` of NetAdapt's own code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch

from methods.netadapt.table import LookupTable
from shared.networks import Structure

ROUNDING = 1e-12  # relative; keeps sums in another order from ending above the budget
Reachable = list[dict[int, float]]  # for every unit, width -> Ê of the whole network with this unit alone changed


@dataclass(frozen=True)
class Place:
    """Where a search stands: energy per image of the dense network, of the network by now, and the budget below it.

    targets: those of the steps behind it.
    """

    dense_energy: float
    energy: float
    budget: float
    targets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Step:
    """One step: where it aims, and the candidates.

    candidates: unit -> width, the largest that reaches `target_energy` by this unit alone.
    short_term_iterations: training of each candidate. coarser: it goes further than the published schedule. finer: less
    far, since no unit alone can go as far.
    """

    target_energy: float
    candidates: dict[int, int]
    short_term_iterations: int
    coarser: bool = False
    finer: bool = False


class Schedule(Protocol):
    """A rule for the targets of the steps; energies in the unit of the budget throughout."""

    def published_steps(self, at: Place) -> float:
        """Steps from here to the budget if none overshoots, the last one cut short; infinite where they never end."""

    def likely_steps(self, at: Place) -> int:
        """The same by an estimate that reckons with overshoot; iterations are shared out by it."""

    def target(self, at: Place) -> float:
        """The published target of the next step."""

    def coarser_target(self, at: Place, steps: int) -> float:
        """The target of the next step where all steps are stretched alike so that `steps` of them reach the budget."""

    def notes(self, dense_energy: float, targets: list[float], energy: list[float]) -> dict[str, Any]:
        """How large the steps were, for the record. targets, energy: of each step, what it aimed at and achieved."""


@dataclass(frozen=True)
class Geometric:
    """Targets E0 * decay^n, whatever was achieved: `net_adapt.py` in the published code of ECC (CVPR 2019)."""

    decay: float = 0.96

    def published_steps(self, at: Place) -> float:
        """See Schedule."""
        return max(0, math.ceil(math.log(at.budget / self._level(at)) / math.log(self.decay) - 1e-9))

    def likely_steps(self, at: Place) -> int:
        """See Schedule. Overshoot changes no target, and those that it has met are no longer counted."""
        return int(self.published_steps(at))

    def target(self, at: Place) -> float:
        """See Schedule."""
        return self._level(at) * self.decay

    def coarser_target(self, at: Place, steps: int) -> float:
        """See Schedule."""
        level = self._level(at)
        return level * float((at.budget / level) ** (1 / steps))

    def notes(self, dense_energy: float, targets: list[float], energy: list[float]) -> dict[str, Any]:
        """The least and the largest factor from one target to the next."""
        factors = [after / before for before, after in pairwise([dense_energy, *targets])]
        return {"factor_least": min(factors, default=1.0), "factor_most": max(factors, default=1.0)}

    def _level(self, at: Place) -> float:
        """The target before the next one; those that whole channels have met already, by overshooting, are left out."""
        level = at.targets[-1] if at.targets else at.dense_energy
        while level * self.decay >= at.energy:
            level *= self.decay
        return level


@dataclass(frozen=True)
class Additive:
    """Step n (from 0) saves first_share * decay^n of E0, counted from what was achieved: NetAdapt's published code.

    These reductions add up to first_share / (1 - decay) = 0.625 of E0, so that budgets below 0.375 of dense are met
    only because whole widths overshoot.
    """

    first_share: float = 0.025
    decay: float = 0.96

    def published_steps(self, at: Place) -> float:
        """See Schedule: the first n whose geometric sum covers what is left."""
        share = 1 - (at.energy - at.budget) * (1 - self.decay) / self._reduction(at)
        return max(0, math.ceil(math.log(share) / math.log(self.decay) - 1e-9)) if share > 0 else math.inf

    def likely_steps(self, at: Place) -> int:
        """See Schedule. Every step overshoots by up to a whole width, about what later reductions are smaller by."""
        return math.ceil((at.energy - at.budget) / self._reduction(at) - 1e-9)

    def target(self, at: Place) -> float:
        """See Schedule."""
        return at.energy - self._reduction(at)

    def coarser_target(self, at: Place, steps: int) -> float:
        """See Schedule."""
        return at.energy - (at.energy - at.budget) * (1 - self.decay) / (1 - float(self.decay**steps))

    def notes(self, dense_energy: float, targets: list[float], energy: list[float]) -> dict[str, Any]:
        """The least and the largest reduction over the published one."""
        aimed = [before - target for before, target in zip([dense_energy, *energy], targets, strict=False)]
        scales = [saved / (self.first_share * self.decay**n * dense_energy) for n, saved in enumerate(aimed)]
        return {"reduction_scale_least": min(scales, default=1.0), "reduction_scale_most": max(scales, default=1.0)}

    def _reduction(self, at: Place) -> float:
        return self.first_share * float(self.decay ** len(at.targets)) * at.dense_energy


GEOMETRIC, ADDITIVE = Geometric(), Additive()


def next_step(schedule: Schedule, at: Place, reachable: Reachable, iterations: int, minimum: int) -> Step | None:
    """The next step from `at`; None when no unit can save anything alone.

    The published step where `iterations` give every candidate of this and the likely steps after it at least
    `minimum`, counting as many candidates in each as in this one. Else the most steps that do, stretched alike. Where
    those have no candidate at all, since coarse steps are more than one unit can do, the coarsest that have; where even
    the published step has none, as in a network of many alike units, a finer one. The last step aims at the budget
    itself.
    """
    # a step takes at least one of the smaller widths; there is one to go even where rounding hides it
    finest = int(min(max(1, schedule.likely_steps(at)), sum(map(len, reachable))))
    found = None
    for steps in range(finest, 0, -1):
        aim = schedule.target(at) if steps == finest else schedule.coarser_target(at, steps)
        target = at.budget if steps == 1 else max(at.budget, aim)
        candidates = {unit: width for unit, energy in enumerate(reachable) if (width := widest(energy, target))}
        if not candidates:
            break
        found = Step(target, candidates, iterations // (len(candidates) * steps), coarser=steps < finest)
        if found.short_term_iterations >= minimum:
            break
    return found or _finer_step(at, reachable, iterations, minimum)


def _finer_step(at: Place, reachable: Reachable, iterations: int, minimum: int) -> Step | None:
    """A step that at least one unit can do alone; None when none saves anything.

    As small as what the k-th best unit can save at most, for the largest k for which `iterations` give k candidates at
    least `minimum` each in as many steps as that makes; k = 1 where none does.
    """
    most = sorted((at.energy - min(energies.values()) for energies in reachable if energies), reverse=True)
    most = [saved for saved in most if saved > ROUNDING * at.energy]
    if not most:
        return None
    steps = [math.ceil((at.energy - at.budget) / saved) for saved in most]
    k = max((k for k in range(1, len(most) + 1) if k * steps[k - 1] * minimum <= iterations), default=1)
    target = (at.energy - most[k - 1]) * (1 + 2 * ROUNDING)  # the k-th best has to be within it
    candidates = {unit: width for unit, energies in enumerate(reachable) if (width := widest(energies, target))}
    return Step(target, candidates, iterations // (len(candidates) * steps[k - 1]), finer=True)


def widest(energy: dict[int, float], target_energy: float) -> int:
    """The largest width whose energy is within the target; 0 when there is none."""
    limit = target_energy * (1 - ROUNDING)
    return max((width for width, value in energy.items() if value <= limit), default=0)


def reachable_energy(table: LookupTable, structure: Structure, width_steps: Sequence[int]) -> Reachable:
    """The table's total for every smaller width of each unit that its entry of `width_steps` divides, all other units
    as they are.

    So a unit of no more than its step stays whole, and one of another width goes to the next multiple below it first.
    """
    totals = []
    for unit, (width, width_step) in enumerate(zip(structure.upper_bounds, width_steps, strict=True)):
        smaller = range(width_step, width, width_step)
        rows = structure.positions(structure.upper_bounds).repeat(len(smaller), 1)  # (smaller widths, positions)
        rows[:, unit + 1] = torch.tensor(smaller)
        totals.append(dict(zip(smaller, table(rows).tolist(), strict=True)))
    return totals

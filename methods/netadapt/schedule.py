"""The steps of NetAdapt: how far each goes, which candidates it has, and how long each candidate is trained.

There are two published schedules: `Geometric` in the ECC authors' adaptation to energy, `Additive` in NetAdapt's code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from typing import Protocol as TypingProtocol

import torch

from methods.netadapt.table import LookupTable
from shared.networks import Structure

ROUNDING = 1e-12  # relative margin below targets, so that sums in another order meet the budget as well
Reachable = list[dict[int, float]]  # per unit: width -> Ê of the whole network with only this unit changed


@dataclass(frozen=True)
class Place:
    """The progress of a search. Energies are per image, in the budget's unit."""

    dense_energy: float
    energy: float  # of the present network
    budget: float
    targets: tuple[float, ...] = ()  # of the finished steps


@dataclass(frozen=True)
class Step:
    """One step of the search."""

    target_energy: float
    candidates: dict[int, int]  # unit -> largest width with which this unit alone meets `target_energy`
    short_term_iterations: int  # training of each candidate
    coarser: bool = False  # saves more than the published step, for want of iterations
    finer: bool = False  # saves less than the published step, since no single unit can save as much


class Schedule(TypingProtocol):
    """A rule for the targets of the steps."""

    def published_steps(self, at: Place) -> float:
        """Number of steps from `at` to the budget if none overshoots; inf if the budget is never met."""

    def likely_steps(self, at: Place) -> int:
        """The same number, but estimated with overshoot. The remaining iterations are divided by it."""

    def target(self, at: Place) -> float:
        """The published target of the next step."""

    def coarser_target(self, at: Place, steps: int) -> float:
        """The next step's target if all steps are enlarged equally, so that `steps` of them meet the budget."""

    def notes(self, dense_energy: float, targets: list[float], energy: list[float]) -> dict[str, Any]:
        """Least and largest step, for the record. targets, energy: of each step, the target and the energy achieved."""


@dataclass(frozen=True)
class Geometric:
    """Targets E0 * decay^n, independent of the energies achieved: `net_adapt.py` in the published code of ECC."""

    decay: float = 0.96

    def published_steps(self, at: Place) -> float:
        """See Schedule."""
        return max(0, math.ceil(math.log(at.budget / self._level(at)) / math.log(self.decay) - 1e-9))

    def likely_steps(self, at: Place) -> int:
        """See Schedule. Overshoot changes no later target, and targets that it has met already are not counted."""
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
        """The last target, or a later one if overshoot by whole channels has met it already."""
        level = at.targets[-1] if at.targets else at.dense_energy
        while level * self.decay >= at.energy:
            level *= self.decay
        return level


@dataclass(frozen=True)
class Additive:
    """Step n (from 0) saves first_share * decay^n of E0 from the energy achieved so far: NetAdapt's published code.

    These reductions add up to first_share / (1 - decay) = 0.625 of E0. Budgets below 0.375 of E0 are met only because
    whole widths overshoot.
    """

    first_share: float = 0.025
    decay: float = 0.96

    def published_steps(self, at: Place) -> float:
        """See Schedule: the first n whose geometric sum is at least the energy still to be saved."""
        share = 1 - (at.energy - at.budget) * (1 - self.decay) / self._reduction(at)
        return max(0, math.ceil(math.log(share) / math.log(self.decay) - 1e-9)) if share > 0 else math.inf

    def likely_steps(self, at: Place) -> int:
        """See Schedule. Counts equal reductions: overshoot by whole widths roughly makes up for their decay."""
        return math.ceil((at.energy - at.budget) / self._reduction(at) - 1e-9)

    def target(self, at: Place) -> float:
        """See Schedule."""
        return at.energy - self._reduction(at)

    def coarser_target(self, at: Place, steps: int) -> float:
        """See Schedule."""
        return at.energy - (at.energy - at.budget) * (1 - self.decay) / (1 - float(self.decay**steps))

    def notes(self, dense_energy: float, targets: list[float], energy: list[float]) -> dict[str, Any]:
        """The least and the largest ratio of a step's planned reduction to the published one."""
        planned = [before - target for before, target in zip([dense_energy, *energy], targets, strict=False)]
        scales = [saved / (self.first_share * self.decay**n * dense_energy) for n, saved in enumerate(planned)]
        return {"reduction_scale_least": min(scales, default=1.0), "reduction_scale_most": max(scales, default=1.0)}

    def _reduction(self, at: Place) -> float:
        return self.first_share * float(self.decay ** len(at.targets)) * at.dense_energy


GEOMETRIC, ADDITIVE = Geometric(), Additive()


def next_step(schedule: Schedule, at: Place, reachable: Reachable, iterations: int, minimum: int) -> Step | None:
    """The next step from `at`; None when no single unit can save energy.

    iterations: training iterations that remain; this step and the later ones share them equally, as if all had as many
    candidates. minimum: least training of a candidate. The first rule that applies decides:
    1. The published step, if every candidate gets `minimum`.
    2. A coarser step, one of the largest number of equally enlarged steps with which every candidate gets `minimum`.
    3. The coarsest step with a candidate: still larger ones are more than a single unit can do.
    4. A finer step, if even the published one has no candidate (see `_finer_step`).
    The target of the last step is the budget.

    Example: a budget of 0.9 takes three steps of factor 0.96. 60 iterations are 10 for each of two candidates in each
    of three steps. 50 iterations are only 8, but 12 in two steps of factor sqrt(0.9):

        >>> at = Place(dense_energy=1.0, energy=1.0, budget=0.9)
        >>> reachable = [{6: 0.80, 7: 0.90, 8: 0.97}, {3: 0.85, 4: 0.95}]
        >>> next_step(GEOMETRIC, at, reachable, iterations=60, minimum=10)
        Step(target_energy=0.96, candidates={0: 7, 1: 4}, short_term_iterations=10, coarser=False, finer=False)
        >>> coarser = next_step(GEOMETRIC, at, reachable, iterations=50, minimum=10)
        >>> round(coarser.target_energy, 4), coarser.candidates, coarser.short_term_iterations
        (0.9487, {0: 7, 1: 3}, 12)
    """
    # A step takes at least one of the smaller widths, so there are no more steps than widths. There is at least one
    # step, even if the energy exceeds the budget by rounding alone.
    finest = int(min(max(1, schedule.likely_steps(at)), sum(map(len, reachable))))
    step = None
    for steps in range(finest, 0, -1):
        planned = schedule.target(at) if steps == finest else schedule.coarser_target(at, steps)
        target = at.budget if steps == 1 else max(at.budget, planned)
        candidates = {unit: width for unit, energy in enumerate(reachable) if (width := widest(energy, target))}
        if not candidates:
            break
        step = Step(target, candidates, iterations // (len(candidates) * steps), coarser=steps < finest)
        if step.short_term_iterations >= minimum:
            break
    return step or _finer_step(at, reachable, iterations, minimum)


def _finer_step(at: Place, reachable: Reachable, iterations: int, minimum: int) -> Step | None:
    """A step so small that at least one unit can do it alone; None when none saves energy.

    It saves as much as the k-th best unit can at most, so that k units or more are candidates. k is the largest number
    for which `iterations` give each of k candidates `minimum` in all steps of this size; 1 if there is none.

    Example: 0.1 is to be saved, and three units can save 0.03, 0.02 and 0.01 alone, in 4, 5 and 10 such steps. With
    120 iterations and a minimum of 10, k = 2 needs 2 * 5 * 10 = 100 and k = 3 needs 300. So k = 2:

        >>> at = Place(dense_energy=1.0, energy=1.0, budget=0.9)
        >>> step = _finer_step(at, [{4: 0.97}, {5: 0.98}, {6: 0.99}], iterations=120, minimum=10)
        >>> round(step.target_energy, 4), step.candidates, step.short_term_iterations
        (0.98, {0: 4, 1: 5}, 12)
    """
    savings = sorted((at.energy - min(energies.values()) for energies in reachable if energies), reverse=True)
    savings = [saved for saved in savings if saved > ROUNDING * at.energy]
    if not savings:
        return None
    steps = [math.ceil((at.energy - at.budget) / saved) for saved in savings]
    k = max((k for k in range(1, len(savings) + 1) if k * steps[k - 1] * minimum <= iterations), default=1)
    # `widest` subtracts a margin from the target, with which the k-th best unit has to remain a candidate.
    target = (at.energy - savings[k - 1]) * (1 + 2 * ROUNDING)
    candidates = {unit: width for unit, energies in enumerate(reachable) if (width := widest(energies, target))}
    return Step(target, candidates, iterations // (len(candidates) * steps[k - 1]), finer=True)


def widest(energy: dict[int, float], target_energy: float) -> int:
    """The largest width whose energy is within the target; 0 if there is none."""
    limit = target_energy * (1 - ROUNDING)
    return max((width for width, value in energy.items() if value <= limit), default=0)


def reachable_energy(table: LookupTable, structure: Structure, width_steps: Sequence[int]) -> Reachable:
    """Energy of the network for every smaller width of each unit alone that is a multiple of the unit's width step.

    A unit of 20 channels with step 8 has widths 16 and 8; one of 8 channels or fewer has none and is never cut.
    """
    reachable = []
    for unit, (width, width_step) in enumerate(zip(structure.upper_bounds, width_steps, strict=True)):
        smaller = range(width_step, width, width_step)
        rows = structure.positions(structure.upper_bounds).repeat(len(smaller), 1)  # (smaller widths, positions)
        rows[:, unit + 1] = torch.tensor(smaller)
        reachable.append(dict(zip(smaller, table(rows).tolist(), strict=True)))
    return reachable

"""How far NetAdapt's next step goes, which candidates it has, and how long each is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from methods.netadapt.table import LookupTable
from shared.networks import Structure

DECAY = 0.96  # of the energy per step, `bdecay` in the published code of ECC
ROUNDING = 1e-12  # relative; keeps sums in another order from ending above the budget


@dataclass(frozen=True)
class Step:
    """One step: where it aims, how many steps are left with it, and the candidates.

    candidates: unit -> width, the largest that reaches `target_joules` by this unit alone.
    short_term_iterations: training of each candidate.
    """

    target_joules: float
    steps_left: int
    candidates: dict[int, int]
    short_term_iterations: int


def steps_needed(level_joules: float, budget_joules: float) -> int:
    """Steps of DECAY from `level_joules` down to the budget, the last one cut short."""
    return max(0, math.ceil(math.log(budget_joules / level_joules) / math.log(DECAY) - 1e-9))


def next_step(
    level_joules: float,
    budget_joules: float,
    reachable: list[list[float]],
    iterations: int,
    minimum: int,
) -> Step | None:
    """The next step from `level_joules`, the target of the one before; None when no unit can reach any step's target.

    reachable: for every unit the joules of the whole network at widths 1, 2, … up to one below its present width.
    Steps of DECAY where `iterations` give every candidate of this and the following steps at least `minimum`, counting
    as many candidates in each as in this one. Else the most equal steps (one coarser factor) that do. Where those have
    no candidate at all, since coarse steps are more than one unit can do, the coarsest that have.
    """
    finest = steps_needed(level_joules, budget_joules)
    found = None
    for steps in range(finest, 0, -1):
        factor = DECAY if steps == finest else (budget_joules / level_joules) ** (1 / steps)
        target = budget_joules if steps == 1 else max(budget_joules, level_joules * factor)
        candidates = {unit: width for unit, joules in enumerate(reachable) if (width := widest(joules, target))}
        if not candidates:
            break
        found = Step(target, steps, candidates, iterations // (len(candidates) * steps))
        if found.short_term_iterations >= minimum:
            break
    return found


def widest(joules: list[float], target_joules: float) -> int:
    """The largest width, counted from 1, whose joules are within the target; 0 when there is none."""
    limit = target_joules * (1 - ROUNDING)
    return max((width for width, value in enumerate(joules, start=1) if value <= limit), default=0)


def reachable_joules(table: LookupTable, structure: Structure, widths: tuple[int, ...]) -> list[list[float]]:
    """The table's total for every smaller width of each unit, the other units as in `widths`."""
    totals = []
    for unit, width in enumerate(widths):
        rows = structure.positions(widths).repeat(width - 1, 1)  # (width - 1, positions)
        rows[:, unit + 1] = torch.arange(1, width)
        totals.append(table(rows).tolist())
    return totals

"""NetAdapt as the authors of ECC adapted it to energy.

Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", ECCV 2018, with the schedule,
the widths and the judgement of the published code of ECC (CVPR 2019): every step lowers the energy by the same factor
and the candidate with the highest accuracy wins.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any, ClassVar

import torch
from torch import nn

from methods.contract import Infeasible, Method, Outcome, Properties, Task, spend_remaining
from methods.netadapt.schedule import DECAY, next_step, reachable_joules, steps_needed
from methods.netadapt.table import LookupTable
from shared.energy import BilinearModel
from shared.networks import Structure, active_channels, compact, importance, zero_channels
from shared.networks.ranking import weakest_channels
from shared.protocol import Protocol


class NetAdapt(Method):
    """Step by step: every unit alone is cut to the step's target, trained for a short term and judged; the best stays.

    Departures, each for the equal comparison. The last step aims at the budget, not below it. All iterations are spent:
    a candidate's share is what is left over the candidates and steps to come, the remainder trains the result. Where
    steps of 0.96 would leave a candidate less than the protocol's minimum, the steps are coarser.
    """

    name: ClassVar[str] = "netadapt"
    title: ClassVar[str] = "NetAdapt"
    paper: ClassVar[str] = "Yang et al., NetAdapt, ECCV 2018; energy schedule of the published code of ECC (CVPR 2019)"
    properties: ClassVar[Properties | None] = Properties(
        direct_metric=True, targets_energy=False, optimization_based=False, platform_free=True
    )

    def run(self, task: Task) -> Outcome:
        """Adapt a copy of the dense network to the budget; spends the ledger exactly.

        Raises Infeasible when one channel per unit is above the budget, or no unit alone can reach a step's target.
        """
        budget = task.budget_joules
        table = _table(task)
        network, units = task.copy_of_dense(), task.structure
        joules = level = float(table(units.positions(units.upper_bounds)))
        least = float(table(units.positions([1] * len(units.units))))
        if least > budget:
            raise Infeasible(f"one channel per unit takes {least:.6g} J, above the budget of {budget:.6g} J")
        trace: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        while joules > budget:
            # a target that the step before has met already, since whole channels overshoot, needs no step
            while level * DECAY >= joules:
                level *= DECAY
            step = next_step(
                level,
                budget,
                reachable_joules(table, units, units.upper_bounds),
                task.ledger.remaining,
                task.protocol.minimum_short_term_iterations,
            )
            if step is None:
                raise Infeasible(
                    f"no unit alone can lower the energy from {joules:.6g} J to NetAdapt's next target "
                    f"{max(level * DECAY, budget):.6g} J at widths {units.upper_bounds}"
                )
            winner, unit, scores = _best(task, network, units, step.candidates, step.short_term_iterations)
            # the zeroed channels go at once: later candidates train and are judged on a smaller network
            network, units = compact(winner, units), units.at(_widths(winner, units))
            joules, level = float(table(units.positions(units.upper_bounds))), step.target_joules
            row = (step.target_joules, joules, unit, scores, step.short_term_iterations, list(units.upper_bounds))
            for name, value in zip(_COLUMNS, row, strict=True):
                trace[name].append(value)
        long_term = task.ledger.remaining
        spend_remaining(task, task.trainer(network))
        return Outcome(network, _notes(task, units, trace, long_term), trace)

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """Images for the candidates of 0.96 steps to the smallest budget, or for as many as the iterations allow."""
        units = len(structure.units)
        candidates = units * steps_needed(1.0, min(protocol.budgets))
        affordable = protocol.iterations // max(1, protocol.minimum_short_term_iterations)
        # with less than one step's worth the minimum does not bind
        return (min(candidates, affordable) if affordable >= units else candidates) * protocol.search_images


_COLUMNS = ("target_joules", "joules", "unit", "accuracy", "short_term_iterations", "widths")


def _table(task: Task) -> LookupTable:
    if not isinstance(task.energy_model, BilinearModel):
        raise TypeError(f"expected a BilinearModel, got {type(task.energy_model).__name__}; try shared.energy.fit")
    table = LookupTable.from_model(task.energy_model, task.structure.position_bounds)
    task.ledger.energy_queries += table.readings
    return table


def _widths(network: nn.Module, units: Structure) -> list[int]:
    """What `compact` makes of the network."""
    widths: list[int] = active_channels(network, units).sum(dim=1).clamp(min=1).tolist()
    return widths


def _best(
    task: Task, network: nn.Module, units: Structure, candidates: dict[int, int], iterations: int
) -> tuple[nn.Module, int, list[float | None]]:
    """Train and judge every candidate (unit -> width): the best trained one (the first among equals), its unit, and the
    search accuracy by unit, None for units without a candidate."""
    norms = importance(network, units)
    scores: list[float | None] = [None] * len(units.units)
    start = network.state_dict()
    best, candidate = copy.deepcopy(network), copy.deepcopy(network)  # loading is quicker than copying
    best_unit, best_score = -1, -1.0
    for unit, width in candidates.items():
        candidate.load_state_dict(start)
        widths = [*units.upper_bounds[:unit], width, *units.upper_bounds[unit + 1 :]]
        zero_channels(candidate, units, weakest_channels(norms, widths, units.upper_bounds))
        trainer = task.trainer(candidate)
        for _ in range(iterations):
            trainer.step()
        score = scores[unit] = task.search_accuracy(candidate)
        if score > best_score:
            best, candidate = candidate, best
            best_unit, best_score = unit, score
    return best, best_unit, scores


def _notes(task: Task, units: Structure, trace: dict[str, list[Any]], long_term: int) -> dict[str, Any]:
    """What the schedule came to, for the record."""
    short_term = trace["short_term_iterations"]
    judged = [sum(score is not None for score in scores) for scores in trace["accuracy"]]
    joules = float(task.energy(torch.tensor(units.upper_bounds)))
    targets = [task.dense_energy_joules, *trace["target_joules"]]
    factors = [after / before for before, after in itertools.pairwise(targets)]
    return {
        "steps": len(short_term),
        "steps_of_the_paper_schedule": steps_needed(targets[0], task.budget_joules) if factors else 0,
        "factor_least": min(factors, default=1.0),
        "factor_most": max(factors, default=1.0),
        "candidates": sum(judged),
        "candidates_dropped": len(units.units) * len(judged) - sum(judged),  # could not reach their step's target
        "short_term_iterations_least": min(short_term, default=0),
        "short_term_iterations_most": max(short_term, default=0),
        "surviving_iterations": sum(short_term) + long_term,
        "long_term_iterations": long_term,
        "budget_unused_share": 1.0 - joules / task.budget_joules,
    }

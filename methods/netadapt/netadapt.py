"""NetAdapt: as the authors of ECC adapted it to energy, and with the settings of its own published code.

Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", ECCV 2018. `NetAdapt` has the
schedule, the widths and the judgement of the published code of ECC (CVPR 2019), `NetAdaptOriginal` those of NetAdapt's.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from methods.contract import Infeasible, Method, Outcome, Properties, Task, spend_remaining
from methods.netadapt.schedule import ADDITIVE, GEOMETRIC, Place, Schedule, Step, next_step, reachable_energy
from methods.netadapt.search import Search
from methods.netadapt.table import LookupTable
from shared.energy import BilinearModel
from shared.networks import Structure, importance, zero_channels
from shared.networks.ranking import weakest_channels
from shared.protocol import Protocol

DROP_GUARD = 1e-6  # of accuracy: among candidates that lose nothing, the one that saves most wins (published code)


@dataclass(frozen=True)
class NetAdapt(Method):
    """Step by step: every unit alone is cut to the step's target, trained for a short term and judged; the best stays.

    schedule: the steps' targets. width_step: the widths that are tried are multiples of it, or of an eighth of the
    dense width where that is less. per_joule: the candidate wins that loses the least accuracy per joule that it saves,
    and not the most accurate one.

    Departures, each for the equal comparison. The last step aims at the budget, not below it: the widest candidates
    that keep within it compete, and what whole widths leave unused is told in the notes. All iterations are spent: a
    candidate's share is what is left over the candidates and steps to come, the remainder trains the result. Where the
    published steps would leave a candidate less than the protocol's minimum, the steps are coarser; where no unit alone
    can do the published step, as in a network of many alike units, they are finer. Candidates that
    can't reach the target are dropped, as in the code of ECC. Channels go by the importance that all methods share.
    """

    schedule: Schedule = GEOMETRIC
    width_step: int = 1
    per_joule: bool = False

    name: ClassVar[str] = "netadapt"
    title: ClassVar[str] = "NetAdapt"
    paper: ClassVar[str] = "Yang et al., NetAdapt, ECCV 2018; energy schedule of the published code of ECC (CVPR 2019)"
    properties: ClassVar[Properties | None] = Properties(
        direct_metric=True, targets_energy=False, optimization_based=False, platform_free=True
    )

    def run(self, task: Task) -> Outcome:
        """Adapt a copy of the dense network to the budget; spends the ledger exactly.

        Raises Infeasible when the smallest widths are above the budget, or no unit alone can save anything.
        """
        budget, table = task.budget, _table(task)
        bounds = task.structure.upper_bounds
        smallest = width_steps = self.width_steps(bounds)
        if (least := table.energy(task.structure, smallest)) > budget:
            raise Infeasible(
                f"the smallest widths {smallest} take {least:.6g} {table.unit}, above the budget of {budget:.6g}"
            )
        search = Search(task.copy_of_dense(), task.structure, task.ledger.remaining)
        if kept := task.saved("search"):  # a run that was stopped
            search.restore(kept)
        elif self.per_joule:
            search.start_accuracy = task.search_accuracy(search.network)
        dense_energy = table.energy(task.structure, bounds)
        minimum = task.protocol.minimum_short_term_iterations
        while (energy := table.energy(search.units, widths := search.units.upper_bounds)) > budget:
            at = Place(dense_energy, energy, budget, tuple(search.trace["target_energy"]))
            reachable = reachable_energy(table, search.units, width_steps)
            step = next_step(self.schedule, at, reachable, search.iterations, minimum)
            if step is None:
                raise Infeasible(
                    f"no unit alone can lower the energy from {energy:.6g} {table.unit} at widths {widths}"
                )
            saved = {unit: energy - reachable[unit][width] for unit, width in step.candidates.items()}
            self.compete(task, search, step, saved)
            search.advance(step, table, task.ledger.remaining)
        long_term = task.ledger.remaining
        spend_remaining(task, task.trainer(search.network), "long term")
        return Outcome(search.network, self.notes(task, search, dense_energy, long_term), search.trace)

    def width_steps(self, dense_widths: tuple[int, ...]) -> tuple[int, ...]:
        """What divides the widths that are tried, by unit."""
        return tuple(max(1, min(self.width_step, width // 8)) for width in dense_widths)

    def compete(self, task: Task, search: Search, step: Step, saved_energy: dict[int, float]) -> None:
        """Train and judge a step's candidates on their own; `search.best` is the best one, the first among equals."""
        bounds, accuracies = search.units.upper_bounds, search.accuracies
        norms, start = importance(search.network, search.units), search.network.state_dict()
        candidate = copy.deepcopy(search.network)  # loading is quicker than copying

        def value(unit: int) -> float:  # the larger, the better
            drop = search.start_accuracy - accuracies[unit] + DROP_GUARD
            return -drop / saved_energy[unit] if self.per_joule else accuracies[unit]

        for unit, width in step.candidates.items():
            if unit in accuracies:  # judged before the run was stopped
                continue
            candidate.load_state_dict(start)
            widths = [*bounds[:unit], width, *bounds[unit + 1 :]]
            zero_channels(candidate, search.units, weakest_channels(norms, widths, bounds))
            trainer = task.trainer(candidate)
            for _ in range(step.short_term_iterations):
                trainer.step()
            accuracies[unit] = task.search_accuracy(candidate)
            if search.best_unit < 0 or value(unit) > value(search.best_unit):
                search.best, candidate, search.best_unit = candidate, search.best, unit
            task.save("search", search.state)

    def notes(self, task: Task, search: Search, dense_energy: float, long_term: int) -> dict[str, Any]:
        """What the schedule came to, for the record."""
        trace, units = search.trace, search.units
        short_term = trace["short_term_iterations"]
        published = self.schedule.published_steps(Place(dense_energy, dense_energy, task.budget))
        judged = [sum(accuracy is not None for accuracy in row) for row in trace["accuracy"]]
        energy = float(task.energy(torch.tensor(units.upper_bounds)))
        return {
            "steps": len(short_term),
            "steps_of_the_paper_schedule": int(published) if math.isfinite(published) else None,  # never gets there
            "coarser_steps": sum(trace["coarser"]),  # than the paper's, which the iterations do not suffice for
            "finer_steps": sum(trace["finer"]),  # than the paper's, which no unit alone can do
            **self.schedule.notes(dense_energy, trace["target_energy"], trace["energy"]),
            "candidates": sum(judged),
            "candidates_dropped": len(units.units) * len(judged) - sum(judged),  # could not reach their step's target
            "short_term_iterations_least": min(short_term, default=0),
            "short_term_iterations_most": max(short_term, default=0),
            "surviving_iterations": sum(short_term) + long_term,
            "long_term_iterations": long_term,
            "budget_unused_share": 1.0 - energy / task.budget,
        }

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """Images for the candidates of the published steps to the smallest budget, or for as many as the iterations
        allow, and for the dense network where candidates are compared with it.
        """
        bounds = structure.upper_bounds
        smaller = [len(range(step, bound, step)) for step, bound in zip(self.width_steps(bounds), bounds, strict=True)]
        units = sum(map(bool, smaller))
        candidates = units * int(
            min(self.schedule.published_steps(Place(1.0, 1.0, min(protocol.budgets))), sum(smaller))
        )
        affordable = protocol.iterations // max(1, protocol.minimum_short_term_iterations)
        # with less than one step's worth the minimum does not bind
        judged = min(candidates, affordable) if affordable >= units else candidates
        return (judged + self.per_joule) * protocol.search_images


@dataclass(frozen=True)
class NetAdaptOriginal(NetAdapt):
    """NetAdapt with the settings of its own published code.

    The first step saves 0.025 of E(dense), each further one 0.96 of the step before, counted from what was achieved.
    Widths are multiples of 8. The candidate wins that loses the least accuracy per joule saved.

    Further departures: units of fewer than 64 channels have multiples of an eighth of them, since 8 would leave the
    narrow networks of this suite little to choose (it changes nothing where the code's own networks have 64 and more);
    the code's limit of 10 steps is left out, since the budget has to be met; its number of iterations and its optimiser
    are the protocol's here.
    """

    schedule: Schedule = ADDITIVE
    width_step: int = 8
    per_joule: bool = True

    name: ClassVar[str] = "netadapt-original"
    title: ClassVar[str] = "NetAdapt, original"
    paper: ClassVar[str] = "Yang et al., NetAdapt, ECCV 2018; settings of its published code"


def _table(task: Task) -> LookupTable:
    if not isinstance(task.energy_model, BilinearModel):
        raise TypeError(f"expected a BilinearModel, got {type(task.energy_model).__name__}; try shared.energy.fit")
    table = LookupTable.from_model(task.energy_model, task.structure.position_bounds)
    task.ledger.energy_queries += table.size
    return table

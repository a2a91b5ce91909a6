"""NetAdapt: as the authors of ECC adapted it to energy, and with the settings of its own published code.

Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", ECCV 2018. `NetAdapt`
has the schedule, widths and selection rule of the published code of ECC (CVPR 2019), `NetAdaptOriginal` those of the
published code of NetAdapt.
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

DROP_GUARD = 1e-6  # added to each drop in accuracy, so that of candidates without a drop the one that saves most wins


@dataclass(frozen=True)
class NetAdapt(Method):
    """Greedy adaptation in steps. A step lowers the energy to its target.

    Each candidate of a step cuts one unit until the target is met; it is trained for a short term and scored on the
    search split. The best candidate starts the next step.

    Departures from the published code, all for the equal comparison:
    - The last step's target is the budget itself. The notes say how much of it whole widths leave unused.
    - All iterations are spent. The remaining ones are divided equally among the candidates of this and all later steps;
      what the search leaves trains the result.
    - Steps are coarser where candidates would otherwise get less training than the protocol's minimum.
    - Steps are finer where no single unit can reach the target, as in a network of many similar units.
    - Channels are ranked by the importance that all methods share.
    - Adam goes on with the moments of the network that a step starts from. The published codes start a new optimiser
      for each candidate: SGD (NetAdapt), or Adam with a rate of 1e-5 (ECC). The first steps of a new Adam have the full
      rate in every weight, however small its gradient. With a rate for few iterations, they can undo training.
    A unit that can't reach the target gives no candidate, as in the published code of ECC.
    """

    schedule: Schedule = GEOMETRIC  # the targets of the steps
    width_step: int = 1  # widths are multiples of this, or of an eighth of the dense width where that is less
    per_joule: bool = False  # True: the least drop in accuracy per joule saved wins; False: the best accuracy
    keeps_moments: bool = True  # False: a new Adam for each candidate

    name: ClassVar[str] = "netadapt"
    title: ClassVar[str] = "NetAdapt"
    paper: ClassVar[str] = "Yang et al., NetAdapt, ECCV 2018; energy schedule of the published code of ECC (CVPR 2019)"
    revision: ClassVar[int] = 2  # the first began each candidate with a new Adam
    properties: ClassVar[Properties | None] = Properties(
        direct_metric=True, targets_energy=False, optimization_based=False, platform_free=True
    )

    def run(self, task: Task) -> Outcome:
        """Adapt a copy of the dense network to the budget; spends the ledger exactly.

        Raises Infeasible when the smallest widths are above the budget, or when no single unit can save energy.
        """
        budget, table = task.budget, _table(task)
        bounds = task.structure.upper_bounds
        smallest = width_steps = self.width_steps(bounds)
        if (least := table.energy(task.structure, smallest)) > budget:
            raise Infeasible(
                f"expected a budget of at least {least:.6g} {table.unit} (the smallest widths {smallest}), "
                f"got {budget:.6g}; try more"
            )
        search = Search(task.copy_of_dense(), task.structure, task.ledger.remaining)
        if checkpoint := task.saved("search"):  # the run was stopped
            search.restore(checkpoint)
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
                    f"expected a unit that alone can lower the energy from {energy:.6g} {table.unit}, got none at "
                    f"widths {widths}; try a larger budget"
                )
            saved = {unit: energy - reachable[unit][width] for unit, width in step.candidates.items()}
            self.compete(task, search, step, saved)
            search.advance(step, table, task.ledger.remaining)
        long_term = task.ledger.remaining
        trainer = task.trainer(search.network)
        trainer.restore(search.training_state(self.keeps_moments))
        spend_remaining(task, trainer, "long term")
        return Outcome(search.network, self.notes(task, search, dense_energy, long_term), search.trace)

    def width_steps(self, dense_widths: tuple[int, ...]) -> tuple[int, ...]:
        """By unit, the number whose multiples are its candidate widths."""
        return tuple(max(1, min(self.width_step, width // 8)) for width in dense_widths)

    def compete(self, task: Task, search: Search, step: Step, saved_energy: dict[int, float]) -> None:
        """Train and score each candidate of a step; `search.best` becomes the best one, the first among equals."""
        bounds, accuracies = search.units.upper_bounds, search.accuracies
        norms, start = importance(search.network, search.units), search.training_state(self.keeps_moments)
        candidate = copy.deepcopy(search.network)  # reloaded per candidate, which is faster than a copy each

        def value(unit: int) -> float:  # the larger, the better
            drop = search.start_accuracy - accuracies[unit] + DROP_GUARD
            return -drop / saved_energy[unit] if self.per_joule else accuracies[unit]

        for unit, width in step.candidates.items():
            if unit in accuracies:  # scored before the run was stopped
                continue
            trainer = task.trainer(candidate)
            trainer.restore(start)
            widths = [*bounds[:unit], width, *bounds[unit + 1 :]]
            zero_channels(candidate, search.units, weakest_channels(norms, widths, bounds), trainer.optimizer)
            for _ in range(step.short_term_iterations):
                trainer.step()
            accuracies[unit] = task.search_accuracy(candidate)
            if search.best_unit < 0 or value(unit) > value(search.best_unit):
                search.best, candidate, search.best_unit = candidate, search.best, unit
                search.best_moments = trainer.state()["moments"]
            task.save("search", search.state)

    def notes(self, task: Task, search: Search, dense_energy: float, long_term: int) -> dict[str, Any]:
        """Facts about the search, for the record."""
        trace, units = search.trace, search.units
        short_term = trace["short_term_iterations"]
        published = self.schedule.published_steps(Place(dense_energy, dense_energy, task.budget))
        scored = [sum(accuracy is not None for accuracy in row) for row in trace["accuracy"]]
        energy = float(task.energy(torch.tensor(units.upper_bounds)))
        return {
            "steps": len(short_term),
            # None: the published steps never meet the budget
            "steps_of_the_paper_schedule": int(published) if math.isfinite(published) else None,
            "coarser_steps": sum(trace["coarser"]),  # than the paper's, for want of iterations
            "finer_steps": sum(trace["finer"]),  # than the paper's, which no single unit can do
            **self.schedule.notes(dense_energy, trace["target_energy"], trace["energy"]),
            "candidates": sum(scored),
            "candidates_dropped": len(units.units) * len(scored) - sum(scored),  # could not reach their step's target
            "short_term_iterations_least": min(short_term, default=0),
            "short_term_iterations_most": max(short_term, default=0),
            "surviving_iterations": sum(short_term) + long_term,
            "long_term_iterations": long_term,
            "budget_unused_share": 1.0 - energy / task.budget,
        }

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """Search images of all candidates, for the published steps to the smallest budget.

        Fewer where the iterations allow fewer candidates. One more score, the dense network's, with `per_joule`.
        """
        bounds = structure.upper_bounds
        smaller = [len(range(step, bound, step)) for step, bound in zip(self.width_steps(bounds), bounds, strict=True)]
        units = sum(map(bool, smaller))
        candidates = units * int(
            min(self.schedule.published_steps(Place(1.0, 1.0, min(protocol.budgets))), sum(smaller))
        )
        affordable = protocol.iterations // max(1, protocol.minimum_short_term_iterations)
        # If even one step exceeds the iterations, its candidates are trained for less than the minimum.
        scored = min(candidates, affordable) if affordable >= units else candidates
        return (scored + self.per_joule) * protocol.search_images


@dataclass(frozen=True)
class NetAdaptOriginal(NetAdapt):
    """NetAdapt with the settings of its own published code.

    The first step saves 0.025 of E(dense), each further step 0.96 times what the step before should have saved. Widths
    are multiples of 8. The candidate with the least drop in accuracy per joule saved wins.

    Further departures:
    - In units of fewer than 64 channels, widths are multiples of an eighth of them. Multiples of 8 would leave the
      narrow networks of this suite little choice. The units of the code's own networks have 64 and more.
    - There is no limit of 10 steps, since the budget has to be met.
    - Iterations and optimiser are the protocol's.
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

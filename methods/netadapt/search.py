"""The state of a NetAdapt search, all that a stopped one needs to go on after the last candidate that was judged."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from methods.netadapt.schedule import Step
from methods.netadapt.table import LookupTable
from shared.candidates import at_widths
from shared.checkpoints import State
from shared.networks import Structure, active_channels, compact

COLUMNS = ("target_energy", "energy", "unit", "accuracy", "short_term_iterations", "widths", "coarser", "finer")


class Search:
    """Where a search stands: the network that the present step starts from, and the candidates judged by now.

    iterations: training iterations that were left at the step's start. accuracies: of the judged candidates, by
    unit. best: the best candidate, trained, its channels zeroed. start_accuracy: of
    `network`, where candidates are compared with it. trace: columns of the finished steps.
    """

    def __init__(self, dense: nn.Module, structure: Structure, iterations: int) -> None:
        self.network, self.units = dense, structure
        self.start_accuracy = 0.0
        self.trace: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        self._begin(iterations)

    def _begin(self, iterations: int) -> None:
        self.iterations = iterations
        self.accuracies: dict[int, float] = {}
        self.best, self.best_unit = copy.deepcopy(self.network), -1

    def advance(self, step: Step, table: LookupTable, iterations: int) -> None:
        """The best candidate is the network of the next step. iterations: that are left."""
        self.start_accuracy = self.accuracies[self.best_unit]
        # the zeroed channels go at once: later candidates train and are judged on a smaller network
        widths = active_channels(self.best, self.units).sum(dim=1).clamp(min=1).tolist()  # what `compact` makes of it
        self.network, self.units = compact(self.best, self.units), self.units.at(widths)
        energy = table.energy(self.units, widths)
        accuracies = [self.accuracies.get(unit) for unit in range(len(widths))]  # None where there was no candidate
        row = (step.target_energy, energy, self.best_unit, accuracies, step.short_term_iterations, widths)
        for name, value in zip(COLUMNS, (*row, step.coarser, step.finer), strict=True):
            self.trace[name].append(value)
        self._begin(iterations)

    def state(self) -> State:
        """For a checkpoint."""
        return {
            "network": dict(self.network.state_dict()),
            "start_accuracy": self.start_accuracy,
            "trace": self.trace,
            "iterations": self.iterations,
            "accuracies": {str(unit): accuracy for unit, accuracy in self.accuracies.items()},
            "best": dict(self.best.state_dict()),
            "best_unit": self.best_unit,
        }

    def restore(self, state: State) -> None:
        """Go on from what `state()` gave; `self` is as it was made."""
        self.trace, self.start_accuracy = state["trace"], state["start_accuracy"]
        if self.trace["widths"]:
            widths = self.trace["widths"][-1]
            self.network, self.units = at_widths(self.network, self.units, widths), self.units.at(widths)
        self.network.load_state_dict(state["network"])
        self._begin(state["iterations"])
        self.best.load_state_dict(state["best"])
        self.accuracies = {int(unit): accuracy for unit, accuracy in state["accuracies"].items()}
        self.best_unit = state["best_unit"]

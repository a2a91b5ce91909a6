"""The state of a NetAdapt search; a stopped search resumes after the last candidate that was scored."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from methods.netadapt.schedule import Step
from methods.netadapt.table import LookupTable
from shared.checkpoints import State
from shared.networks import Structure, resized
from shared.networks.pruning import channels_left, cut_along, keeping

COLUMNS = ("target_energy", "energy", "unit", "accuracy", "short_term_iterations", "widths", "coarser", "finer")


class Search:
    """The present step of a search: the network that it starts from, and the candidates scored so far."""

    def __init__(self, dense: nn.Module, structure: Structure, iterations: int) -> None:
        self.network, self.units = dense, structure  # that the step starts from
        self.moments: State = {name: {} for name, _ in dense.named_parameters()}  # of its optimiser; none before steps
        self.start_accuracy = 0.0  # of `network`; needed only where candidates are compared by their drop
        self.trace: dict[str, list[Any]] = {name: [] for name in COLUMNS}  # one entry per finished step
        self._begin(iterations)

    def _begin(self, iterations: int) -> None:
        self.iterations = iterations  # training iterations that remained when the step began
        self.accuracies: dict[int, float] = {}  # unit -> score of its candidate
        self.best, self.best_unit = copy.deepcopy(self.network), -1  # trained, the removed channels zeroed
        self.best_moments = self.moments

    def training_state(self, keeps_moments: bool) -> State:
        """What a trainer of a copy of the step's network starts from; without moments its Adam is new."""
        moments = self.moments if keeps_moments else {name: {} for name in self.moments}
        return {"model": self.network.state_dict(), "moments": moments}

    def advance(self, step: Step, table: LookupTable, iterations: int) -> None:
        """Finish `step`: the best candidate is the network of the next one. iterations: those that remain."""
        self.start_accuracy = self.accuracies[self.best_unit]
        # The zeroed channels are cut out at once, so that later candidates are smaller and train faster.
        kept = channels_left(self.best, self.units)
        widths = [len(channels) for channels in kept]
        self.moments = {name: self._cut(name, moments, kept) for name, moments in self.best_moments.items()}
        self.network, self.units = keeping(self.best, self.units, kept), self.units.at(widths)
        energy = table.energy(self.units, widths)
        accuracies = [self.accuracies.get(unit) for unit in range(len(widths))]  # None where there was no candidate
        row = (step.target_energy, energy, self.best_unit, accuracies, step.short_term_iterations, widths)
        for name, value in zip(COLUMNS, (*row, step.coarser, step.finer), strict=True):
            self.trace[name].append(value)
        self._begin(iterations)

    def _cut(self, name: str, moments: State, kept: list[Tensor]) -> State:
        """The moments of a parameter, of the kept channels; the count of steps stays."""
        cut = dict(moments)
        for key, moment in moments.items():
            for dim in range(moment.ndim):
                cut[key] = cut_along(cut[key], name, dim, self.units, kept)
        return cut

    def state(self) -> State:
        """All that `restore` needs, for a checkpoint."""
        return {
            "network": dict(self.network.state_dict()),
            "moments": self.moments,
            "start_accuracy": self.start_accuracy,
            "trace": self.trace,
            "iterations": self.iterations,
            "accuracies": {str(unit): accuracy for unit, accuracy in self.accuracies.items()},
            "best": dict(self.best.state_dict()),
            "best_moments": self.best_moments,
            "best_unit": self.best_unit,
        }

    def restore(self, state: State) -> None:
        """Load what `state()` returned into a search that has just been constructed."""
        self.trace, self.start_accuracy = state["trace"], state["start_accuracy"]
        if self.trace["widths"]:
            widths = self.trace["widths"][-1]
            self.network, self.units = resized(self.network, widths, self.units), self.units.at(widths)
        self.network.load_state_dict(state["network"])
        self.moments = state["moments"]
        self._begin(state["iterations"])
        self.best.load_state_dict(state["best"])
        self.best_moments = state["best_moments"]
        self.accuracies = {int(unit): accuracy for unit, accuracy in state["accuracies"].items()}
        self.best_unit = state["best_unit"]

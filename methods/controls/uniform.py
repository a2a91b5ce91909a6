"""One-shot uniform pruning: what choosing widths by unit, and removing channels gradually, must beat."""

from __future__ import annotations

from typing import ClassVar

from methods.contract import Method, Outcome, Task, spend_remaining
from shared.networks import compact, importance, zero_channels
from shared.networks.ranking import weakest_channels


class Uniform(Method):
    """Keeps the same share of every unit's channels, the most important ones, then trains the smaller network."""

    name: ClassVar[str] = "uniform"
    title: ClassVar[str] = "Uniform"
    paper: ClassVar[str] = "Control: one width multiplier for all units, at once"

    def run(self, task: Task) -> Outcome:
        """Prune once, to the largest multiplier within the budget, then train.

        Raises Infeasible when one channel per unit is above the budget.
        """
        widths, network = task.uniform_widths(), task.copy_of_dense()
        dead = weakest_channels(importance(network, task.structure), widths, task.structure.upper_bounds)
        zero_channels(network, task.structure, dead)
        network = compact(network, task.structure)
        spend_remaining(task, task.trainer(network))
        return Outcome(network, {"widths": list(widths)})

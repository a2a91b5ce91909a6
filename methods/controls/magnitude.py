"""One-shot greedy removal by squared norm per joule: what a search for widths must beat."""

from __future__ import annotations

from typing import ClassVar

from methods.contract import Method, Outcome, Task, spend_remaining
from shared.networks import compact, importance, zero_channels
from shared.networks.ranking import weakest_channels
from shared.widths.greedy import greedy_widths


class Magnitude(Method):
    """Removes the channel with the least squared norm per joule saved, until the budget is met; then trains.

    Norms are those of the dense network. Every unit keeps one channel.
    """

    name: ClassVar[str] = "magnitude"
    title: ClassVar[str] = "Magnitude per joule"
    paper: ClassVar[str] = "Control: greedy removal by squared norm per joule, at once"

    def run(self, task: Task) -> Outcome:
        """Cut once, then train. Raises Infeasible when one channel per unit is above the budget."""
        network = task.copy_of_dense()
        norms = importance(network, task.structure)
        widths = greedy_widths(
            norms,
            task.structure.upper_bounds,
            lambda widths: float(task.energy(widths)),
            task.energy_per_channel,
            task.budget,
        )
        zero_channels(network, task.structure, weakest_channels(norms, widths, task.structure.upper_bounds))
        network = compact(network, task.structure)
        spend_remaining(task, task.trainer(network))
        return Outcome(network, {"widths": list(widths)})

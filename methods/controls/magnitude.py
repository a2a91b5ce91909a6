"""Greedy by squared norm per joule, at once: what a search for widths must beat."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from methods.contract import Infeasible, Method, Outcome, Task, spend_remaining
from shared.networks import compact, importance, zero_channels
from shared.networks.ranking import weakest_channels


class Magnitude(Method):
    """Takes the channel with the least squared norm per joule that it saves until the budget holds, then trains.

    Norms are those of the dense network. What a channel saves falls with every neighbour that goes, so it is asked anew
    after each removal. One channel of every unit stays.
    """

    name: ClassVar[str] = "magnitude"
    title: ClassVar[str] = "Magnitude per joule"
    paper: ClassVar[str] = "Control: greedy removal by squared norm per joule, at once"

    def run(self, task: Task) -> Outcome:
        """Cut once, then train. Raises Infeasible when one channel per unit is above the budget."""
        network = task.copy_of_dense()
        norms = importance(network, task.structure)
        widths = greedy_widths(task, norms)
        zero_channels(network, task.structure, weakest_channels(norms, widths, task.structure.upper_bounds))
        network = compact(network, task.structure)
        spend_remaining(task, task.trainer(network))
        return Outcome(network, {"widths": list(widths)})


def greedy_widths(task: Task, norms: Tensor) -> tuple[int, ...]:
    """Widths after removing channel after channel, the least norm per joule first, until the budget holds.

    norms: (units, largest upper bound), zero-padded. Within a unit channels go in the order of their norms.
    """
    bounds = torch.tensor(task.structure.upper_bounds)
    descending = norms.double().sort(dim=1, descending=True).values
    widths, units = bounds.clone(), torch.arange(len(bounds))
    joules = float(task.energy(widths))
    while joules > task.budget_joules:
        weakest = descending[units, widths - 1]  # of every unit, the channel that would go next
        # the estimate is linear in each single width, so its slope is what one channel saves
        savings = task.energy_model.gradient(task.structure.positions(widths))[1:-1]
        price = torch.where((widths > 1) & (savings > 0), weakest / savings, torch.inf)
        unit = int(price.argmin())
        if price[unit] == torch.inf:
            raise Infeasible(
                f"one channel per unit takes {joules:.6g} J, above the budget of {task.budget_joules:.6g} J"
            )
        widths[unit] -= 1
        joules = float(task.energy(widths))
    return tuple(widths.tolist())

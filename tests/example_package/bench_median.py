"""Filters near the geometric median of their layer, per joule: what the other filters can stand in for goes first."""

import torch
from torch.nn.utils.rnn import pad_sequence

from methods.contract import Method, Outcome, Properties, Task, spend_remaining
from shared.networks import zero_channels
from shared.networks.ranking import weakest_channels
from shared.widths.greedy import greedy_widths


class Median(Method):
    """Removes channels at once, the least distance of their filters to the others per joule first; then trains."""

    name, title = "median", "Geometric median per joule"
    paper = "He et al.: Filter Pruning via Geometric Median. CVPR 2019"
    properties = Properties(direct_metric=True, targets_energy=True, optimization_based=False, platform_free=True)

    def run(self, task: Task) -> Outcome:
        network, table = task.copy_of_dense(), task.structure
        worth = distances(network, table)
        widths = greedy_widths(  # channels go one by one, the least worth per joule first, until Ê is within the budget
            worth,
            table.upper_bounds,
            energy=lambda widths: float(task.energy(widths)),
            savings=task.energy_per_channel,  # joules per channel of each unit
            budget=task.budget,
        )
        dead = weakest_channels(worth, widths, table.upper_bounds)
        trainer = task.trainer(network)  # each step() is one training iteration, paid from the ledger
        zero_channels(network, table, dead, trainer.optimizer)  # their momentum, too: the dead stay dead
        spend_remaining(task, trainer)
        return Outcome(network, notes={"widths": list(widths)})


def distances(network, table):
    """The sum of every filter's distances to the others of its unit, as a share of all: (units, largest width)."""
    tensors, rows = dict(network.named_parameters()), []
    for unit in table.units:
        weights = [(tensors[part.tensor].detach(), part.dim) for part in unit.slices if part.role == "producer"]
        filters = torch.cat([weight.transpose(0, dim).flatten(1) for weight, dim in weights], dim=1)
        apart = torch.cdist(filters, filters).sum(1)
        rows.append(apart / apart.sum().clamp(min=1e-30))
    return pad_sequence(rows, batch_first=True)

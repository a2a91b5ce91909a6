"""WSP: training with a projection onto the energy constraint, which is a knapsack.

Yang, Zhu, Liu, "Energy-Constrained Compression for Deep Neural Networks via Weighted Sparse Projection and Layer Input
Masking", ICLR 2019 (arXiv 1806.04321); settings of its published code,
github.com/hyang1990/model_based_energy_constrained_compression. The paper projects single weights of a chip that saves
energy by zeros. Here the items are channels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from methods.contract import Method, Outcome, Properties, Task
from shared.networks import importance, zero_channels
from shared.networks.ranking import weakest_channels
from shared.networks.units import Role
from shared.widths.greedy import greedy_widths

EVERY = 10  # iterations from one projection to the next, in the published code
READERS: tuple[Role, ...] = ("consumer",)  # roles of the weights that a projection zeroes


class WSP(Method):
    """Trains; every tenth iteration is followed by a projection onto Ê <= a target, which decays to the budget.

    A projection keeps the channels whose squared norm is largest in sum: a knapsack, solved greedily by norm per joule.
    A channel saves less when its neighbours in the next layer are fewer, so prices are taken anew after each removal.
    It zeroes the weights that read a channel and leaves those that make it: a channel may grow back until the next
    projection. The norm is that of the weights that read a channel, so that the sum is what the projection leaves of
    them; it depends on a layer's scale, also where batch norm makes that scale arbitrary.
    """

    name: ClassVar[str] = "wsp"
    title: ClassVar[str] = "WSP"
    paper: ClassVar[str] = (
        "Yang, Zhu, Liu: Energy-Constrained Compression for Deep Neural Networks via Weighted Sparse Projection and "
        "Layer Input Masking. ICLR 2019; for channels"
    )
    properties: ClassVar[Properties | None] = Properties(
        direct_metric=True, targets_energy=True, optimization_based=True, platform_free=False
    )

    revision: ClassVar[int] = 2  # the first zeroed depthwise filters as well, without which nothing grows back

    def run(self, task: Task) -> Outcome:
        """Train and project. Raises Infeasible when the budget can't be reached."""
        network = task.copy_of_dense()
        self.check(network, task)
        trainer = task.trainer(network)
        if state := task.saved("training"):
            trainer.restore(state)
        while task.ledger.remaining:
            trainer.step()
            if task.ledger.training_iterations % EVERY == 0:
                self.project(network, task, target(task))
            task.save("training", trainer.state)
        return Outcome(network, self.finish(network, task))

    def check(self, network: nn.Module, task: Task) -> None:
        """Raises Infeasible before anything is spent."""
        task.check_reachable()

    def project(self, network: nn.Module, task: Task, target: float) -> None:
        """A projection during training."""
        dead = projection(network, task, target)
        zero_channels(network, task.structure, dead, roles=READERS)

    def finish(self, network: nn.Module, task: Task) -> dict[str, Any]:
        """The last projection, after which nothing grows back; returns the notes."""
        dead = projection(network, task, task.budget)
        zero_channels(network, task.structure, dead)
        return {"widths": (torch.tensor(task.structure.upper_bounds) - dead.sum(1)).tolist()}


def target(task: Task) -> float:
    """The target after the iterations that are spent: from Ê(dense) exponentially to the budget, at it for the last."""
    decay = max(1, task.ledger.limit - EVERY)
    share = task.ledger.training_iterations / decay
    if share >= 1:
        return task.budget
    return task.dense_energy * (task.budget / task.dense_energy) ** share


def projection(network: nn.Module, task: Task, target: float) -> Tensor:
    """The channels that the projection removes: bool (units, largest upper bound)."""
    norms, bounds = importance(network, task.structure, roles=READERS).cpu(), task.structure.upper_bounds
    widths = greedy_widths(
        norms,
        bounds,
        lambda widths: float(task.energy(widths)),
        task.energy_per_channel,
        target,
    )
    return weakest_channels(norms, widths, bounds)

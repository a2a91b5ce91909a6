"""What gradient importances alone are worth: the channels that change the loss least, per joule, go during training."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.contract import Infeasible, Method, Outcome, Task, spend_remaining
from shared.checkpoints import State
from shared.networks import active_channels, importance, zero_channels

PRUNING_SHARE = 0.8  # of the iterations; the rest trains the network at its final widths
SMOOTHING = 0.9  # of the importances over the iterations


class Taylor(Method):
    """Removes channels while it trains, so that Ê falls on a straight line to the budget.

    A channel's importance is the running mean of the sum of (gradient * weight)^2 over its weights, a first-order
    estimate of how the loss changes without it (Molchanov et al., "Importance Estimation for Neural Network Pruning",
    CVPR 2019, equation 8). The channel with the least importance per joule goes next.
    """

    name: ClassVar[str] = "taylor"
    title: ClassVar[str] = "Taylor per joule"
    paper: ClassVar[str] = "Control: gradient importances (Molchanov et al., CVPR 2019) per joule, during training"

    def run(self, task: Task) -> Outcome:
        """Prune while training. Raises Infeasible when one channel per unit is above the budget."""
        network, table = task.copy_of_dense(), task.structure
        trainer = task.trainer(network)
        alive = active_channels(network, table).cpu()  # (units, channels)
        scores = torch.zeros(alive.shape)
        pruning = max(1, int(PRUNING_SHARE * task.ledger.limit))

        def state() -> State:
            return {"trainer": trainer.state(), "alive": alive, "scores": scores}

        if saved := task.saved("pruning"):  # the run was stopped
            trainer.restore(saved["trainer"])
            alive, scores = saved["alive"], saved["scores"]
        while task.ledger.training_iterations < pruning:
            trainer.step()
            scores = SMOOTHING * scores + (1 - SMOOTHING) * importance(network, table, _squares(network)).cpu()
            share = task.ledger.training_iterations / pruning
            survivors = self.narrowed(task, alive, scores, (1 - share) * task.dense_energy + share * task.budget)
            zero_channels(network, table, alive & ~survivors, trainer.optimizer)
            alive = survivors
            task.save("pruning", state)
        spend_remaining(task, trainer)
        return Outcome(network, {"widths": alive.sum(1).tolist()})

    def narrowed(self, task: Task, alive: Tensor, scores: Tensor, target_energy: float) -> Tensor:
        """`alive` without the channels of least score per joule, so many that Ê is within the target."""
        alive = alive.clone()
        while float(task.energy(widths := alive.sum(1))) > target_energy:
            saved = task.energy_per_channel(widths)  # per channel of each unit
            removable = alive & ((widths > 1) & (saved > 0))[:, None]
            price = torch.where(removable, scores / saved[:, None], torch.inf)
            if not bool(removable.any()):
                raise Infeasible(f"expected a budget that one channel per unit meets, got {task.budget:.6g}; try more")
            alive.view(-1)[price.argmin()] = False
        return alive


def _squares(network: nn.Module) -> dict[str, Tensor]:
    """The squared gradient of every parameter, by name; zero where it has none."""
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.square()
        for name, weight in network.named_parameters()
    }

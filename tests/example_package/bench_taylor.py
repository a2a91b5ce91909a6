"""Taylor pruning per joule: the channels whose removal changes the loss least, for every joule that they save."""

import torch

from methods.contract import Infeasible, Method, Outcome, Properties, Task, spend_remaining
from shared.networks import active_channels, importance, zero_channels

PRUNING_SHARE = 0.8  # of the iterations; the rest trains the network at its final widths
SMOOTHING = 0.9  # of the importances over the iterations


class Taylor(Method):
    """Removes channels while it trains, so that Ê falls on a straight line to the budget."""

    name, title = "taylor", "Taylor per joule"
    paper = "Molchanov et al.: Importance Estimation for Neural Network Pruning. CVPR 2019"
    properties = Properties(direct_metric=True, targets_energy=True, optimization_based=False, platform_free=True)

    def run(self, task: Task) -> Outcome:
        network, table = task.copy_of_dense(), task.structure
        trainer = task.trainer(network)  # each step() is one training iteration, paid from the ledger
        alive = active_channels(network, table)  # bool (units, channels)
        scores = torch.zeros(alive.shape)
        start, end = task.dense_energy, task.budget
        pruning = int(PRUNING_SHARE * task.ledger.limit)
        if kept := task.saved("pruning"):  # a run that was stopped goes on
            trainer.restore(kept["trainer"])
            alive, scores = kept["alive"], kept["scores"]
        while task.ledger.training_iterations < pruning:
            trainer.step()
            squares = {name: p.grad.square() for name, p in network.named_parameters()}
            scores = SMOOTHING * scores + (1 - SMOOTHING) * importance(network, table, squares)  # (gradient · weight)²
            target = start + (end - start) * task.ledger.training_iterations / pruning
            survivors = self.without_the_cheapest(task, alive, scores, target)
            zero_channels(network, table, alive & ~survivors, trainer.optimizer)  # the dead stay dead
            alive = survivors
            task.save("pruning", lambda: {"trainer": trainer.state(), "alive": alive, "scores": scores})  # noqa: B023
        spend_remaining(task, trainer)
        return Outcome(network, notes={"widths": alive.sum(1).tolist()})

    def without_the_cheapest(self, task, alive, scores, target_energy):
        """`alive` after removing the channels of least score per joule until Ê is within the target."""
        alive = alive.clone()
        while float(task.energy(widths := alive.sum(1))) > target_energy:
            saved = task.energy_model.gradient(task.structure.positions(widths))[1:-1]  # joules per channel and unit
            price = torch.where(alive & (widths > 1)[:, None], scores / saved.clamp(min=1e-30)[:, None], torch.inf)
            if price.min() == torch.inf:
                raise Infeasible(f"one channel per unit is above the budget of {task.budget:.4g}")
            alive.view(-1)[price.argmin()] = False
        return alive

"""WSP as published: single weights, on a platform that saves energy by zeros."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.contract import Granularity, Infeasible, Outcome, Task
from methods.wsp.wsp import EVERY, WSP, target


class WSPWeights(WSP):
    """Trains; every tenth iteration is followed by a projection of all weights onto Ê <= a target.

    The projection is a knapsack: the weights with the largest squares in sum, at their prices in joules. Greedily those
    with the largest square per joule are kept, as many as fit, and in any case the largest of each layer. A weight that
    is zeroed may grow back until the next projection. The number is found by bisection, since a code of zeros saves
    nothing in layers that are nearly dense.
    """

    name: ClassVar[str] = "wsp-weights"
    title: ClassVar[str] = "WSP, weights"
    paper: ClassVar[str] = WSP.paper.replace("; for channels", "")
    granularity: ClassVar[Granularity] = "weights"

    def run(self, task: Task) -> Outcome:
        """Train and project. Raises Infeasible when the feature maps alone are above the budget."""
        network = task.copy_of_dense()
        parameters = sparse_parameters(network, task)
        project(parameters, task, task.budget, apply=False)  # raises before anything is spent
        trainer = task.trainer(network)
        if state := task.saved("training"):
            trainer.restore(state)
        while task.ledger.remaining:
            trainer.step()
            if task.ledger.training_iterations % EVERY == 0:
                project(parameters, task, target(task))
            task.save("training", trainer.state)
        project(parameters, task, task.budget)
        kept = {name: int(torch.count_nonzero(parameter)) for name, parameter in parameters.items()}
        return Outcome(network, {"kept_weights": kept})


def sparse_parameters(network: nn.Module, task: Task) -> dict[str, nn.Parameter]:
    """The weights that a method may zero, by name. Raises Infeasible where zeros save nothing."""
    if task.zeros is None:
        raise Infeasible("expected a platform on which zero weights save energy, got none; try --device eyeriss")
    return {name: parameter for name, parameter in network.named_parameters() if name in task.zeros.entries}


@torch.no_grad()
def project(parameters: dict[str, nn.Parameter], task: Task, target: float, *, apply: bool = True) -> dict[str, Tensor]:
    """Zero the weights that the projection removes, in place; returns how many stay in each tensor.

    Channels count as if all stayed, which is what Ê is at most. Raises Infeasible when the feature maps alone are above
    the target.
    """
    zeros = task.zeros
    assert zeros is not None, "expected a task with zeros; try sparse_parameters first"
    names = list(parameters)
    prices = {name: zeros.price(name) for name in names}
    profits = torch.cat([_profits(parameters[name], prices[name]) for name in names])
    order = profits.argsort(descending=True, stable=True)
    owners = torch.cat([torch.full((parameters[name].numel(),), place) for place, name in enumerate(names)])
    ranked = owners[order.cpu()]
    dense = task.dense_energy

    def kept(count: int) -> dict[str, Tensor]:
        counts = torch.bincount(ranked[:count], minlength=len(names))
        return dict(zip(names, counts, strict=True))

    def estimate(count: int) -> float:
        task.ledger.energy_queries += 1
        saved = [zeros.saved(name, number, parameters[name].numel()) for name, number in kept(count).items()]
        return dense - float(sum(saved))

    if (floor := estimate(len(names))) > target:
        unit = task.energy_model.unit
        raise Infeasible(
            f"expected a budget of at least {floor:.6g} {unit} (a weight per layer, all channels there), "
            f"got {target:.6g} {unit}; try more"
        )
    low, high = len(names), len(order) + 1  # so many fit, and so many don't or aren't there
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if estimate(middle) <= target else (low, middle)
    if apply:
        values = torch.cat([parameters[name].flatten() for name in names])
        values[order[low:]] = 0
        for name, part in zip(names, values.split([parameters[name].numel() for name in names]), strict=True):
            parameters[name].copy_(part.view(parameters[name].shape))
    return kept(low)


def _profits(weight: Tensor, price: float) -> Tensor:
    """Squared weights per joule, flat, infinite for the largest: a layer without any would end the network."""
    profits = (weight.double().square() / price).flatten()
    profits[profits.argmax()] = torch.inf
    return profits

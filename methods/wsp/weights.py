"""WSP as published: single weights, on a platform that saves energy by zeros."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.contract import Granularity, Infeasible, Outcome, Task
from methods.wsp.wsp import EVERY, WSP, target
from shared.energy.zeros import LayerZeros, ZeroSavings
from shared.networks.masks import masks_of


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
        project(network, task, task.budget, apply=False)  # raises before anything is spent
        trainer = task.trainer(network)
        if state := task.saved("training"):
            trainer.restore(state)
        while task.ledger.remaining:
            trainer.step()
            if task.ledger.training_iterations % EVERY == 0:
                project(network, task, target(task))
            task.save("training", trainer.state)
        project(network, task, task.budget)
        return Outcome(network, {"kept_weights": kept_weights(network, task)})


def kept_weights(network: nn.Module, task: Task) -> dict[str, int]:
    """The weights of each layer that are not zero."""
    zeros = _savings(task)
    return {name: int(torch.count_nonzero(w)) for name, w in network.named_parameters() if name in zeros.entries}


@torch.no_grad()
def project(network: nn.Module, task: Task, target: float, *, apply: bool = True) -> None:
    """Zero the weights that the projection removes, in place, unless `apply` is False.

    Channels count as if all stayed, which is what Ê is at most; masks of inputs count as they are. Raises Infeasible
    when the feature maps alone are above the target, and where zeros save nothing.
    """
    zeros = _savings(task)
    parameters = {name: weight for name, weight in network.named_parameters() if name in zeros.entries}
    masks = {f"{name}.weight": int((mask == 0).sum()) for name, mask in masks_of(network.state_dict()).items()}
    layers = {
        name: LayerZeros(torch.zeros(()), weight.numel(), weight.shape[1], masks.get(name, 0))
        for name, weight in parameters.items()
    }
    prices = {name: zeros.price(name, zeros.unmasked(name, layer)) for name, layer in layers.items()}
    profits = torch.cat([_profits(weight, prices[name]) for name, weight in parameters.items()])
    order = profits.argsort(descending=True, stable=True)
    sizes = torch.tensor([weight.numel() for weight in parameters.values()])
    ranked = torch.repeat_interleave(torch.arange(len(sizes)), sizes)[order.cpu()]  # the layers of the ranked weights

    def estimate(count: int) -> float:
        """Ê with so many weights, the best ones."""
        task.ledger.energy_queries += 1
        kept = torch.bincount(ranked[:count], minlength=len(sizes))
        saved = (zeros.saved(name, layers[name]._replace(kept=n)) for name, n in zip(layers, kept, strict=True))
        return task.dense_energy - float(sum(saved))

    if (floor := estimate(len(layers))) > target:
        unit = task.energy_model.unit
        raise Infeasible(
            f"expected a budget of at least {floor:.6g} {unit} (a weight per layer, all channels there), "
            f"got {target:.6g} {unit}; try more"
        )
    low, high = len(layers), len(order) + 1  # so many fit, and so many don't or aren't there
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if estimate(middle) <= target else (low, middle)
    if apply:
        values = torch.cat([weight.flatten() for weight in parameters.values()])
        values[order[low:]] = 0
        for weight, part in zip(parameters.values(), values.split(sizes.tolist()), strict=True):
            weight.copy_(part.view(weight.shape))


def _savings(task: Task) -> ZeroSavings:
    if task.zeros is None:
        raise Infeasible("expected a platform on which zero weights save energy, got none; try --device eyeriss")
    return task.zeros


def _profits(weight: Tensor, price: float) -> Tensor:
    """Squared weights per joule, flat, infinite for the largest: a layer without any would end the network."""
    profits = (weight.double().square() / price).flatten()
    profits[profits.argmax()] = torch.inf
    return profits

"""WSP as published: single weights, on a platform that saves energy by zeros."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from methods.contract import Granularity, Infeasible, Task
from methods.wsp.wsp import WSP
from shared.energy.zeros import LayerZeros, ZeroSavings
from shared.networks.masks import masks_of

UNUSED = 0.002  # share of the target that a projection may leave


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

    def check(self, network: nn.Module, task: Task) -> None:
        """Raises Infeasible when the feature maps alone are above the budget, or where zeros save nothing."""
        project(network, task, task.budget, apply=False)

    def project(self, network: nn.Module, task: Task, target: float) -> None:
        """Of all weights."""
        project(network, task, target)

    def finish(self, network: nn.Module, task: Task) -> dict[str, Any]:
        """The last projection."""
        project(network, task, task.budget)
        return {"kept_weights": kept_weights(network, task)}


def kept_weights(network: nn.Module, task: Task) -> dict[str, int]:
    """The weights of each layer that are not zero."""
    zeros = _savings(task)
    return {name: int(torch.count_nonzero(w)) for name, w in network.named_parameters() if name in zeros.entries}


@torch.no_grad()
def project(network: nn.Module, task: Task, target: float, *, apply: bool = True) -> None:
    """Zero the weights that the projection removes, in place, unless `apply` is False.

    Channels that no weight reads any more cost nothing; masks of inputs count as they are. Raises Infeasible when the
    feature maps alone are above the target, and where zeros save nothing.
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
    if not apply:
        return
    values = torch.cat([weight.flatten() for weight in parameters.values()])

    def write(count: int) -> None:
        left = values.clone()
        left[order[count:]] = 0
        for weight, part in zip(parameters.values(), left.split(sizes.tolist()), strict=True):
            weight.copy_(part.view(weight.shape))

    def exact(count: int) -> float:
        """Ê with so many weights, without the channels that they leave."""
        write(count)
        return task.energy_with_zeros(network, task.structure)

    # Channels count as if all stayed. Where channels go, more weights fit.
    low, high = len(layers), len(order) + 1  # so many fit, and so many don't or aren't there
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if estimate(middle) <= target else (low, middle)
    energy, high = exact(low), len(order) + 1
    if energy > target:  # masks hid more of the channels that went than of those that stay
        low, high = len(layers), low
        energy = exact(low)
    while energy < target * (1 - UNUSED) and high - low > 1:
        middle = (low + high) // 2
        if (at_middle := exact(middle)) <= target:
            low, energy = middle, at_middle
        else:
            high = middle
    write(low)


def _savings(task: Task) -> ZeroSavings:
    if task.zeros is None:
        raise Infeasible("expected a platform on which zero weights save energy, got none; try --device eyeriss")
    return task.zeros


def _profits(weight: Tensor, price: float) -> Tensor:
    """Squared weights per joule, flat, infinite for the largest: a layer without any would end the network."""
    profits = (weight.double().square() / price).flatten()
    profits[profits.argmax()] = torch.inf
    return profits

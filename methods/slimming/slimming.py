"""Network slimming: batch norm's scales shrink while it trains, and the channels with the least ones go.

Liu, Li, Shen, Huang, Yan, Zhang, "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017. The
paper sets a share of channels; here the threshold is the one that meets the energy budget.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from methods.contract import Infeasible, Method, Outcome, Properties, Task, spend_remaining
from shared.networks import Structure, zero_channels
from shared.widths.ranked import lowest_scores

# Both ours: the weight that the paper gives its penalty says nothing under another optimiser and in shorter training.
SHRINKING_SHARE = 0.5  # of the iterations; the rest trains the network at its final widths
SHRINKAGE = 1.0  # by which the scales shrink in all, in means of the dense network's


class Slimming(Method):
    """Trains with an L1 penalty on the scales of batch norm, cuts at one threshold for all units, and trains on.

    The penalty is a proximal step after each step of training, since the loss is the harness': a scale moves towards
    zero by one amount, not beyond it. A channel's score is the least absolute value of its scales: it may pass a batch
    norm behind the layer that makes it and another one behind a depthwise layer. Where an addition joins layers, it is
    the largest of theirs. Units without a batch norm keep their channels.
    """

    name: ClassVar[str] = "slimming"
    title: ClassVar[str] = "Network slimming"
    paper: ClassVar[str] = (
        "Liu, Li, Shen, Huang, Yan, Zhang: Learning Efficient Convolutional Networks through Network Slimming. "
        "ICCV 2017; threshold by energy"
    )
    properties: ClassVar[Properties | None] = Properties(
        direct_metric=False, targets_energy=False, optimization_based=False, platform_free=True
    )

    def refuses(self, structure: Structure) -> str | None:
        """A network without batch norm has no scales."""
        if any(_scales_of(structure)):
            return None
        return "it shrinks the scales of batch norm, and no unit of the network has one"

    def run(self, task: Task) -> Outcome:
        """Shrink, cut and train. Raises Infeasible when the units with batch norm cannot meet the budget."""
        if reason := self.refuses(task.structure):
            raise Infeasible(f"expected a network for {self.name}: {reason}; try another method")
        network = task.copy_of_dense()
        trainer = task.trainer(network)
        scales = _scales(network, task.structure)
        self._cut(task, scales)  # raises Infeasible before anything is spent
        shrinking = int(SHRINKING_SHARE * task.ledger.limit)
        parameters = [scale for of_unit in scales for branch in of_unit for scale in branch]
        every = torch.cat([scale.detach().abs() for scale in parameters])
        amount = SHRINKAGE * float(every.mean()) / max(1, shrinking)
        if state := task.saved("shrinking"):
            trainer.restore(state)
        while task.ledger.training_iterations < shrinking:
            trainer.step()
            for scale in parameters:
                shrink(scale, amount)
            task.save("shrinking", trainer.state)
        dead = self._cut(task, scales)
        scores = _scores(scales, task.structure)
        zero_channels(network, task.structure, dead, trainer.optimizer)
        spend_remaining(task, trainer)
        bounds = torch.tensor(task.structure.upper_bounds)
        return Outcome(network, {"widths": (bounds - dead.sum(1)).tolist(), "threshold": _threshold(scores, dead)})

    def _cut(self, task: Task, scales: list[list[list[nn.Parameter]]]) -> Tensor:
        """The channels below the threshold that meets the budget."""
        bounds = task.structure.upper_bounds
        least = [1 if of_unit else bound for of_unit, bound in zip(scales, bounds, strict=True)]
        scores = _scores(scales, task.structure)
        return lowest_scores(scores, bounds, lambda widths: float(task.energy(widths)), task.budget, least)


@torch.no_grad()
def shrink(scale: Tensor, amount: float) -> None:
    """The proximal step of amount * |scale|, in place: towards zero, not beyond it."""
    scale.copy_(scale.sign() * (scale.abs() - amount).clamp(min=0))


def _scales_of(structure: Structure) -> list[list[list[str]]]:
    """For every unit the names of its scales, by the branches that an addition joins; branches without one left out."""
    units = []
    for unit in structure.units:
        branches: list[list[str]] = [[]]
        for part in unit.slices:
            if part.role == "producer":
                branches.append([])
            elif part.role == "norm" and part.tensor.endswith("weight"):
                branches[-1].append(part.tensor)
        units.append([branch for branch in branches if branch])
    return units


def _scales(network: nn.Module, structure: Structure) -> list[list[list[nn.Parameter]]]:
    parameters = dict(network.named_parameters())
    return [[[parameters[name] for name in branch] for branch in of_unit] for of_unit in _scales_of(structure)]


def _scores(scales: list[list[list[nn.Parameter]]], structure: Structure) -> Tensor:
    """The score of every channel, (units, largest upper bound); infinite in units without scales."""

    def least(branch: list[nn.Parameter]) -> Tensor:
        return torch.stack([scale.detach().abs().cpu() for scale in branch]).amin(0)

    rows = [
        torch.stack([least(branch) for branch in of_unit]).amax(0)
        if of_unit
        else torch.full((unit.upper_bound,), torch.inf)
        for of_unit, unit in zip(scales, structure.units, strict=True)
    ]
    return pad_sequence(rows, batch_first=True)


def _threshold(scores: Tensor, dead: Tensor) -> float:
    """The largest score that was cut; 0 where none was."""
    return float(scores[dead].max()) if bool(dead.any()) else 0.0

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

SHRINKING_SHARE = 0.5  # of the iterations; the rest trains the network at its final widths
SHRINKAGE = 1.0  # by which the scales shrink in all, in means of the dense network's


class Slimming(Method):
    """Trains with an L1 penalty on the scales of batch norm, cuts at one threshold for all units, and trains on.

    The penalty is a proximal step after each step of training, since the loss is the harness': a scale moves towards
    zero by one amount, not beyond it. A channel's score is the least absolute value of its scales: it may pass a batch
    norm behind the layer that makes it and another one behind a depthwise layer. Units without a batch norm keep their
    channels.
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
        shrinking = int(SHRINKING_SHARE * task.ledger.limit)
        every = torch.cat([scale.detach().abs() for of_unit in scales for scale in of_unit])
        amount = SHRINKAGE * float(every.mean()) / max(1, shrinking)
        if state := task.saved("shrinking"):
            trainer.restore(state)
        while task.ledger.training_iterations < shrinking:
            trainer.step()
            for of_unit in scales:
                for scale in of_unit:
                    shrink(scale, amount)
            task.save("shrinking", trainer.state)
        scores = _scores(scales, task.structure)
        dead = lowest_scores(
            scores,
            task.structure.upper_bounds,
            lambda widths: float(task.energy(widths)),
            task.budget,
            [1 if of_unit else bound for of_unit, bound in zip(scales, task.structure.upper_bounds, strict=True)],
        )
        zero_channels(network, task.structure, dead, trainer.optimizer)
        spend_remaining(task, trainer)
        bounds = torch.tensor(task.structure.upper_bounds)
        return Outcome(network, {"widths": (bounds - dead.sum(1)).tolist(), "threshold": _threshold(scores, dead)})


@torch.no_grad()
def shrink(scale: Tensor, amount: float) -> None:
    """The proximal step of amount * |scale|, in place: towards zero, not beyond it."""
    scale.copy_(scale.sign() * (scale.abs() - amount).clamp(min=0))


def _scales_of(structure: Structure) -> list[list[str]]:
    """For every unit the names of its scales."""
    return [
        [part.tensor for part in unit.slices if part.role == "norm" and part.tensor.endswith("weight")]
        for unit in structure.units
    ]


def _scales(network: nn.Module, structure: Structure) -> list[list[nn.Parameter]]:
    parameters = dict(network.named_parameters())
    return [[parameters[name] for name in names] for names in _scales_of(structure)]


def _scores(scales: list[list[nn.Parameter]], structure: Structure) -> Tensor:
    """The least absolute scale of every channel, (units, largest upper bound); infinite in units without scales."""
    rows = [
        torch.stack([scale.detach().abs().cpu() for scale in of_unit]).amin(0)
        if of_unit
        else torch.full((unit.upper_bound,), torch.inf)
        for of_unit, unit in zip(scales, structure.units, strict=True)
    ]
    return pad_sequence(rows, batch_first=True)


def _threshold(scores: Tensor, dead: Tensor) -> float:
    """The largest score that was cut; 0 where none was."""
    return float(scores[dead].max()) if bool(dead.any()) else 0.0

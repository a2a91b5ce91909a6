"""WSP with input masks: rounds of training the weights, and of training which values of the inputs may be zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from methods.contract import Outcome, Task
from methods.wsp.weights import WSPWeights, kept_weights, project
from methods.wsp.wsp import EVERY
from shared.checkpoints import State
from shared.networks.forms import is_grouped
from shared.networks.masks import MASK, mask_inputs, masks_of
from shared.reconstruction import inputs_seen
from shared.training import Trainer

FIRST_SHARE = 0.5  # of the iterations, for weights before any mask
MASK_SHARE = 0.25  # of a later round, for its masks; the rest is for its weights


class Phase(NamedTuple):
    """Training up to an iteration: of the weights, or of masks that keep the share `q` of all input values."""

    end: int
    q: float | None = None


class _Masks(nn.Module):
    """The network as a function of its masks, which are the only parameters."""

    def __init__(self, network: nn.Module, layers: list[str]) -> None:
        super().__init__()
        self._network = [network.eval()]  # in a list: its parameters are none of this module's
        self._layers = [network.get_submodule(name) for name in layers]
        self.masks = nn.ParameterList([layer.get_buffer(MASK).clone() for layer in self._layers])

    def forward(self, images: Tensor) -> Tensor:
        for layer, mask in zip(self._layers, self.masks, strict=True):
            layer._buffers[MASK] = mask.view_as(mask)  # a buffer that gradients pass
        return self._network[0](images)

    @torch.no_grad()
    def clamp(self) -> None:
        """Masks stay within 0..1."""
        for mask in self.masks:
            mask.clamp_(0, 1)

    @torch.no_grad()
    def finish(self, q: float) -> None:
        """Give the network masks of zeros and ones: of all values the share q that is largest, if at least a half."""
        values = torch.cat([mask.flatten() for mask in self.masks])
        count = max(1, round(q * len(values)))
        keep = torch.zeros(len(values), dtype=torch.bool, device=values.device)
        keep[values.argsort(descending=True, stable=True)[:count]] = True
        parts = keep.split([mask.numel() for mask in self.masks])
        for layer, mask, part in zip(self._layers, self.masks, parts, strict=True):
            layer._buffers[MASK] = (part.view(mask.shape) & (mask >= 0.5)).float()


@dataclass(frozen=True)
class WSPMasked(WSPWeights):
    """WSP for weights; then each round hides a further share of the inputs of all convolutions, and trains on.

    kept: shares of all input values that the rounds keep, one after the other. Masks are trained on the same loss, held
    within 0..1, cut to the largest values and rounded in the end. Weights get what they save. Depthwise and linear
    layers have no mask. Departures: the published rounds end when accuracy no longer improves; here their number is
    fixed, as the iterations are. The published code cuts masks every tenth iteration of phases that are thousands long.
    Here a phase is too short for a mask to come back, so that the first cut would decide. Masks have the learning rate
    and the weight decay of all training here.
    """

    kept: tuple[float, ...] = (0.9, 0.8, 0.7)

    name: ClassVar[str] = "wsp-masked"
    title: ClassVar[str] = "WSP, weights and inputs"
    revision: ClassVar[int] = 3  # the second's projections counted masks of channels that were gone

    def run(self, task: Task) -> Outcome:
        """Train weights and masks in turns. Raises Infeasible when the feature maps alone are above the budget."""
        network = task.copy_of_dense()
        self.check(network, task)
        layers = _convolutions(network)
        mask_inputs(network, _full_masks(network, layers, task.train.batch(0)[0][:1]))
        trainer, phases, first, of_masks = task.trainer(network), self.phases(task.ledger.limit), 0, None
        if checkpoint := task.saved("phases"):
            first, of_masks = checkpoint["phase"], checkpoint["masks"]
            trainer.restore(checkpoint["weights"])
        for index in range(first, len(phases)):
            if phases[index].q is None:
                _train_weights(task, trainer, phases, index)
            else:
                _train_masks(task, trainer, layers, phases, index, of_masks)
                of_masks = None
        masks = masks_of(network.state_dict())
        hidden = {name: 1 - float(mask.mean()) for name, mask in masks.items()}
        return Outcome(network, {"kept_weights": kept_weights(network, task), "hidden_inputs": hidden})

    def phases(self, iterations: int) -> list[Phase]:
        """Weights first; then of each round the masks, and the weights again."""
        phases, start = [Phase(int(FIRST_SHARE * iterations))], int(FIRST_SHARE * iterations)
        for number, q in enumerate(self.kept, start=1):
            end = start + (iterations - start) * number // len(self.kept)
            begin = phases[-1].end
            phases += [Phase(begin + int(MASK_SHARE * (end - begin)), q), Phase(end)]
        return phases


def _train_weights(task: Task, trainer: Trainer, phases: list[Phase], index: int) -> None:
    """Train the weights through a phase, and project them."""

    def state() -> State:
        return {"phase": index, "weights": trainer.state(), "masks": None}

    task.save("phases", state)
    while task.ledger.training_iterations < phases[index].end:
        trainer.step()
        if task.ledger.training_iterations % EVERY == 0:
            project(trainer.model, task, _target(task, phases[0].end))
        task.save("phases", state)
    project(trainer.model, task, _target(task, phases[0].end))


def _train_masks(
    task: Task, weights: Trainer, layers: list[str], phases: list[Phase], index: int, trained: State | None
) -> None:
    """Train the masks of the network of `weights` through a phase, from `trained` on where it was stopped."""
    end, q = phases[index]
    assert q is not None, "expected a phase of masks"
    masks = _Masks(weights.model, layers)
    trainer = task.trainer(masks)
    if trained is not None:
        trainer.restore(trained)

    def state() -> State:
        return {"phase": index, "weights": weights.state(), "masks": trainer.state()}

    task.save("phases", state)
    while task.ledger.training_iterations < end:
        trainer.step()
        masks.clamp()
        task.save("phases", state)
    masks.finish(q)


def _target(task: Task, end: int) -> float:
    """From Ê(dense) exponentially to the budget, where it is from the end of the first phase on."""
    share = task.ledger.training_iterations / max(1, end)
    return task.budget if share >= 1 else task.dense_energy * (task.budget / task.dense_energy) ** share


def _convolutions(network: nn.Module) -> list[str]:
    modules = network.named_modules()
    return [name for name, layer in modules if isinstance(layer, nn.Conv2d) and not is_grouped(layer)]


def _full_masks(network: nn.Module, layers: list[str], image: Tensor) -> dict[str, Tensor]:
    """Masks of ones for these layers, in the shapes of their inputs."""
    masks: dict[str, Tensor] = {}

    def keep(name: str, inputs: Tensor) -> None:
        masks[name] = torch.ones_like(inputs[0])

    with torch.no_grad(), inputs_seen({name: network.get_submodule(name) for name in layers}, keep):
        network.eval()(image)
    return masks

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
from shared.networks.masks import MASK, load_state, mask_inputs, masks_of
from shared.reconstruction import inputs_seen

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
    def keep_largest(self, q: float) -> None:
        """Zero all but the share q of all masks' values, the largest ones."""
        values = torch.cat([mask.flatten() for mask in self.masks])
        count = max(1, round(q * len(values)))
        keep = torch.zeros(len(values), dtype=torch.bool, device=values.device)
        keep[values.argsort(descending=True, stable=True)[:count]] = True
        for mask, part in zip(self.masks, keep.split([mask.numel() for mask in self.masks]), strict=True):
            mask.mul_(part.view(mask.shape))

    @torch.no_grad()
    def finish(self, q: float) -> None:
        """Round the masks to zeros and ones, as many as q allows, and give them to the network."""
        self.keep_largest(q)
        for layer, mask in zip(self._layers, self.masks, strict=True):
            layer._buffers[MASK] = (mask >= 0.5).float()


@dataclass(frozen=True)
class WSPMasked(WSPWeights):
    """WSP for weights; then each round hides a further share of the inputs of all convolutions, and trains on.

    kept: shares of all input values that the rounds keep, one after the other. Masks are trained on the same loss, held
    within 0..1, cut to the largest values every tenth iteration, and rounded in the end. Weights get what they save.
    The published rounds end when accuracy no longer improves; here their number is fixed, as the iterations are.
    Depthwise and linear layers have no mask.
    """

    kept: tuple[float, ...] = (0.9, 0.8, 0.7)

    name: ClassVar[str] = "wsp-masked"
    title: ClassVar[str] = "WSP, weights and inputs"

    def run(self, task: Task) -> Outcome:
        """Train weights and masks in turns. Raises Infeasible when the feature maps alone are above the budget."""
        network = task.copy_of_dense()
        self.check(network, task)
        layers = _convolutions(network)
        mask_inputs(network, _full_masks(network, layers, task.train.batch(0)[0][:1]))
        phases, first, trained = self.phases(task.ledger.limit), 0, None
        if checkpoint := task.saved("phases"):
            first, trained = checkpoint["phase"], checkpoint["trainer"]
            load_state(network, checkpoint["network"])
        for index in range(first, len(phases)):
            _train(task, network, layers, phases, index, trained)
            trained = None
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


def _train(
    task: Task, network: nn.Module, layers: list[str], phases: list[Phase], index: int, trained: State | None
) -> None:
    """Train through a phase, from `trained` on where it was stopped."""
    phase = phases[index]
    masks = None if phase.q is None else _Masks(network, layers)
    trainer = task.trainer(network if masks is None else masks)
    if trained is not None:
        trainer.restore(trained)

    def state() -> State:
        whole = {name: tensor.detach() for name, tensor in network.state_dict().items()}
        return {"phase": index, "network": whole, "trainer": trainer.state()}

    task.save("phases", state)
    while task.ledger.training_iterations < phase.end:
        trainer.step()
        due = task.ledger.training_iterations % EVERY == 0
        if masks is not None and phase.q is not None:
            masks.clamp()
            if due:
                masks.keep_largest(phase.q)
        elif due:
            project(network, task, _target(task, phases[0].end))
        task.save("phases", state)
    if masks is not None and phase.q is not None:
        masks.finish(phase.q)
    else:
        project(network, task, _target(task, phases[0].end))


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

"""Training and evaluation, the same for every method: loss, training step, batch-norm recalibration, score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.checkpoints import State
from shared.computing import ON_CPU, Computing
from shared.data import Batches, Images
from shared.ledger import Ledger
from shared.objective import Objective
from shared.protocol import Protocol

Teacher = Callable[[int, Tensor], Tensor]  # (batch index, images) -> logits of the dense network, (batch, classes, …)
EVALUATION_BATCH = 500  # images at once, where EVALUATION_PIXELS allows
EVALUATION_PIXELS = 4 * 2**20  # at most in a batch: large images would fill the memory


def distillation_loss(logits: Tensor, teacher: Tensor, labels: Tensor, share: float, objective: Objective) -> Tensor:
    """share · mean squared difference of the logits + (1 - share) · loss of the task.

    logits and teacher: (batch, classes), labels: (batch,); with labels per pixel each has (h, w) appended. The first
    term is the distillation of Ba and Caruana (2014): mean over batch, classes and pixels (ignored ones too), without a
    temperature. The published code of ECC (CVPR 2019) adds the two terms like this.
    """
    return share * F.mse_loss(logits, teacher) + (1.0 - share) * objective.loss(logits, labels)


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Adam:
    """Adam with default betas and coupled weight decay on all parameters (ECC paper, section 4.1).

    It runs as one fused kernel per step.
    """
    return torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)


def train_mode(model: nn.Module) -> None:
    """Training mode but with dropout off: batch norm uses the batch's statistics, and no activations are dropped.

    The teacher's logits are without dropout, so the student's have to be as well.
    """
    if not model.training:
        model.train()
    for module in model.modules():  # even if `model` was in training mode already: dropout may be on in it
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.training = False


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Weights, batch-norm statistics and the optimiser's moments, for a checkpoint."""
    moments = {name: dict(optimizer.state.get(parameter, {})) for name, parameter in model.named_parameters()}
    return {"model": dict(model.state_dict()), "moments": moments}


def restore_training(model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Load a `training_state` of the same tensors, by name and shape, onto the model's device."""
    model.load_state_dict(state["model"])
    for name, parameter in model.named_parameters():
        for key, saved in state["moments"][name].items():
            # The fused kernel assumes that moments have the parameter's memory format, and all be on its device, the
            # count of steps as well.
            like = parameter if saved.shape == parameter.shape else saved
            entry = torch.empty_like(like, device=parameter.device)
            optimizer.state[parameter][key] = entry.copy_(saved)


def keep_zeros(model: nn.Module, names: Iterable[str]) -> None:
    """Make the zeros of these parameters stay zero in training: they get no gradient, and weight decay leaves them."""
    parameters = dict(model.named_parameters())
    for name in names:
        mask = parameters[name].detach() != 0
        if not bool(mask.all()):
            parameters[name].register_hook(lambda gradient, mask=mask: gradient * mask)


class Feed(NamedTuple):
    """What trainers read. At the count n of a trainer's ledger it gets batch `first_batch` + n and its logits."""

    batches: Batches
    teacher: Teacher
    first_batch: int = 0


class Trainer:
    """A model with its optimiser; each `step()` is one training iteration and is counted in the ledger.

    The ledger's count chooses the batch, so every method sees the same batches in the same order. Model, batches and
    the teacher's logits are on the device of `computing`.

    schedule: maps the spent share of the ledger (0..1) to a factor on the learning rate; None keeps it constant.
    """

    # The trainer, if any, whose optimiser is inside a step that the ledger has counted; one for the whole process.
    # The harness hooks every optimiser of the process and tells by this the steps that no ledger has counted.
    stepping: Trainer | None = None

    def __init__(
        self,
        model: nn.Module,
        feed: Feed,
        ledger: Ledger,
        protocol: Protocol,
        *,
        schedule: Callable[[float], float] | None = None,
        computing: Computing = ON_CPU,
    ) -> None:
        self.model, self._computing = model, computing
        self._forward: Callable[[Tensor], Tensor] = torch.compile(model) if computing.compiled else model
        self.optimizer = make_optimizer(model, protocol.learning_rate, protocol.weight_decay)
        self._feed, self._ledger, self._protocol, self._schedule = feed, ledger, protocol, schedule

    def step(self) -> Tensor:
        """Take one optimiser step on the next batch and return the loss (0-dim, detached, not synchronised).

        Raises BudgetExhausted when the ledger has no iteration left.
        """
        spent = self._ledger.spend_iteration()
        index = self._feed.first_batch + spent
        images, labels = self._feed.batches.batch(index)
        train_mode(self.model)
        objective = self._feed.batches.split.objective
        logits = self._computing.logits(self._forward, images)
        if share := self._protocol.distillation:
            teacher = self._feed.teacher(index, images)
            loss = distillation_loss(logits, teacher, labels, share, objective)
        else:
            loss = objective.loss(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        if self._schedule is not None:
            factor = self._schedule(spent / self._ledger.limit)
            for group in self.optimizer.param_groups:
                group["lr"] = self._protocol.learning_rate * factor
        Trainer.stepping = self
        try:
            self.optimizer.step()
        finally:
            Trainer.stepping = None
        return loss.detach()

    def state(self) -> State:
        """Weights, batch-norm statistics and the optimiser's moments, for a checkpoint."""
        return training_state(self.model, self.optimizer)

    def restore(self, state: State) -> None:
        """Load what `state()` returned; the model must have the same tensors, by name and shape."""
        restore_training(self.model, self.optimizer, state)


def evaluation_batch(split: Images) -> int:
    """Number of images of `split` per batch in evaluation."""
    _, height, width = split.image_shape
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))


@torch.no_grad()
def score(model: nn.Module, split: Images, limit: int | None = None) -> float:
    """Score of `model`, 0..1, in evaluation mode on the first `limit` images (None: all) of `split`.

    The data set's objective says which score: top-1 accuracy or mean IoU.
    """
    model.eval()
    batches = split.batches(evaluation_batch(split), limit)
    none = torch.zeros((), dtype=torch.int64)  # float32 can't count beyond 2^24 pixels
    confusion = sum((split.objective.confusion(model(images), labels) for images, labels in batches), none)
    return split.objective.score(confusion)


def first_batches(stream: Batches, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first `count` training batches, (images, labels) each."""
    return (stream.batch(index) for index in range(count))


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Replace batch norm's running statistics by their plain mean over batches of (images, labels).

    Running statistics lag behind the last removals. Recalibration makes the accuracy before fine-tuning comparable
    between methods.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    train_mode(model)
    for images, _ in batches if norms else ():
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()

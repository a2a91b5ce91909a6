"""Training and evaluating, the same for every method: loss, step, batch-norm recalibration, score."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
EVALUATION_BATCH = 500  # images, fewer where they are large
EVALUATION_PIXELS = 4 * 2**20  # of a batch


def distillation_loss(logits: Tensor, teacher: Tensor, labels: Tensor, share: float, objective: Objective) -> Tensor:
    """share · mean squared difference of raw logits + (1 - share) · loss of the task.

    logits and teacher (batch, classes), labels (batch,), all three with (h, w) behind where pixels have labels. The
    distillation term is that of Ba and Caruana (2014), mean over batch, classes and pixels (ignored ones too), no
    temperature, as the published code of ECC (CVPR 2019) weighs it.
    """
    return share * F.mse_loss(logits, teacher) + (1.0 - share) * objective.loss(logits, labels)


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Adam:
    """Adam with default betas and coupled weight decay on all parameters (ECC paper, section 4.1), one fused kernel
    per step.
    """
    return torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)


def train_mode(model: nn.Module) -> None:
    """Training mode with dropout off: batch norm uses the batch, and the student sees what the teacher saw."""
    if not model.training:
        model.train()
    for module in model.modules():  # also in a model that comes in training mode
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.training = False


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Weights, statistics and moments, for a checkpoint."""
    moments = {name: dict(optimizer.state.get(parameter, {})) for name, parameter in model.named_parameters()}
    return {"model": dict(model.state_dict()), "moments": moments}


def restore_training(model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Put back what `training_state` gave, on the model's device; it has the same tensors by name and shape."""
    model.load_state_dict(state["model"])
    for name, parameter in model.named_parameters():
        for key, kept in state["moments"][name].items():
            # in the parameter's own memory format, which the fused kernel takes for granted
            like = parameter if kept.shape == parameter.shape else kept
            entry = torch.empty_like(like, device=parameter.device)  # the count of steps too, as the fused kernel wants
            optimizer.state[parameter][key] = entry.copy_(kept)


class Trainer:
    """A model with its optimiser; `step()` is one training iteration, paid from the ledger.

    Model, batches and the teacher's logits are on the device of `computing`.

    The ledger's count is the index of the batch, so every method sees the same batches in the same order. `schedule`
    maps the share of the ledger that is spent (0..1) to a factor on the learning rate; None keeps it constant.
    """

    paying: Trainer | None = None  # of the whole process: whose optimiser takes the step that the ledger has counted

    def __init__(
        self,
        model: nn.Module,
        stream: Batches,
        teacher: Teacher,
        ledger: Ledger,
        protocol: Protocol,
        *,
        first_batch: int = 0,
        schedule: Callable[[float], float] | None = None,
        computing: Computing = ON_CPU,
    ) -> None:
        self.model, self._computing = model, computing
        self._forward: Callable[[Tensor], Tensor] = torch.compile(model) if computing.compiled else model
        self.optimizer = make_optimizer(model, protocol.learning_rate, protocol.weight_decay)
        self._stream, self._teacher, self._ledger, self._protocol = stream, teacher, ledger, protocol
        self._first_batch, self._schedule = first_batch, schedule

    def step(self) -> Tensor:
        """One optimiser step on the next batch; returns the loss (0-dim, detached, not synchronised).

        Raises BudgetExhausted when the ledger has no iteration left.
        """
        index = self._ledger.spend_iteration()
        images, labels = self._stream.batch(self._first_batch + index)
        train_mode(self.model)
        objective = self._stream.split.objective
        logits = self._computing.logits(self._forward, images)
        if share := self._protocol.distillation:
            teacher = self._teacher(self._first_batch + index, images)
            loss = distillation_loss(logits, teacher, labels, share, objective)
        else:
            loss = objective.loss(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        if self._schedule is not None:
            factor = self._schedule(index / self._ledger.limit)
            for group in self.optimizer.param_groups:
                group["lr"] = self._protocol.learning_rate * factor
        Trainer.paying = self
        try:
            self.optimizer.step()
        finally:
            Trainer.paying = None
        return loss.detach()

    def state(self) -> State:
        """Weights, statistics and moments, for a checkpoint."""
        return training_state(self.model, self.optimizer)

    def restore(self, state: State) -> None:
        """Go on from what `state()` gave; the model has the same tensors by name and shape."""
        restore_training(self.model, self.optimizer, state)


def evaluation_batch(split: Images) -> int:
    """How many images of `split` go through a network at once where nothing is trained."""
    _, height, width = split.image_shape
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))


@torch.no_grad()
def score(model: nn.Module, split: Images, limit: int | None = None) -> float:
    """Score in 0..1, the one that the data set names, of `model` in evaluation mode on the first `limit` images."""
    model.eval()
    batches = split.batches(evaluation_batch(split), limit)
    none = torch.zeros((), dtype=torch.int64)  # a float would round the counts of many pixels
    confusion = sum((split.objective.confusion(model(images), labels) for images, labels in batches), none)
    return split.objective.score(confusion)


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Replace batch norm's running statistics by their plain average over `batches`; returns the number of images
    seen.

    Running statistics lag behind the last removals; averaging anew is what makes accuracy before fine-tuning
    comparable between methods.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    train_mode(model)
    seen = 0
    for images, _ in batches:
        if norms:
            model(images)
        seen += len(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
    return seen

"""Training and evaluating, the same for every method: loss, step, batch-norm recalibration, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.checkpoints import State
from shared.data import BatchStream, Split
from shared.ledger import Ledger
from shared.protocol import Protocol

Teacher = Callable[[int, Tensor], Tensor]  # (batch index, images) -> logits of the dense network, (batch, classes)
EVALUATION_BATCH = 500


def distillation_loss(logits: Tensor, teacher: Tensor, labels: Tensor, share: float) -> Tensor:
    """share · mean squared difference of raw logits + (1 - share) · cross-entropy.

    logits and teacher (batch, classes), labels (batch,). The distillation term is that of Ba and Caruana (2014), mean
    over batch and classes, no temperature, as the published code of ECC (CVPR 2019) weighs it.
    """
    return share * F.mse_loss(logits, teacher) + (1.0 - share) * F.cross_entropy(logits, labels)


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


class Trainer:
    """A model with its optimiser; `step()` is one training iteration, paid from the ledger.

    The ledger's count is the index of the batch, so every method sees the same batches in the same order. `schedule`
    maps the share of the ledger that is spent (0..1) to a factor on the learning rate; None keeps it constant.
    """

    paying: Trainer | None = None  # of the whole process: whose optimiser takes the step that the ledger has counted

    def __init__(
        self,
        model: nn.Module,
        stream: BatchStream,
        teacher: Teacher,
        ledger: Ledger,
        protocol: Protocol,
        *,
        first_batch: int = 0,
        schedule: Callable[[float], float] | None = None,
    ) -> None:
        self.model = model
        self.optimizer = make_optimizer(model, protocol.learning_rate, protocol.weight_decay)
        self._stream, self._teacher, self._ledger, self._protocol = stream, teacher, ledger, protocol
        self._first_batch, self._schedule = first_batch, schedule

    def step(self) -> Tensor:
        """One optimiser step on the next batch; returns the loss (0-dim, detached, not synchronised).

        Raises BudgetExhausted when the ledger has no iteration left.
        """
        index = self._ledger.spend_iteration()
        images, labels = self._stream.batch(self._first_batch + index)
        teacher = self._teacher(self._first_batch + index, images)
        train_mode(self.model)
        loss = distillation_loss(self.model(images), teacher, labels, self._protocol.distillation)
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
        moments = {name: dict(self.optimizer.state.get(p, {})) for name, p in self.model.named_parameters()}
        return {"model": dict(self.model.state_dict()), "moments": moments}

    def restore(self, state: State) -> None:
        """Go on from what `state()` gave; the model has the same tensors by name and shape."""
        self.model.load_state_dict(state["model"])
        for name, parameter in self.model.named_parameters():
            for key, kept in state["moments"][name].items():
                # in the parameter's own memory format, which the fused kernel takes for granted
                entry = torch.empty_like(parameter) if kept.shape == parameter.shape else torch.empty_like(kept)
                self.optimizer.state[parameter][key] = entry.copy_(kept)


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, limit: int | None = None) -> float:
    """Top-1 accuracy in 0..1 of `model` in evaluation mode on the first `limit` images of `split`."""
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    count = 0
    for images, labels in split.batches(EVALUATION_BATCH, limit):
        correct += (model(images).argmax(1) == labels).sum()
        count += len(labels)
    return correct.item() / count


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

"""Fine-tuning: the landed network is trained in the same way after every method."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from torch import nn

from methods.contract import Task
from shared.checkpoints import Checkpoints
from shared.ledger import Ledger
from shared.protocol import Protocol
from shared.rng import forked
from shared.training import Feed, Trainer


def fine_tune(small: nn.Module, task: Task, ledger: Ledger, checkpoints: Checkpoints | None = None) -> float:
    """Train the network in place for the ledger's iterations; returns the wall seconds, those before a stop included.

    It takes the run's next batches, the same loss and the protocol's learning rate, constant or decayed along half a
    cosine to zero. The protocol's closing iterations train on the task's loss alone, with a fresh Adam.
    """
    checkpoints = checkpoints or Checkpoints()
    checkpoints.start()
    feed = Feed(task.train, task.teacher, first_batch=task.protocol.iterations)
    with forked(task.seed, "fine-tuning"):
        state = checkpoints.load("training", ledger)
        for part in _parts(task.protocol, ledger.limit):
            schedule = partial(part.factor, ledger.limit)
            trainer = Trainer(small, feed, ledger, part.protocol, schedule=schedule, computing=task.computing)
            if state and ledger.training_iterations <= part.end:  # it was stopped in this part
                trainer.restore(state)
                state = None
            while ledger.training_iterations < part.end:
                trainer.step()
                checkpoints.save("training", trainer.state, ledger)
        task.computing.wait()
    return checkpoints.elapsed_s


class _Part(NamedTuple):
    """Iterations `start` to `end` of fine-tuning, and their settings."""

    start: int
    end: int
    decays: bool
    protocol: Protocol

    def factor(self, limit: int, spent: float) -> float:
        """Factor on the learning rate after the share `spent`, 0..1, of all `limit` iterations: half a cosine, or 1."""
        share = (round(spent * limit) - self.start) / (self.end - self.start)  # of this part
        return 0.5 * (1.0 + math.cos(math.pi * share)) if self.decays else 1.0


def _parts(protocol: Protocol, limit: int) -> list[_Part]:
    closing = max(0, limit - protocol.closing_iterations)
    closing_protocol = replace(protocol, learning_rate=protocol.closing_learning_rate, distillation=0.0)
    parts = [_Part(0, closing, protocol.fine_tune_decays, protocol), _Part(closing, limit, True, closing_protocol)]
    return [part for part in parts if part.end > part.start]

"""What a training step and a forward pass of the dense network take: the unit in which runs are priced."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import nn

from bench.setup.setup import Setup
from shared.computing import Computing
from shared.ledger import Ledger
from shared.training import Feed, Trainer, evaluation_batch


def unit_costs(dense: nn.Module, feed: Feed, setup: Setup, repeats: int = 5) -> tuple[float, float]:
    """Median seconds of a distillation step of the dense network, and of its forward pass per search image."""
    ledger, computing = Ledger(repeats + 2), setup.computing
    trainer = Trainer(copy.deepcopy(dense), feed, ledger, setup.protocol, computing=computing)
    network = copy.deepcopy(dense).eval()
    search = setup.dataset.search
    images, _ = search.take(torch.arange(min(evaluation_batch(search), setup.protocol.search_images)))
    steps = [_seconds(trainer.step, computing) for _ in range(repeats + 2)]
    with torch.no_grad():
        passes = [_seconds(lambda: network(images), computing) for _ in range(4)]
    # the first ones warm caches up
    return sorted(steps[2:])[repeats // 2], sorted(passes[1:])[1] / len(images)


def _seconds(work: Callable[[], object], computing: Computing) -> float:
    computing.wait()
    started = time.perf_counter()
    work()
    computing.wait()
    return time.perf_counter() - started

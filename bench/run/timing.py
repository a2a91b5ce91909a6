"""Times a training step and a forward pass of the dense network, the units of a run's cost."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from bench.setup.setup import Setup
from shared.computing import Computing
from shared.ledger import Ledger
from shared.training import Feed, Trainer, evaluation_batch

STEPS, PASSES = 7, 4  # timed; the first two steps and the first pass only warm up caches


def unit_costs(dense: nn.Module, feed: Feed, setup: Setup) -> tuple[float, float]:
    """Median seconds of a distillation step of the dense network, and of its forward pass per search image."""
    ledger, computing = Ledger(STEPS), setup.computing
    trainer = Trainer(copy.deepcopy(dense), feed, ledger, setup.protocol, computing=computing)
    network = copy.deepcopy(dense).eval()
    search = setup.dataset.search
    images, _ = search.take(torch.arange(min(evaluation_batch(search), setup.protocol.search_images)))
    steps = [_seconds(trainer.step, computing) for _ in range(STEPS)]
    with torch.no_grad():
        passes = [_seconds(lambda: network(images), computing) for _ in range(PASSES)]
    return median(steps[2:]), median(passes[1:]) / len(images)


def _seconds(work: Callable[[], object], computing: Computing) -> float:
    computing.wait()
    started = time.perf_counter()
    work()
    computing.wait()
    return time.perf_counter() - started

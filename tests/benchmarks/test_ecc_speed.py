"""What ECC adds: its proximal step beside Adam's step, its iteration beside a plain distillation iteration."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from methods.ecc.metric import ChannelNorms
from methods.ecc.prox import channel_price, descending, keep_channels
from shared.data import BatchStream, load
from shared.ledger import Ledger
from shared.memory import keep_freed_memory
from shared.networks import active_channels, build, structure, zero_channels
from shared.protocol import Protocol
from shared.training import Feed, Trainer

ALPHA, RHO = 1e-3, 10.0
PROTOCOL = Protocol("benchmark", 10_000, 0, 64, ALPHA, (0.35,), (0,), 0, 1, 1, 1, 0)


def median_s(work: Callable[[], object], rounds: int) -> float:
    """Median wall seconds of `work` after two rounds of warm-up."""
    seconds = []
    for turn in range(rounds + 2):
        started = time.perf_counter()
        work()
        if turn >= 2:
            seconds.append(time.perf_counter() - started)
    return sorted(seconds)[rounds // 2]


def proximal_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Importances, price and Algorithm 2 for all units of `model`, and removal of one channel, a new one at each call.

    One per iteration is more than ECC removes on average in the paper's 300,000 iterations.
    """
    table = structure(model)
    norms, alive = ChannelNorms(model, table, optimizer), active_channels(model, table)
    bounds = torch.tensor(table.upper_bounds, dtype=torch.float64)

    def step() -> None:
        nonlocal alive
        a = norms()
        bounds[bounds.argmax()] -= 1
        y = channel_price(descending(a), bound=bounds, step_size=ALPHA)
        keep = keep_channels(a, bound=bounds, dual=y, rho=RHO, step_size=ALPHA)
        zero_channels(model, table, alive & ~keep, optimizer)
        alive = alive & keep

    return step


@pytest.mark.parametrize("name", ["mobilenet", "alexnet"])
def test_proximal_step_over_adam(benchmark: Any, name: str) -> None:
    """Times the proximal step of all units; `extra_info` has Adam's steps, default and fused, and the ratios."""
    torch.set_num_threads(2)
    keep_freed_memory()  # as every run does
    model = build(name, num_classes=1000)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    steps = {}
    for kind, fused in (("default", None), ("fused", True)):
        adam = torch.optim.Adam(model.parameters(), lr=1e-9, fused=fused)
        steps[kind] = median_s(adam.step, 10)
    benchmark.pedantic(proximal_step(model, adam), rounds=10, warmup_rounds=2)
    benchmark.extra_info |= {f"adam_{kind}_s": seconds for kind, seconds in steps.items()}
    if benchmark.stats is not None:
        median = benchmark.stats.stats.median
        benchmark.extra_info |= {f"over_adam_{kind}": median / seconds for kind, seconds in steps.items()}


def test_ecc_iteration_over_distillation(benchmark: Any) -> None:
    """Times a distillation step followed by a proximal step, on the embedded default, beside the step alone."""
    torch.set_num_threads(1)
    keep_freed_memory()
    stream = BatchStream(load("fashion-mnist").train, 0, PROTOCOL.batch_size)
    zeros = torch.zeros(PROTOCOL.batch_size, 10)

    def trainer() -> Trainer:
        model = build("mobilenet", width_multiplier=0.25, num_classes=10, in_channels=1, input_size=28)
        model = model.to(memory_format=torch.channels_last)
        return Trainer(model, Feed(stream, lambda index, images: zeros), Ledger(10_000), PROTOCOL)

    plain, ecc = trainer(), trainer()
    ecc.step()
    prune = proximal_step(ecc.model, ecc.optimizer)

    def iteration() -> None:
        ecc.step()
        prune()

    plain_s: list[float] = []  # turn by turn, so that both see the same machine

    def setup() -> None:
        started = time.perf_counter()
        plain.step()
        plain_s.append(time.perf_counter() - started)

    benchmark.pedantic(iteration, setup=setup, rounds=30, warmup_rounds=2)
    benchmark.extra_info["plain_step_s"] = sorted(plain_s)[len(plain_s) // 2]
    if benchmark.stats is not None:
        benchmark.extra_info["over_plain"] = benchmark.stats.stats.median / benchmark.extra_info["plain_step_s"]

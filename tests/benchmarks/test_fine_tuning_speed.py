"""Fine-tuning on the cut network beside the same training with its channels merely zeroed."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch

from shared.data import BatchStream, load
from shared.ledger import Ledger
from shared.memory import keep_freed_memory
from shared.networks import build, compact, importance, structure, zero_channels
from shared.networks.ranking import weakest_channels
from shared.protocol import Protocol
from shared.training import Feed, Trainer

SHARE = 0.35  # of every width
PROTOCOL = Protocol("benchmark", 10_000, 0, 64, 1e-3, (0.35,), (0,), 0, 1, 1, 1, 0)


def test_fine_tuning_step_compact_over_masked(benchmark: Any) -> None:
    """Times the compact step; `extra_info` has the masked step of the same run and the ratio of the medians."""
    torch.set_num_threads(1)
    keep_freed_memory()
    masked = build("mobilenet", width_multiplier=0.25, num_classes=10, in_channels=1, input_size=28)
    masked = masked.to(memory_format=torch.channels_last)
    table = structure(masked)
    widths = [max(1, round(SHARE * bound)) for bound in table.upper_bounds]
    zero_channels(masked, table, weakest_channels(importance(masked, table), widths, table.upper_bounds))
    small = compact(masked, table).to(memory_format=torch.channels_last)
    stream = BatchStream(load("fashion-mnist").train, 0, PROTOCOL.batch_size)

    def trainer(model: torch.nn.Module) -> Trainer:
        zeros = torch.zeros(PROTOCOL.batch_size, 10)
        return Trainer(copy.deepcopy(model), Feed(stream, lambda index, images: zeros), Ledger(10_000), PROTOCOL)

    whole, cut = trainer(masked), trainer(small)
    seconds = []
    for turn in range(12):
        started = time.perf_counter()
        whole.step()
        if turn >= 2:
            seconds.append(time.perf_counter() - started)
    benchmark.pedantic(cut.step, rounds=20, warmup_rounds=2)
    benchmark.extra_info["masked_step_s"] = sorted(seconds)[len(seconds) // 2]
    if benchmark.stats is not None:
        benchmark.extra_info["compact_over_masked"] = (
            benchmark.stats.stats.median / benchmark.extra_info["masked_step_s"]
        )

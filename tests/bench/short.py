"""Short runs, in this process and in those that it forks, while SHORT is set.

The smoke protocol takes fewer iterations, calibration fewer images, data sets have fewer test images, and readings of
the clock end early.

conftest.py has the server that forks the runs' processes import this module, which therefore looks at the environment
of the moment, not at that of its import.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor

from bench.setup import protocols
from methods.contract import Task
from shared import data
from shared.data import Dataset, Split
from shared.meters import Reading, Settings
from shared.platforms import MeasuredPlatform
from shared.protocol import Protocol

SHORT = "BENCH_TESTS_SHORT"
PROTOCOL = replace(
    protocols.SMOKE,
    iterations=20,
    fine_tune_iterations=4,
    batch_size=8,
    search_images=20,
    episodes=4,
    profile_samples=140,
    profile_test_samples=28,
)
TEST_IMAGES = 500
CALIBRATION_BATCHES = 8
load, get, read, calibration_batches = data.load, protocols.get, MeasuredPlatform.read, Task.calibration_batches


def head(split: Split, count: int) -> Split:
    """The first `count` images."""
    return Split(split.images[:count], split.labels[:count], split.mean, split.std)


def short_load(*arguments: Any) -> Dataset:
    images = load(*arguments)
    return replace(images, test=head(images.test, TEST_IMAGES)) if SHORT in os.environ else images


def short_get(name: str, *network: str) -> Protocol:
    return PROTOCOL if SHORT in os.environ and name == "smoke" else get(name, *network)


def short_read(platform: MeasuredPlatform, subject: Any, rows: Any, batch: int, settings: Settings) -> list[Reading]:
    if SHORT in os.environ:  # readings that end before they are exact
        settings = replace(settings, limit_s=settings.limit_s / 20, visits=4, runs=2)
    return read(platform, subject, rows, batch, settings)


def short_calibration(task: Task, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    return calibration_batches(task, min(count, CALIBRATION_BATCHES) if SHORT in os.environ else count)


data.load = short_load
protocols.get = short_get
Task.calibration_batches = short_calibration  # type: ignore[method-assign]
MeasuredPlatform.read = short_read  # type: ignore[method-assign]

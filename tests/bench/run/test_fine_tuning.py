"""Fine-tuning in its parts: each as written out by hand, and whole again after a stop anywhere."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.run.fine_tuning import fine_tune
from methods.contract import Task
from shared.checkpoints import Checkpoints
from shared.ledger import Ledger
from shared.rng import derived_seed
from shared.training import make_optimizer, train_mode

MakeTask = Callable[..., Task]
PUBLISHED = {"fine_tune_decays": False, "closing_iterations": 4, "closing_learning_rate": 3e-3}
TOTAL = 10


def by_hand(task: Task, rates: list[float], distilled: int, fresh_at: int) -> nn.Module:
    """The dense network after steps at these rates: the first ones distilled, Adam made anew before one of them."""
    model, protocol = copy.deepcopy(task.network), task.protocol
    for index, rate in enumerate(rates):
        if index in (0, fresh_at):
            optimizer = make_optimizer(model, rate, protocol.weight_decay)
        images, labels = task.train.batch(protocol.iterations + index)
        with torch.no_grad():
            teacher = task.network.eval()(images)
        train_mode(model)
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        if index < distilled:
            loss = 0.5 * (logits - teacher).square().mean() + 0.5 * loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return model


def same(one: nn.Module, other: nn.Module, *, rtol: float, atol: float) -> None:
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=rtol, atol=atol)


def half_cosine(rate: float, count: int) -> list[float]:
    return [rate * (1 + math.cos(math.pi * k / count)) / 2 for k in range(count)]


@pytest.mark.parametrize(
    ("changes", "rates", "distilled"),
    [
        ({}, half_cosine(1e-3, TOTAL), TOTAL),
        ({"fine_tune_decays": False}, TOTAL * [1e-3], TOTAL),
        (PUBLISHED, 6 * [1e-3] + half_cosine(3e-3, 4), 6),
        (PUBLISHED | {"fine_tune_decays": True}, half_cosine(1e-3, 6) + half_cosine(3e-3, 4), 6),
        (PUBLISHED | {"closing_iterations": TOTAL}, half_cosine(3e-3, TOTAL), 0),
    ],
)
def test_fine_tuning_is_what_its_protocol_says(
    changes: dict[str, Any], rates: list[float], distilled: int, tiny_task: MakeTask
) -> None:
    task = tiny_task(fine_tune_iterations=TOTAL, **changes)
    small, ledger, asked = task.copy_of_dense(), Ledger(TOTAL), []

    def teacher(index: int, images: Tensor) -> Tensor:
        asked.append(index)
        return task.teacher(index, images)

    fine_tune(small, replace(task, teacher=teacher), ledger)
    assert ledger.training_iterations == TOTAL
    assert asked == [task.protocol.iterations + index for index in range(distilled)]  # nobody is asked in vain
    same(by_hand(task, rates, distilled, fresh_at=distilled), small, rtol=1e-4, atol=1e-6)


def test_global_generators_are_seeded_by_the_run(tiny_task: MakeTask) -> None:
    """For networks that draw in training."""
    task, seeds = tiny_task(seed=5), []
    teacher = task.teacher
    watched = replace(task, teacher=lambda index, images: seeds.append(torch.initial_seed()) or teacher(index, images))
    fine_tune(task.copy_of_dense(), watched, Ledger(1))
    assert seeds == [derived_seed(5, "fine-tuning")]


@pytest.mark.parametrize("stops", [(1,), (5,), (6,), (7,), (10,), (3, 6, 8)])
def test_stopped_fine_tuning_goes_on_with_the_same_outcome(
    stops: tuple[int, ...], tiny_task: MakeTask, tmp_path: Path
) -> None:
    task = tiny_task(fine_tune_iterations=TOTAL, **PUBLISHED)
    whole = task.copy_of_dense()
    fine_tune(whole, task, Ledger(TOTAL))
    paid: list[int] = []

    def until(stop: int) -> nn.Module:
        def observer(ledger: Ledger) -> None:
            paid.append(ledger.training_iterations)
            if ledger.training_iterations > stop:
                raise KeyboardInterrupt

        small = task.copy_of_dense()
        ledger = Ledger(TOTAL, observer=observer)
        fine_tune(small, task, ledger, Checkpoints(tmp_path, every_s=0.0))
        return small

    for stop in stops:
        if stop < TOTAL:
            with pytest.raises(KeyboardInterrupt):
                until(stop)
        else:
            until(stop)
    same(whole, until(TOTAL), rtol=0.0, atol=0.0)
    assert len(paid) == TOTAL + sum(stop < TOTAL for stop in stops)  # only those cut short are made again

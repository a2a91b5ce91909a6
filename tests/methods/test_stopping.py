"""A run that is stopped anywhere and goes on ends as if it had not been, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from methods import registry
from methods.contract import Outcome, Task
from shared.checkpoints import Checkpoints
from shared.ledger import Ledger

ITERATIONS = 61
DEPARTURES = (1, 9, 30, 55, 60)  # before this iteration the process dies, each time a new one goes on

NETWORK: dict[str, dict[str, Any]] = {
    "slimming": {"network": "mobilenet"}
}  # where the toy network won't do: not all of its units have batch norm
SAVE_IN_EVERY_ITERATION = (
    "wsp",
    "wsp-weights",
    "lcp",
    "legr",
    "slimming",
    "ecc",
    "ecc-paper",
    "uniform-gradual",
    "dense",
    "uniform",
    "magnitude",
    "random",
    "amc",
)


class Stopped(Exception):
    """The process was killed."""


def stopping_at(iteration: int) -> Callable[[Ledger], None]:
    """An observer that kills the process in `iteration`; one who has gone on beyond it is left alone."""

    def observe(ledger: Ledger) -> None:
        if ledger.training_iterations == iteration:
            raise Stopped

    return observe


@pytest.fixture(autouse=True)
def few_calibration_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.reconstruction.CALIBRATION_IMAGES", 200)


def described(outcome: Outcome, task: Task) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    return outcome.notes, outcome.trace, task.ledger.as_record()


@pytest.mark.parametrize("name", list(registry.BUILT_IN))
@pytest.mark.parametrize("every_s", [0.0, 1e9], ids=["saves-always", "saves-never"])
def test_goes_on_as_if_nothing_had_happened(
    name: str, every_s: float, tmp_path: Path, tiny_task: Callable[..., Task]
) -> None:
    needs = {"zeros": registry.get(name).granularity == "weights"} | NETWORK.get(name, {})
    whole = tiny_task(iterations=ITERATIONS, **needs)
    expected = registry.get(name).run(whole)
    for departure in DEPARTURES:
        task = replace(tiny_task(iterations=ITERATIONS, **needs), checkpoints=Checkpoints(tmp_path, every_s))
        task.ledger.observer = stopping_at(departure)
        with pytest.raises(Stopped):
            registry.get(name).run(task)
    task = replace(tiny_task(iterations=ITERATIONS, **needs), checkpoints=Checkpoints(tmp_path, every_s))
    trained: list[int] = []
    task.ledger.observer = lambda ledger: trained.append(ledger.training_iterations)
    outcome = registry.get(name).run(task)
    assert described(outcome, task) == described(expected, whole)
    network = outcome.network.state_dict()
    assert list(network) == list(expected.network.state_dict())
    for key, tensor in expected.network.state_dict().items():
        assert torch.equal(network[key], tensor), key
    first = next(count for count in trained if count)
    assert first == 60 if every_s == 0 and name in SAVE_IN_EVERY_ITERATION else first <= 60

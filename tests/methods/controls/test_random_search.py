"""Random search on a tiny task: AMC's tries without its agent."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.contract import Infeasible, Task
from methods.controls.random import Random
from shared.candidates import Candidates
from shared.checkpoints import Checkpoints
from shared.ledger import Ledger
from shared.networks import active_widths
from shared.rng import numpy_generator
from shared.widths.bounded import lower_bounds


def test_spends_exactly_and_stays_within_the_budget(tiny_task: Callable[..., Any]) -> None:
    task = tiny_task(batch_size=250, budget_fraction=0.35, iterations=9, episodes=7)
    before = copy.deepcopy(task.network.state_dict())
    outcome = Random().run(task)
    assert task.ledger.training_iterations == task.ledger.limit == 9
    assert task.ledger.search_samples == Random().search_samples(task.protocol, task.structure)
    assert len(outcome.trace["reward"]) == outcome.notes["tries"] == 7
    assert outcome.notes["best_reward"] == max(outcome.trace["reward"])
    assert outcome.notes["first_reward"] == outcome.trace["reward"][0]
    widths = active_widths(outcome.network)
    assert list(widths) == outcome.notes["widths"]
    assert all(low <= width for low, width in zip(lower_bounds(task.structure.upper_bounds), widths, strict=True))
    energy = float(task.energy(torch.tensor(widths)))
    assert energy <= task.budget
    assert outcome.notes["budget_unused_share"] == pytest.approx(1 - energy / task.budget)
    assert all(torch.equal(task.network.state_dict()[name], tensor) for name, tensor in before.items())


def test_same_seed_is_bit_identical_and_more_tries_begin_with_the_same_ones(tiny_task: Callable[..., Any]) -> None:
    first, second = (Random().run(tiny_task(batch_size=250, iterations=5, episodes=6)) for _ in range(2))
    assert first.notes == second.notes and first.trace == second.trace
    weights = first.network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in second.network.state_dict().items())
    longer = Random().run(tiny_task(batch_size=250, iterations=5, episodes=12))
    assert longer.trace["reward"][:6] == first.trace["reward"]
    assert longer.notes["best_reward"] >= first.notes["best_reward"]


def test_tries_and_training_by_hand(tiny_task: Callable[..., Any]) -> None:
    """A width is the uniform ratio, down to the largest with which later units at a fifth meet the budget."""
    options = {"batch_size": 250, "budget_fraction": 0.35, "iterations": 4, "episodes": 6, "seed": 3}
    outcome, task = Random().run(tiny_task(**options)), tiny_task(**options)
    upper = task.structure.upper_bounds
    lower = [math.ceil(bound / 5) for bound in upper]
    batches = [task.train.batch(index) for index in range(12)]  # 3000 images
    candidates = Candidates(task.copy_of_dense(), task.structure, batches, task.generator("reconstruction"))
    tries, rewards = [], []
    for row in numpy_generator(3, "random").random((6, 4)):
        widths = list(lower)
        for unit, ratio in enumerate(row):
            widths[unit] = max(lower[unit], math.floor(ratio * upper[unit] + 0.5))
            while float(task.energy_model(task.structure.positions(widths))) > task.budget:
                widths[unit] -= 1
        tries.append(widths)
        rewards.append(task.search_accuracy(candidates.at(widths)))
    assert outcome.trace["reward"] == rewards
    best = tries[rewards.index(max(rewards))]
    assert outcome.notes["widths"] == best
    model = candidates.cut(best)
    trainer = task.trainer(model)
    for _ in range(4):
        trainer.step()
    weights = outcome.network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_of_equally_good_tries_the_first_is_trained(tiny_task: Callable[..., Any]) -> None:
    one, five = (tiny_task(batch_size=250, iterations=0, episodes=episodes) for episodes in (1, 5))
    vars(five).update(search_accuracy=lambda model: 0.5)
    assert Random().run(five).notes["widths"] == Random().run(one).notes["widths"]


def test_reward_is_that_of_the_network_before_training(tiny_task: Callable[..., Any]) -> None:
    task = tiny_task(batch_size=250, iterations=0, episodes=5)
    outcome = Random().run(task)
    assert task.search_accuracy(outcome.network) == outcome.notes["best_reward"]


def test_unreachable_budget_is_infeasible_before_anything_is_spent(tiny_task: Callable[..., Any]) -> None:
    task = tiny_task(batch_size=250, budget_fraction=0.11)
    with pytest.raises(Infeasible, match="at least"):
        Random().run(task)
    assert (task.ledger.training_iterations, task.ledger.search_samples) == (0, 0)


def test_a_stopped_run_judges_no_network_again(
    tiny_task: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"batch_size": 250, "iterations": 5, "episodes": 7}
    whole = tiny_task(**options)
    expected = Random().run(whole)
    judged: list[float] = []
    judge = Task.search_accuracy

    def watched(task: Task, model: torch.nn.Module) -> float:
        judged.append(judge(task, model))
        return judged[-1]

    monkeypatch.setattr(Task, "search_accuracy", watched)
    per_image = whole.protocol.search_images
    calibration = whole.ledger.search_samples - 7 * per_image
    # after how many search samples or in which iteration the process dies, and how many networks all have judged
    for samples, iteration, played in ((3, None, 3), (5, None, 5), (None, 1, 7), (None, 4, 7), (None, None, 7)):

        def observe(ledger: Ledger, samples: int | None = samples, iteration: int | None = iteration) -> None:
            if samples is not None and ledger.search_samples > calibration + samples * per_image:
                raise KeyboardInterrupt
            if ledger.training_iterations == iteration:
                raise KeyboardInterrupt

        task = replace(tiny_task(**options), checkpoints=Checkpoints(tmp_path, every_s=0))
        task.ledger.observer = observe
        with pytest.raises(KeyboardInterrupt) if samples or iteration else nullcontext():
            outcome = Random().run(task)
        assert judged == expected.trace["reward"][:played]
    assert outcome.trace == expected.trace and outcome.notes == expected.notes
    assert task.ledger.as_record() == whole.ledger.as_record()
    weights = expected.network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in outcome.network.state_dict().items())

"""AMC on a tiny task: stages, exact spending, determinism, what it leaves untouched."""

import copy
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from methods.amc import AMC
from methods.amc.agent import Agent
from methods.contract import Infeasible, Outcome, Task
from shared.candidates import Candidates
from shared.checkpoints import Checkpoints
from shared.ledger import Ledger
from shared.networks import active_widths, structure
from shared.rng import forked, generator
from shared.widths.bounded import BoundedWidths, lower_bounds

SMALL = AMC(hidden=(32, 32))


@pytest.fixture
def small_task(tiny_task: Callable[..., Any]) -> Callable[..., Any]:
    """Few large batches: the calibration wants thousands of images."""
    return lambda **options: tiny_task(batch_size=250, **options)


def logits(outcome: Outcome) -> torch.Tensor:
    images = torch.randn(8, 1, 16, 16, generator=generator(0, "test images"))
    with torch.no_grad():
        return outcome.network.eval()(images)


@pytest.mark.parametrize("stages, episodes, iterations", [(2, 13, 15), (3, 6, 7), (1, 5, 4), (4, 2, 6)])
def test_stages_share_episodes_and_iterations(
    small_task: Callable[..., Any], stages: int, episodes: int, iterations: int
) -> None:
    task = small_task(budget_fraction=0.4, iterations=iterations, stages=stages, episodes=episodes)
    outcome = SMALL.run(task)
    played = min(stages, episodes)
    assert task.ledger.training_iterations == task.ledger.limit == iterations
    assert task.ledger.search_samples == SMALL.search_samples(task.protocol, task.structure)

    notes = outcome.notes
    share = episodes // played
    assert notes["stages"] == played
    assert notes["episodes"] == [share] * (played - 1) + [episodes - share * (played - 1)]
    assert notes["stage_budgets"] == pytest.approx([0.4 ** ((i + 1) / played) for i in range(played)])

    # every episode of a stage is within the stage's budget, and the result is the last stage's best one
    trace = outcome.trace
    assert len(trace["stage"]) == len(trace["reward"]) == len(trace["energy"]) == episodes
    for stage, joules in zip(trace["stage"], trace["energy"], strict=True):
        assert joules <= notes["stage_budgets"][stage]
    last = [i for i, stage in enumerate(trace["stage"]) if stage == played - 1]
    assert notes["best_reward"][-1] == max(trace["reward"][i] for i in last)
    assert notes["first_reward"][-1] == trace["reward"][last[0]]
    widths = active_widths(outcome.network)
    assert list(widths) == notes["best_widths"][-1]
    energy = float(task.energy(torch.tensor(widths)))
    assert energy <= task.budget
    assert notes["budget_unused_share"] == pytest.approx(1 - energy / task.budget)
    assert notes["reconstruction_skipped"] == []

    # widths only shrink, and no stage goes below a fifth of the dense ones
    previous = task.structure.upper_bounds
    for stage_widths in notes["best_widths"]:
        lower = lower_bounds(task.structure.upper_bounds)
        assert all(low <= width <= high for low, width, high in zip(lower, stage_widths, previous, strict=True))
        previous = stage_widths


@pytest.mark.parametrize("episodes, iterations", [(22, 9), (21, 1)])
def test_every_stage_by_hand(small_task: Callable[..., Any], episodes: int, iterations: int) -> None:
    """Calibrate the network as it is, judge without training, cut the best widths, train with a fresh optimiser."""
    options = {"budget_fraction": 0.4, "iterations": iterations, "stages": 3, "episodes": episodes}
    task, again = small_task(**options), small_task(**options)
    outcome = SMALL.run(task)
    assert len(set(map(tuple, outcome.notes["best_widths"]))) == 3
    rewards: list[list[float]] = [[], [], []]
    for stage, reward in zip(outcome.trace["stage"], outcome.trace["reward"], strict=True):
        rewards[stage].append(reward)
    assert any(played[-1] < max(played) for played in rewards)  # the last policy's network is another one
    model = again.copy_of_dense()
    for stage in range(3):
        batches = [again.train.batch(index) for index in range(12)]  # 3000 images
        candidates = Candidates(model, structure(model), batches, again.generator("reconstruction", stage))
        model = candidates.cut(outcome.notes["best_widths"][stage])
        assert again.search_accuracy(model) == outcome.notes["best_reward"][stage] == max(rewards[stage])
        trainer = again.trainer(model)
        for _ in range(iterations // 3 if stage < 2 else iterations - 2 * (iterations // 3)):
            trainer.step()
    expected = model.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in outcome.network.state_dict().items())


def test_each_stage_draws_its_episodes_by_seed_and_stage(
    small_task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first episodes, here two, have uniform ratios; bounds are those of the stage, the lowest of the dense."""
    sizes, search = [], Agent.search

    def watched(agent: Agent) -> None:
        sizes.append([layer.out_features for layer in agent.actor.mu if isinstance(layer, torch.nn.Linear)])
        search(agent)

    monkeypatch.setattr(Agent, "search", watched)
    task = small_task(budget_fraction=0.4, iterations=3, stages=3, episodes=12, seed=7)
    outcome = AMC(hidden=(6, 5)).run(task)
    assert sizes == 3 * [[6, 5, 1]]
    upper, lower = task.structure.upper_bounds, lower_bounds(task.structure.upper_bounds)
    for stage, best in enumerate(outcome.notes["best_widths"]):
        bounds = BoundedWidths(
            lambda widths: task.energy_model(task.structure.positions(widths)),
            outcome.notes["stage_budgets"][stage],
            lower=lower,
            upper=upper,
        )
        with forked(7, "amc", stage):
            ratios = np.random.random((2, 4))
        for episode, row in enumerate(ratios):
            widths: list[int] = []
            for ratio in row:
                widths.append(bounds.width(widths, ratio))
            assert outcome.trace["energy"][4 * stage + episode] == pytest.approx(bounds.energy(widths), rel=1e-12)
        upper = tuple(best)


def test_a_stopped_run_plays_no_finished_episode_again(
    small_task: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"budget_fraction": 0.4, "iterations": 9, "stages": 2, "episodes": 10}
    whole = small_task(**options)
    expected = SMALL.run(whole)
    judged: list[float] = []
    judge = Task.search_accuracy

    def watched(task: Task, model: torch.nn.Module) -> float:
        judged.append(judge(task, model))
        return judged[-1]

    spent: list[int] = []
    spend = Ledger.spend_iteration
    monkeypatch.setattr(Task, "search_accuracy", watched)
    monkeypatch.setattr(
        Ledger, "spend_iteration", lambda ledger: spent.append(ledger.training_iterations + 1) or spend(ledger)
    )
    calibration = SMALL.search_samples(whole.protocol, whole.structure) // 2 - 5 * whole.protocol.search_images
    first, second = expected.trace["reward"][:5], expected.trace["reward"][5:]
    # iteration and search samples at which the process dies; the rewards that it sees and the iterations that it spends
    for iteration, samples, rewards, iterations in (
        (0, calibration + 3 * 50, first[:2], []),  # in the first search, which begins anew
        (1, 0, first, [1]),  # before the first iteration is saved: the search was
        (3, 0, [], [1, 2, 3]),
        (4, 2 * calibration + 5 * 50 + 4 * 50, second[:3], [3, 4]),  # in the second search
        (5, 0, second, [5]),
        (9, 0, [], [5, 6, 7, 8, 9]),
        (None, 0, [], [9]),
    ):

        def observe(ledger: Ledger, iteration: int | None = iteration, samples: int = samples) -> None:
            if ledger.training_iterations == iteration and ledger.search_samples >= samples:
                raise KeyboardInterrupt

        judged.clear()
        spent.clear()
        task = replace(small_task(**options), checkpoints=Checkpoints(tmp_path, every_s=0))
        task.ledger.observer = observe
        with nullcontext() if iteration is None else pytest.raises(KeyboardInterrupt):
            outcome = SMALL.run(task)
        assert (judged, spent) == (rewards, iterations)
    assert outcome.notes == expected.notes and outcome.trace == expected.trace
    assert task.ledger.as_record() == whole.ledger.as_record()
    assert torch.equal(logits(outcome), logits(expected))


def test_same_seed_is_bit_identical_and_global_generators_stay(small_task: Callable[..., Any]) -> None:
    runs = []
    for disturbance in range(2):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)
        random.seed(disturbance)
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[union-attr]
        runs.append(SMALL.run(small_task(iterations=6, episodes=10, seed=3)))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
        assert random.getstate() == states[2]
    first, second = runs
    assert first.notes == second.notes and first.trace == second.trace
    assert torch.equal(logits(first), logits(second))
    other = SMALL.run(small_task(iterations=6, episodes=10, seed=4))
    assert other.trace["energy"] != first.trace["energy"]


def test_dense_network_is_left_as_it_was(small_task: Callable[..., Any]) -> None:
    task = small_task(iterations=4, episodes=4)
    before = copy.deepcopy(task.network.state_dict())
    SMALL.run(task)
    after = task.network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(module._forward_pre_hooks for module in task.network.modules())


def test_unreachable_budget_is_infeasible_before_anything_is_spent(small_task: Callable[..., Any]) -> None:
    # the first stage's budget alone would be reachable
    task = small_task(budget_fraction=0.11, stages=2)
    with pytest.raises(Infeasible, match="at least"):
        SMALL.run(task)
    assert (task.ledger.training_iterations, task.ledger.search_samples) == (0, 0)


def test_runs_on_mobilenet(small_task: Callable[..., Any]) -> None:
    task = small_task(budget_fraction=0.3, iterations=2, episodes=4, network="mobilenet")
    outcome = SMALL.run(task)
    assert float(task.energy(torch.tensor(active_widths(outcome.network)))) <= task.budget


def test_is_described_for_the_tables() -> None:
    assert (AMC.name, AMC.title) == ("amc", "AMC") and "ECCV 2018" in AMC.paper
    assert AMC().hidden == (300, 300)

"""Taylor per joule against its formula, and against pricing every channel one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.contract import Infeasible, Task
from methods.controls.taylor import Taylor
from shared.networks import active_channels, active_widths


def test_scores_are_running_means_of_squared_products(tiny_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recomputed from weights and gradients after each step, for the unit whose channels one layer reads."""
    task: Task = tiny_task(budget_fraction=0.999, iterations=10)
    unit = next(unit for unit in task.structure.units if len(readers(unit)) == 1)
    (part,) = readers(unit)
    expected, scores, make, narrowed = [torch.zeros(unit.upper_bound)], [], Task.trainer, Taylor.narrowed

    def watched(task: Task, network: torch.nn.Module) -> Any:
        trainer = make(task, network)
        step = trainer.step

        def watched_step() -> Any:
            loss = step()
            weight = dict(network.named_parameters())[part.tensor]
            assert weight.grad is not None
            products = (weight.detach() * weight.grad) ** 2
            per_channel = products.transpose(0, part.dim).reshape(unit.upper_bound, -1).sum(1)
            expected.append(0.9 * expected[-1] + 0.1 * per_channel)
            return loss

        trainer.step = watched_step
        return trainer

    def kept(self: Taylor, task: Task, alive: torch.Tensor, importances: torch.Tensor, target: float) -> torch.Tensor:
        scores.append(importances[unit.index, : unit.upper_bound])
        return narrowed(self, task, alive, importances, target)

    monkeypatch.setattr(Task, "trainer", watched)
    monkeypatch.setattr(Taylor, "narrowed", kept)
    Taylor().run(task)
    assert len(scores) == 8  # 0.8 of the iterations
    for found, truth in zip(scores, expected[1:], strict=False):
        torch.testing.assert_close(found, truth)


def readers(unit: Any) -> list[Any]:
    return [part for part in unit.slices if part.role in ("consumer", "depthwise")]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), fraction=st.floats(0.2, 0.99))
def test_the_least_score_per_joule_goes(tiny_task: Any, seed: int, fraction: float) -> None:
    """Oracle: every remaining channel priced by the model's difference before each removal."""
    task: Task = tiny_task()
    alive = active_channels(task.network, task.structure)
    scores = torch.rand(alive.shape, generator=torch.Generator().manual_seed(seed)) ** 3
    target = fraction * task.dense_energy
    left = [set(row.nonzero().flatten().tolist()) for row in alive]

    def estimate(widths: list[int]) -> float:
        return float(task.energy_model(task.structure.positions(widths)))

    while estimate(widths := [len(channels) for channels in left]) > target:
        prices = {}
        for unit, channels in enumerate(left):
            saving = estimate(widths) - estimate([*widths[:unit], widths[unit] - 1, *widths[unit + 1 :]])
            if len(channels) > 1:
                prices |= {(unit, channel): float(scores[unit, channel]) / saving for channel in channels}
        unit, channel = min(prices, key=lambda entry: prices[entry])
        left[unit].remove(channel)
    found = Taylor().narrowed(task, alive, scores, target)
    assert [set(row.nonzero().flatten().tolist()) for row in found] == left


@pytest.mark.parametrize("network", ["toy", "mobilenet"])
def test_energy_falls_on_a_line_and_the_dead_stay_dead(network: str, tiny_task: Any) -> None:
    task: Task = tiny_task(budget_fraction=0.5, network=network)
    outcome = Taylor().run(task)
    widths = active_widths(outcome.network)
    assert list(widths) == outcome.notes["widths"] and min(widths) >= 1
    assert 0.45 < float(task.energy_model(task.structure.positions(widths))) <= 0.5
    assert task.ledger.remaining == 0


def test_targets_fall_on_a_line_for_four_fifths_and_one_adam_trains_to_the_end(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets, trainers, narrowed, make = [], [], Taylor.narrowed, Task.trainer

    def watched(self: Taylor, task: Task, alive: torch.Tensor, scores: torch.Tensor, target: float) -> torch.Tensor:
        targets.append(target)
        return narrowed(self, task, alive, scores, target)

    def counted(task: Task, network: torch.nn.Module) -> Any:
        trainers.append(make(task, network))
        return trainers[-1]

    monkeypatch.setattr(Taylor, "narrowed", watched)
    monkeypatch.setattr(Task, "trainer", counted)
    network = Taylor().run(tiny_task(budget_fraction=0.5, iterations=10)).network
    assert targets == pytest.approx([0.9375, 0.875, 0.8125, 0.75, 0.6875, 0.625, 0.5625, 0.5])  # of 1 J
    (trainer,) = trainers
    assert trainer.model is network
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {10}


def test_a_budget_below_one_channel_per_unit(tiny_task: Any) -> None:
    with pytest.raises(Infeasible, match="one channel per unit"):
        Taylor().run(tiny_task(budget_fraction=0.05))

"""WSP with input masks: its phases, what masks hide, one Adam for the weights, and that these get what masks save."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.contract import Task
from methods.wsp import masked
from methods.wsp.masked import Phase, WSPMasked
from shared.networks import structure
from shared.networks.masks import MASK, load_state, mask_inputs, masks_of
from shared.training import Trainer


def test_phases_share_the_iterations() -> None:
    phases = WSPMasked(kept=(0.9, 0.5)).phases(160)
    assert phases == [Phase(80), Phase(90, 0.9), Phase(120), Phase(130, 0.5), Phase(160)]
    for iterations in (0, 1, 7, 37):
        ends = [phase.end for phase in WSPMasked().phases(iterations)]
        assert ends == sorted(ends) and ends[-1] == iterations


def test_the_budget_is_approached_in_the_first_phase_and_held_from_then_on(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Task = tiny_task(budget_fraction=0.7, iterations=60, zeros=True)
    project, seen = masked.project, []

    def watched(network: nn.Module, task: Task, target: float) -> None:
        project(network, task, target)
        seen.append((task.ledger.training_iterations, target))
        assert task.energy_with_zeros(network) <= target

    monkeypatch.setattr(masked, "project", watched)
    WSPMasked(kept=(0.8,)).run(task)  # weights to 30, masks to 37, weights to 60
    assert [count for count, _ in seen] == [10, 20, 30, 30, 40, 50, 60, 60]
    assert [target for _, target in seen] == pytest.approx([0.7 ** (1 / 3), 0.7 ** (2 / 3), *[0.7] * 6])


@given(st.lists(st.floats(0, 1, width=32), min_size=12, max_size=12), st.floats(0.01, 1))
def test_a_phase_ends_with_the_largest_masks_that_are_a_half_at_least(values: list[float], q: float) -> None:
    network = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Conv2d(1, 1, 1))
    mask_inputs(network, {"0": torch.tensor(values[:8]).view(2, 2, 2), "1": torch.tensor(values[8:]).view(1, 2, 2)})
    masked._Masks(network, ["0", "1"]).finish(q)
    found = torch.cat([network.get_buffer(f"{name}.{MASK}").flatten() for name in ("0", "1")]).tolist()
    places = sorted(range(12), key=lambda place: (-values[place], place))[: max(1, round(12 * q))]
    assert found == [float(place in places and values[place] >= 0.5) for place in range(12)]


def test_inputs_that_are_always_zero_are_hidden(tiny_task: Any) -> None:
    """Nothing but weight decay pulls at their masks, always downwards."""
    task: Task = tiny_task(budget_fraction=0.9, iterations=80, zeros=True)
    network = task.copy_of_dense()
    with torch.no_grad():
        for name in ("weight", "bias"):
            network.get_parameter(f"pointwise_norm.{name}")[[2, 7, 11]] = 0.0  # for good: no gradient passes
    outcome = WSPMasked(kept=(0.7,)).run(replace(task, network=network))
    masks = masks_of(outcome.network.state_dict())
    assert not bool(masks["conv"][[2, 7, 11]].any())
    assert float(masks["conv"].mean()) > 0.3


def test_weights_have_one_adam_and_masks_are_cut_when_their_phase_ends(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Task = tiny_task(budget_fraction=0.7, iterations=120, zeros=True)
    of_weights: list[Trainer] = []
    moments: list[Tensor] = []
    trainer, finish, lowest = Task.trainer, masked._Masks.finish, []

    def watched(task: Task, model: nn.Module) -> Trainer:
        made = trainer(task, model)
        if not isinstance(model, masked._Masks):
            of_weights.append(made)
        else:
            state = of_weights[0].optimizer.state[of_weights[0].model.get_parameter("conv.weight")]
            moments.append(state["exp_avg"].clone())
        return made

    def finishing(masks: Any, q: float) -> None:
        lowest.append(min(float(mask.detach().min()) for mask in masks.masks))
        state = of_weights[0].optimizer.state[of_weights[0].model.get_parameter("conv.weight")]
        assert torch.equal(state["exp_avg"], moments[-1]) and float(state["step"]) == 60
        finish(masks, q)

    monkeypatch.setattr(Task, "trainer", watched)
    monkeypatch.setattr(masked._Masks, "finish", finishing)
    outcome = WSPMasked(kept=(0.6,)).run(task)  # weights to 60, masks to 75, weights to 120
    (one,) = of_weights
    assert {float(state["step"]) for state in one.optimizer.state.values()} == {120 - 15}
    assert one.model is outcome.network and len(moments) == 1
    assert lowest[0] > 0.95  # at a rate of 0.001; a cut at 70 would have left zeros
    values = torch.cat([mask.flatten() for mask in masks_of(outcome.network.state_dict()).values()])
    assert int(values.sum()) == round(0.6 * len(values))


def test_rounds_hide_a_share_of_all_inputs_and_stay_within_the_budget(tiny_task: Any) -> None:
    task: Task = tiny_task(budget_fraction=0.7, iterations=60, zeros=True)
    outcome = WSPMasked(kept=(0.8, 0.6)).run(task)
    masks = masks_of(outcome.network.state_dict())
    assert set(masks) == {"stem", "pointwise", "conv"}  # no depthwise and no linear layer
    values = torch.cat([mask.flatten() for mask in masks.values()])
    assert set(values.unique().tolist()) <= {0.0, 1.0}
    assert 0.3 < float(values.mean()) < 0.601
    assert 0.68 < task.energy_with_zeros(outcome.network) <= 0.7
    assert outcome.notes["hidden_inputs"]["conv"] == pytest.approx(1 - float(masks["conv"].mean()))


def test_masks_alone_are_trained_in_their_phases(tiny_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task: Task = tiny_task(budget_fraction=0.7, iterations=60, zeros=True)
    finish, seen = masked._Masks.finish, []

    def watched(masks: Any, q: float) -> None:
        trained = torch.cat([mask.detach().flatten() for mask in masks.masks])
        assert bool(((trained >= 0) & (trained <= 1)).all()) and len(trained.unique()) > 2
        seen.append(q)
        finish(masks, q)

    trainer = Task.trainer

    def checked(task: Task, model: torch.nn.Module) -> Any:
        if isinstance(model, masked._Masks):
            assert all(len(parameter) in (1, 12, 20) for parameter in model.parameters())
            assert len(list(model.parameters())) == 3
        return trainer(task, model)

    monkeypatch.setattr(masked._Masks, "finish", watched)
    monkeypatch.setattr(Task, "trainer", checked)
    WSPMasked().run(task)
    assert seen == [0.9, 0.8, 0.7]


def test_weights_get_what_masks_save(tiny_task: Any) -> None:
    """At one budget, a network whose inputs are hidden keeps more weights."""
    kept = {}
    for shares in ((1.0,), (0.5,)):
        task: Task = tiny_task(budget_fraction=0.6, iterations=40, zeros=True)
        outcome = WSPMasked(kept=shares).run(task)
        kept[shares] = sum(outcome.notes["kept_weights"].values())
    assert kept[0.5,] > kept[1.0,]


def test_a_masked_network_is_loaded_into_a_plain_one(tiny_task: Any, dense_networks: Any) -> None:
    task: Task = tiny_task(budget_fraction=0.7, iterations=20, zeros=True)
    network = WSPMasked().run(task).network
    plain = task.copy_of_dense()
    load_state(plain, network.state_dict())
    images = task.train.batch(0)[0]
    assert torch.equal(plain.eval()(images), network.eval()(images))
    roles = [part.role for unit in structure(plain).units for part in unit.slices]
    assert roles.count("mask") == 2  # the image's mask belongs to no unit

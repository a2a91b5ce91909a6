"""WSP with input masks: its phases, what masks may be, and that weights get what masks save."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from methods.contract import Task
from methods.wsp import masked
from methods.wsp.masked import Phase, WSPMasked
from shared.networks import structure
from shared.networks.masks import load_state, masks_of


def test_phases_share_the_iterations() -> None:
    phases = WSPMasked(kept=(0.9, 0.5)).phases(160)
    assert phases == [Phase(80), Phase(90, 0.9), Phase(120), Phase(130, 0.5), Phase(160)]
    for iterations in (0, 1, 7, 37):
        ends = [phase.end for phase in WSPMasked().phases(iterations)]
        assert ends == sorted(ends) and ends[-1] == iterations


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

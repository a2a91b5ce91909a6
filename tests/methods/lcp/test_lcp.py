"""LcP and LeGR: the ranking against a plain global one, the search's counts, and its mutations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from methods.contract import Infeasible, Task
from methods.lcp.lcp import LcP, LeGR, by_unit, layers_of
from shared.networks import active_widths


def least(task: Task) -> list[int]:
    return [max(1, bound // 10) for bound in task.structure.upper_bounds]


@pytest.mark.parametrize("network", ["toy", "mobilenet"])
@pytest.mark.parametrize("method", [LcP(), LeGR()])
def test_without_latents_it_is_the_global_ranking_of_filter_norms(tiny_task: Any, network: str, method: LcP) -> None:
    task: Task = tiny_task(network=network)
    layers = layers_of(task.network, task.structure)
    widths = method.widths(task, layers, torch.zeros(2, len(layers)), least(task))
    modules = dict(task.network.named_modules())
    filters = []
    for unit in task.structure.units:
        weight = modules[unit.name].weight.detach()
        filters += [(float((weight[i] ** 2).sum()), unit.index) for i in range(unit.upper_bound)]
    left, floors = list(task.structure.upper_bounds), least(task)
    for _, unit_index in sorted(filters):
        if float(task.energy_model(task.structure.positions(left))) <= task.budget:
            break
        if left[unit_index] > floors[unit_index]:
            left[unit_index] -= 1
    assert list(widths) == left


def test_scores_are_factors_times_norms_plus_constants(tiny_task: Any) -> None:
    task: Task = tiny_task()
    layers = layers_of(task.network, task.structure)
    latents = torch.tensor([[0.5, 0.0, -1.0, 0.2], [0.0, 2.0, 0.3, -0.1]])
    scores = by_unit(layers, latents, task.structure)
    weight = task.network.conv.weight.detach()
    expected = torch.exp(torch.tensor(-1.0)) * weight.flatten(1).square().sum(1) + 0.3
    torch.testing.assert_close(scores[2, :16], expected)


def test_a_constant_lifts_a_layer_over_the_others(tiny_task: Any) -> None:
    task: Task = tiny_task()
    layers = layers_of(task.network, task.structure)
    latents = torch.zeros(2, len(layers))
    latents[1, 0] = 1e6
    widths = LcP().widths(task, layers, latents, least(task))
    assert widths[0] == task.structure.upper_bounds[0]


@pytest.mark.parametrize("method", [LcP(), LeGR()])
def test_it_judges_as_many_candidates_as_amc_has_episodes_and_trains_none(tiny_task: Any, method: LcP) -> None:
    task: Task = tiny_task(episodes=9)
    outcome = method.run(task)
    assert outcome.notes["candidates"] == len(outcome.trace["accuracy"]) == 9
    assert outcome.notes["best_accuracy"] == max(outcome.trace["accuracy"])
    assert task.ledger.search_samples == method.search_samples(task.protocol, task.structure)
    assert list(active_widths(outcome.network)) == outcome.notes["widths"]
    factors = outcome.notes["latents"][0]
    assert any(factors) == (
        outcome.trace["accuracy"].index(outcome.notes["best_accuracy"]) != 1 and method.name == "legr"
    )


def test_mutations_change_a_tenth_of_the_layers(tiny_task: Any) -> None:
    task: Task = tiny_task(network="mobilenet")
    layers = layers_of(task.network, task.structure)
    parent = torch.ones(2, len(layers))
    for method, factors in ((LcP(), False), (LeGR(), True)):
        child = method.mutated(parent, layers, 0.5, torch.Generator().manual_seed(1))
        changed = child != parent
        assert int(changed[1].sum()) == round(0.1 * len(layers)) == 1
        assert bool(changed[0].any()) == factors
        everywhere = method.mutated(parent, layers, 0.5, torch.Generator().manual_seed(1), share=1.0)
        assert bool((everywhere[1] != parent[1]).all())
    many = torch.stack([LeGR().mutated(parent, layers, 0.5, torch.Generator().manual_seed(k), 1.0) for k in range(400)])
    spreads = (many - parent).std(0)
    assert spreads[0].tolist() == pytest.approx([0.5] * len(layers), rel=0.2)
    norms = [float(layer.norms.std(correction=0)) for layer in layers]
    assert spreads[1].tolist() == pytest.approx(norms, rel=0.2)  # whatever the step


def test_a_budget_below_a_tenth_of_every_width(tiny_task: Any) -> None:
    with pytest.raises(Infeasible, match="least widths"):
        LcP().run(tiny_task(budget_fraction=0.05))

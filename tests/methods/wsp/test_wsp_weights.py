"""WSP for weights: the projection is feasible, takes the best per joule, and needs a platform with zeros."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from methods.contract import Infeasible, Task
from methods.wsp.weights import UNUSED, WSPWeights, kept_weights, project


def sparse_parameters(network: torch.nn.Module, task: Task) -> dict[str, torch.nn.Parameter]:
    assert task.zeros is not None
    return {name: weight for name, weight in network.named_parameters() if name in task.zeros.entries}


@pytest.mark.parametrize("target", [0.95, 0.8, 0.6, 0.45])
def test_a_projection_is_feasible_and_leaves_next_to_nothing(tiny_task: Any, target: float) -> None:
    task: Task = tiny_task(zeros=True)
    network = task.copy_of_dense()
    parameters = sparse_parameters(network, task)
    project(network, task, target)
    # in so small a network one weight more may bring a channel back
    assert 0.98 * target <= task.energy_with_zeros(network) <= target
    counts = {name: int((weight != 0).sum()) for name, weight in parameters.items()}
    assert kept_weights(network, task) == counts


def test_the_largest_squares_per_joule_stay(tiny_task: Any) -> None:
    """Prices are alike here, so the kept weights are the largest of the network, and each layer's largest."""
    task: Task = tiny_task(zeros=True)
    network = task.copy_of_dense()
    before = {name: tensor.detach().clone() for name, tensor in sparse_parameters(network, task).items()}
    project(network, task, 0.7)
    kept = {name: int((tensor != 0).sum()) for name, tensor in sparse_parameters(network, task).items()}
    sizes = torch.cat([tensor.abs().flatten() for tensor in before.values()])
    count = int(sum(kept.values()))
    least = sizes.sort(descending=True).values[count - 1 - len(before)]
    for name, tensor in sparse_parameters(network, task).items():
        stays = tensor != 0
        assert bool((before[name][~stays].abs() <= least).all())
        assert bool(stays.view(-1)[before[name].abs().argmax()])


def test_without_a_budget_above_the_feature_maps(tiny_task: Any) -> None:
    with pytest.raises(Infeasible, match=r"a weight per layer, all channels there"):
        WSPWeights().run(tiny_task(budget_fraction=0.39, zeros=True))


def test_without_zeros(tiny_task: Any) -> None:
    with pytest.raises(Infeasible, match="a platform on which zero weights save energy"):
        WSPWeights().run(tiny_task(budget_fraction=0.8))


def test_the_returned_network_is_within_its_budget_and_uses_it(tiny_task: Any) -> None:
    task: Task = tiny_task(budget_fraction=0.7, zeros=True)
    outcome = WSPWeights().run(task)
    assert (1 - UNUSED) * 0.7 <= task.energy_with_zeros(outcome.network) <= 0.7
    counts = {name: int((tensor != 0).sum()) for name, tensor in sparse_parameters(outcome.network, task).items()}
    assert counts == outcome.notes["kept_weights"]

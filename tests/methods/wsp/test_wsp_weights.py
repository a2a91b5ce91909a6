"""WSP for weights: the projection is feasible, takes the best per joule, lets weights grow back, and needs zeros."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from methods.contract import Infeasible, Task
from methods.wsp import weights
from methods.wsp.weights import UNUSED, WSPWeights, kept_weights, project
from shared.networks.masks import mask_inputs

PRODUCTS = {"stem": 8.0, "depthwise": 0.5, "pointwise": 4.0, "conv": 0.6, "hidden": 0.2, "classifier": 6.0}
FETCHES = {"stem": 0.5, "depthwise": 3.0, "pointwise": 0.4, "conv": 1.0, "hidden": 2.0, "classifier": 0.3}


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


@pytest.mark.parametrize("target", [0.8, 0.7, 0.6])
def test_a_projection_is_feasible_where_masks_hide_the_channels_that_go(tiny_task: Any, target: float) -> None:
    """While these channels stay, half of the inputs of `conv` are hidden; once they are gone, none is."""
    task: Task = tiny_task(zeros=True)
    network = task.copy_of_dense()
    mask = torch.ones(20, 4, 4)
    mask[:10] = 0
    mask_inputs(network, {"conv": mask})
    with torch.no_grad():
        network.get_parameter("conv.weight")[:, :10] *= 1e-3
    project(network, task, target)
    assert 0.97 * target <= task.energy_with_zeros(network) <= target


@pytest.mark.parametrize("shown", [1.0, 0.5])
def test_at_unequal_prices_the_kept_weights_are_the_first_of_a_list_sorted_by_hand(
    tiny_task: Any, shown: float
) -> None:
    """shown: share of the inputs of `conv` that no mask hides. By so much its products are cheaper."""
    task: Task = tiny_task(zeros=True)
    assert task.zeros is not None
    product, fetch = (
        {f"{name}.weight": factor * joules for name, factor in factors.items()}
        for factors, joules in ((PRODUCTS, 1e-4), (FETCHES, 5e-5))
    )
    task = replace(task, zeros=replace(task.zeros, product=product, fetch=fetch, code=1.25))
    network = task.copy_of_dense()
    mask = torch.ones(20, 4, 4)
    mask[:, :, : round(4 * (1 - shown))] = 0
    mask_inputs(network, {"conv": mask})
    ranked = []
    for name, weight in sparse_parameters(network, task).items():
        price = product[name] * (shown if name == "conv.weight" else 1.0) + 1.25 * fetch[name]
        profits = [float(value) ** 2 / price for value in weight.detach().flatten()]
        largest = max(range(len(profits)), key=profits.__getitem__)
        ranked += [(index != largest, -profit, name, index) for index, profit in enumerate(profits)]
    ranked.sort()
    project(network, task, 0.7)
    kept = {
        (name, index)
        for name, weight in sparse_parameters(network, task).items()
        for index in weight.detach().flatten().nonzero().flatten().tolist()
    }
    assert kept == {(name, index) for _, _, name, index in ranked[: len(kept)]} and 200 < len(kept) < 3500
    assert 0.695 < task.energy_with_zeros(network) <= 0.7


def test_the_run_projects_every_tenth_iteration_onto_targets_that_decay(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Task = tiny_task(budget_fraction=0.6, iterations=40, zeros=True)
    seen: list[tuple[int, float]] = []

    def watched(network: torch.nn.Module, task: Task, target: float, *, apply: bool = True) -> None:
        project(network, task, target, apply=apply)
        if apply:
            seen.append((task.ledger.training_iterations, target))
            assert task.energy_with_zeros(network) <= target

    monkeypatch.setattr(weights, "project", watched)
    WSPWeights().run(task)
    assert [count for count, _ in seen] == [10, 20, 30, 40, 40]
    assert [target for _, target in seen] == pytest.approx([0.6 ** (1 / 3), 0.6 ** (2 / 3), 0.6, 0.6, 0.6])


def test_what_a_projection_zeroes_is_back_after_a_step(tiny_task: Any) -> None:
    task: Task = tiny_task(iterations=1, zeros=True)
    network = task.copy_of_dense()
    WSPWeights().project(network, task, 0.7)
    gone = {name: weight == 0 for name, weight in sparse_parameters(network, task).items()}
    task.trainer(network).step()
    back = [weight[gone[name]] != 0 for name, weight in sparse_parameters(network, task).items()]
    assert float(torch.cat(back).float().mean()) > 0.95  # all but those between units that the batch leaves at zero


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

"""WSP: the projection against an exact knapsack, its feasibility, its schedule, and what grows back."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from methods.contract import Infeasible, Task
from methods.wsp import wsp
from methods.wsp.wsp import EVERY, WSP
from shared.energy import BilinearModel
from shared.networks import active_widths

READERS = ("pointwise", "conv", "hidden", "classifier")  # of the toy network's units, one each


def separable(task: Task) -> Task:
    """The task with an energy that is a sum over units: then the projection is a plain knapsack."""
    bounds = task.structure.position_bounds
    units = range(1, len(bounds) - 1)
    shares = torch.tensor([0.15, 0.4, 0.1, 0.25], dtype=torch.float64)
    model = BilinearModel(
        torch.tensor(0.1, dtype=torch.float64), shares, tuple((0, unit) for unit in units), tuple(map(float, bounds))
    )
    return replace(task, energy_model=model)


def norms_of_columns(network: torch.nn.Module) -> torch.Tensor:
    """Of each channel of the toy network, the squared norm of the weights that read it."""
    weights = [network.get_parameter(f"{name}.weight").detach() for name in READERS]
    return pad_sequence([weight.transpose(0, 1).flatten(1).square().sum(1) for weight in weights], batch_first=True)


def value_and_cost(dead: torch.Tensor, norms: torch.Tensor, task: Task) -> tuple[float, float]:
    widths = torch.tensor(task.structure.upper_bounds) - dead.sum(1)
    return float(norms[~dead].sum()), float(task.energy_model(task.structure.positions(widths)))


def best_value(norms: torch.Tensor, task: Task, target: float) -> float:
    """Exact: all widths, since of a unit's channels the largest are kept; at least one of every unit."""
    sums = [
        row[:bound].sort(descending=True).values.cumsum(0)
        for row, bound in zip(norms, task.structure.upper_bounds, strict=True)
    ]
    choices = torch.tensor(list(itertools.product(*(range(1, bound + 1) for bound in task.structure.upper_bounds))))
    within = task.energy_model(task.structure.positions(choices)) <= target
    values = sum(of_unit[choices[:, unit] - 1] for unit, of_unit in enumerate(sums))
    assert isinstance(values, torch.Tensor)
    return float(values[within].max())


@pytest.mark.parametrize("target", [0.9, 0.7, 0.5, 0.35])
@pytest.mark.parametrize("prices", ["separable", "products"])
def test_the_greedy_projection_is_close_to_the_exact_knapsack(tiny_task: Any, target: float, prices: str) -> None:
    task: Task = tiny_task() if prices == "products" else separable(tiny_task())
    network = task.copy_of_dense()
    norms = norms_of_columns(network)
    dead = wsp.projection(network, task, target)
    value, cost = value_and_cost(dead, norms, task)
    exact = best_value(norms, task, target)
    assert cost <= target and value <= exact * (1 + 1e-6)
    # a knapsack's greedy solution loses at most the item that did not fit, where prices don't change
    assert value >= 0.97 * exact if prices == "separable" else value >= 0.9 * exact


def test_depthwise_filters_do_not_count(tiny_task: Any) -> None:
    task: Task = tiny_task()
    network = task.copy_of_dense()
    dead = wsp.projection(network, task, 0.5)
    filters = network.get_parameter("depthwise.weight")
    with torch.no_grad():
        filters[dead[0, :12]] *= 1000
    assert bool(dead[0].any()) and torch.equal(wsp.projection(network, task, 0.5), dead)


def test_targets_decay_exponentially_to_the_budget_and_stay_there(tiny_task: Any) -> None:
    task: Task = tiny_task(budget_fraction=0.25, iterations=50)
    targets = []
    for count in range(51):
        task.ledger.training_iterations = count
        targets.append(wsp.target(task))
    assert targets[0] == pytest.approx(1.0) and targets[20] == pytest.approx(0.5) and targets[40:] == [task.budget] * 11
    ratios = [after / before for before, after in itertools.pairwise(targets[:41])]
    assert ratios == pytest.approx([ratios[0]] * 40)


def test_every_projection_is_feasible_and_comes_every_tenth_iteration(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Task = tiny_task(budget_fraction=0.4, iterations=45)
    seen: list[tuple[int, float, float]] = []
    project = wsp.projection

    def watched(network: torch.nn.Module, task: Task, target: float) -> torch.Tensor:
        dead = project(network, task, target)
        widths = torch.tensor(task.structure.upper_bounds) - dead.sum(1)
        estimate = float(task.energy_model(task.structure.positions(widths)))
        seen.append((task.ledger.training_iterations, target, estimate))
        return dead

    monkeypatch.setattr(wsp, "projection", watched)
    outcome = WSP().run(task)
    assert [count for count, _, _ in seen] == [10, 20, 30, 40, 45] and EVERY == 10
    assert [target for _, target, _ in seen] == pytest.approx(
        [0.4 ** (10 / 35), 0.4 ** (20 / 35), 0.4 ** (30 / 35), 0.4, 0.4]
    )
    assert all(estimate <= target for _, target, estimate in seen)
    assert list(active_widths(outcome.network)) == outcome.notes["widths"]
    assert 0.3 < seen[-1][2] <= 0.4


def closed(network: torch.nn.Module) -> torch.nn.Module:
    """The toy network with negative shifts behind its depthwise layer: a zero filter lets nothing pass."""
    with torch.no_grad():
        network.get_parameter("depthwise_norm.bias").fill_(-0.1)
    return network


def test_a_projection_zeroes_the_readers_of_a_channel_and_nothing_else(tiny_task: Any) -> None:
    task: Task = tiny_task()
    network = closed(task.copy_of_dense())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    WSP().project(network, task, 0.5)
    changed = {name: tensor != before[name] for name, tensor in network.state_dict().items()}
    changed = {name: entries for name, entries in changed.items() if bool(entries.any())}
    assert {"pointwise.weight", "classifier.weight"} <= set(changed) <= {f"{name}.weight" for name in READERS}
    for name, entries in changed.items():
        assert not bool(network.state_dict()[name][entries].any())
        of_channel = entries.transpose(0, 1).flatten(1)
        assert torch.equal(of_channel.any(1), of_channel.all(1))  # of a channel all columns or none


def test_what_a_projection_zeroes_has_gradients_and_is_back_after_a_step(tiny_task: Any) -> None:
    task: Task = tiny_task(iterations=1)
    network = closed(task.copy_of_dense())
    columns = network.get_parameter("pointwise.weight")  # it reads what the depthwise layer lets pass
    WSP().project(network, task, 0.5)
    dead = ~columns.detach().flatten(1).any(0)
    assert 0 < int(dead.sum()) < 12
    task.trainer(network).step()
    assert columns.grad is not None and bool(columns.grad[:, dead].flatten(1).any(0).all())
    assert active_widths(network)[0] == 12


def test_a_channel_that_has_grown_stays_at_the_next_projection(tiny_task: Any) -> None:
    task: Task = tiny_task()
    network, method = task.copy_of_dense(), WSP()
    columns = network.get_parameter("pointwise.weight")
    method.project(network, task, 0.5)
    gone, *others = (~columns.detach().flatten(1).any(0)).nonzero().flatten().tolist()
    with torch.no_grad():
        columns[:, gone] = 1.0
    method.project(network, task, 0.5)
    assert bool((columns[:, gone] == 1).all()) and not bool(columns[:, others].any())


def test_a_budget_below_one_channel_per_unit(tiny_task: Any) -> None:
    with pytest.raises(Infeasible, match="one channel per unit"):
        WSP().run(tiny_task(budget_fraction=0.05))

"""Network slimming: the proximal step, one threshold for all units, and networks without batch norm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from methods.contract import Infeasible, Task
from methods.slimming.slimming import SHRINKING_SHARE, Slimming, _scales, _scores, shrink
from shared.networks import active_widths, build, structure, zero_channels


@given(st.floats(-3, 3), st.floats(0, 2))
def test_a_scale_minimises_distance_plus_penalty(value: float, amount: float) -> None:
    scale = torch.tensor([value], dtype=torch.float64)
    shrink(scale, amount)
    near = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    cost = 0.5 * (near - value) ** 2 + amount * near.abs()
    assert float(scale) == pytest.approx(float(near[cost.argmin()]), abs=2e-3)


def test_scores_are_the_least_scales_of_a_channels_batch_norms(tiny_task: Any) -> None:
    task: Task = tiny_task()
    network = task.copy_of_dense()
    norms = dict(network.named_modules())
    stem, depthwise, pointwise = (norms[f"{name}_norm"].weight for name in ("stem", "depthwise", "pointwise"))
    scores = _scores(_scales(network, task.structure), task.structure)
    assert torch.equal(scores[0, :12], torch.minimum(stem.abs(), depthwise.abs()))
    assert torch.equal(scores[1, :20], pointwise.abs())
    assert bool(torch.isinf(scores[2, :16]).all()) and bool(torch.isinf(scores[3, :24]).all())


def test_scales_shrink_by_their_mean_while_it_trains_and_the_lowest_go(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Task = tiny_task(budget_fraction=0.5, network="mobilenet", iterations=40)
    amounts: list[float] = []
    monkeypatch.setattr("methods.slimming.slimming.shrink", lambda scale, amount: amounts.append(amount))
    outcome = Slimming().run(task)
    scales = [scale for of_unit in _scales(task.network, task.structure) for branch in of_unit for scale in branch]
    mean = torch.cat([scale.detach().abs() for scale in scales]).mean()
    steps = int(SHRINKING_SHARE * 40)
    assert len(amounts) == steps * len(scales) and sum(amounts) / len(scales) == pytest.approx(float(mean), rel=1e-5)
    widths = active_widths(outcome.network)
    assert list(widths) == outcome.notes["widths"]
    assert 0.45 < float(task.energy_model(task.structure.positions(widths))) <= 0.5


def lowest_by_hand(network: nn.Module, task: Task) -> set[tuple[int, int]]:
    """(unit, channel) of those that go: the least scales of the mobile network, until what is left meets the budget."""
    bounds = task.structure.upper_bounds
    scales = {
        name: norm.weight.detach().abs() for name, norm in network.named_modules() if isinstance(norm, nn.BatchNorm2d)
    }
    ranked = []
    for unit, bound in enumerate(bounds):
        read = scales.get(f"dw{unit + 1}_norm")  # the last unit has no depthwise layer behind it
        made = scales[f"pw{unit}_norm" if unit else "conv1_norm"]
        for channel in range(bound):
            score = float(made[channel]) if read is None else min(float(made[channel]), float(read[channel]))
            ranked.append((score, -unit, -channel))
    left, gone = list(bounds), set()
    for _, unit, channel in sorted(ranked):
        if float(task.energy_model(task.structure.positions(left))) <= task.budget:
            break
        if left[-unit] > 1:
            left[-unit] -= 1
            gone.add((-unit, -channel))
    return gone


def test_it_trains_with_soft_thresholds_and_cuts_by_the_scales_that_have_shrunk(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[dict[str, Tensor], set[tuple[int, int]]]] = []

    def watched(network: nn.Module, table: Any, dead: Tensor, *others: Any) -> None:
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        seen.append((before, {(unit, channel) for unit, channel in dead.nonzero().tolist()}))
        zero_channels(network, table, dead, *others)

    def make() -> Task:
        task: Task = tiny_task(budget_fraction=0.4, network="mobilenet", iterations=40, learning_rate=0.01)
        network, draw = task.copy_of_dense(), torch.Generator().manual_seed(0)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):  # most scales above their mean, so that few end at zero
                low, high = (torch.rand(len(norm.weight), generator=draw) for _ in range(2))
                norm.weight.data = torch.where(low < 0.2, 0.2, 1.05 + 0.3 * high)
        return replace(task, network=network)

    monkeypatch.setattr("methods.slimming.slimming.zero_channels", watched)
    outcome = Slimming().run(make())
    task = make()
    network = task.copy_of_dense()
    trainer = task.trainer(network)
    scales = [norm.weight for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)]
    dense = torch.cat([scale.detach() for scale in scales])
    for _ in range(20):
        trainer.step()
        for scale in scales:
            scale.data = functional.softshrink(scale.data, float(dense.abs().mean()) / 20)
    ((before, dead),) = seen
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(before[name], tensor)
    assert float(torch.cat(scales).detach().mean()) < 0.5 * float(dense.mean())
    assert outcome.notes["threshold"] > 0
    assert dead == lowest_by_hand(network, task) != lowest_by_hand(task.network, task)
    assert sum(task.structure.upper_bounds) - sum(outcome.notes["widths"]) == len(dead)


def test_one_threshold_parts_what_stays_from_what_goes(tiny_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task: Task = tiny_task(budget_fraction=0.6, network="mobilenet", iterations=0)
    outcome = Slimming().run(task)
    scores = _scores(_scales(task.network, task.structure), task.structure)
    for row, width, bound in zip(scores, outcome.notes["widths"], task.structure.upper_bounds, strict=True):
        below = int((row[:bound] <= outcome.notes["threshold"]).sum())
        assert bound - width == min(below, bound - 1)


def test_networks_without_batch_norm_are_refused(tiny_task: Any) -> None:
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    plain.input_shape = (1, 8, 8)  # type: ignore[assignment]
    reason = Slimming().refuses(structure(plain))
    assert reason is not None and "no unit of the network has one" in reason
    assert Slimming().refuses(tiny_task().structure) is None
    with pytest.raises(Infeasible, match="least widths"):  # half of the toy network's units have none and stay
        Slimming().run(tiny_task(budget_fraction=0.3))


def test_where_an_addition_joins_layers_the_largest_of_their_scales_counts() -> None:
    network = build("resnet18", input_size=32, in_channels=1, num_classes=4, width_multiplier=0.25)
    table = structure(network)
    norms = {name: norm for name, norm in network.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm in norms.values():
            norm.weight.copy_(torch.rand(len(norm.weight), generator=draw))
    scores = _scores(_scales(network, table), table)
    trunk = max(table.units, key=lambda unit: sum(part.role == "producer" for part in unit.slices))
    branches = [
        norms[part.tensor.removesuffix(".weight")].weight
        for part in trunk.slices
        if part.role == "norm" and part.tensor.endswith("weight")
    ]
    assert len(branches) > 1
    torch.testing.assert_close(scores[trunk.index, : trunk.upper_bound], torch.stack(branches).amax(0).detach())


def test_a_budget_that_units_without_batch_norm_exceed_spends_nothing(tiny_task: Any) -> None:
    task: Task = tiny_task(budget_fraction=0.3)
    with pytest.raises(Infeasible, match="least widths"):
        Slimming().run(task)
    assert task.ledger.training_iterations == 0

"""The controls dense, uniform and magnitude."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.contract import Infeasible, Task
from methods.controls import magnitude
from methods.controls.dense import Dense
from methods.controls.magnitude import Magnitude
from methods.controls.uniform import Uniform
from shared.networks import active_channels, active_widths, compact, importance, zero_channels
from shared.widths.uniform import uniform_widths


def estimate(task: Task, widths: list[int]) -> float:
    return float(task.energy_model(task.structure.positions(widths)))


def test_dense_trains_and_removes_nothing(tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(budget_fraction=0.3)
    network = Dense().run(task).network
    assert not Dense.compresses
    assert active_widths(network) == task.structure.upper_bounds
    assert not torch.equal(network.classifier.weight, task.network.classifier.weight)


def test_uniform_keeps_the_most_important_channels(tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(iterations=0)  # untrained, so that the kept weights are those of the dense network
    network = Uniform().run(task).network
    widths = uniform_widths(task.structure, task.energy_model, task.budget)
    assert active_widths(network) == widths
    assert estimate(task, list(widths)) <= task.budget
    assert task.ledger.energy_queries > 0
    norms = importance(task.network, task.structure)[0]  # of the stem's channels
    kept = sorted(norms[:12].argsort(descending=True)[: widths[0]].tolist())
    assert torch.equal(network.stem.weight, task.network.stem.weight[kept])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), fraction=st.floats(0.15, 0.99))
def test_magnitude_against_a_greedy_search_channel_by_channel(tiny_task, seed: int, fraction: float) -> None:  # type: ignore[no-untyped-def]
    """Oracle: every remaining channel priced by the model's difference before each removal."""
    task = tiny_task(budget_fraction=fraction, iterations=0)
    bounds = task.structure.upper_bounds
    norms = torch.zeros(len(bounds), max(bounds))
    for row, bound in zip(norms, bounds, strict=True):
        row[:bound] = torch.rand(bound, generator=torch.Generator().manual_seed(seed + bound)) ** 3
    alive = [list(range(bound)) for bound in bounds]
    while estimate(task, [len(channels) for channels in alive]) > task.budget:
        widths, prices = [len(channels) for channels in alive], {}
        for unit, channels in enumerate(alive):
            one_less = [*widths[:unit], widths[unit] - 1, *widths[unit + 1 :]]
            saving = estimate(task, widths) - estimate(task, one_less)
            if len(channels) > 1:
                prices |= {(unit, channel): float(norms[unit, channel]) / saving for channel in channels}
        unit, channel = min(prices, key=lambda entry: prices[entry])
        alive[unit].remove(channel)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(magnitude, "importance", lambda network, structure: norms)
        network = Magnitude().run(task).network
    assert active_widths(network) == tuple(len(channels) for channels in alive)
    assert torch.equal(network.stem.weight, task.network.stem.weight[alive[0]])


def test_magnitude_removes_those_channels(tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(iterations=0)
    outcome = Magnitude().run(task)
    widths = active_widths(outcome.network)
    assert outcome.notes["widths"] == list(widths)
    assert bool(active_channels(outcome.network).any(dim=1).all())
    norms = importance(task.network, task.structure)[0]  # of the stem's channels
    kept = sorted(norms[:12].argsort(descending=True)[: widths[0]].tolist())
    assert torch.equal(outcome.network.stem.weight, task.network.stem.weight[kept])
    one_more = [[*widths[:unit], widths[unit] + 1, *widths[unit + 1 :]] for unit in range(len(widths))]
    assert estimate(task, list(widths)) <= task.budget
    assert any(estimate(task, row) > task.budget for row in one_more)


@pytest.mark.parametrize("method", [Uniform, Magnitude])
def test_what_is_trained_is_the_cut_network(method: type, tiny_task) -> None:  # type: ignore[no-untyped-def]
    """By hand: the channels of the largest norms in the dense network stay, and what they leave takes all steps."""
    outcome, task = method().run(tiny_task(iterations=5)), tiny_task(iterations=5)
    model, table = task.copy_of_dense(), task.structure
    norms = importance(task.network, table)
    dead = torch.zeros(norms.shape, dtype=torch.bool)
    for unit, (width, bound) in enumerate(zip(outcome.notes["widths"], table.upper_bounds, strict=True)):
        dead[unit, norms[unit, :bound].argsort(descending=True)[width:]] = True
    zero_channels(model, table, dead)
    model = compact(model, table)
    trainer = task.trainer(model)
    for _ in range(5):
        trainer.step()
    weights = outcome.network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", [Uniform, Magnitude])
def test_budgets_below_one_channel_per_unit_are_infeasible(method: type, tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(budget_fraction=0.1)
    with pytest.raises(Infeasible, match="one channel per unit"):
        method().run(task)
    assert task.ledger.training_iterations == 0

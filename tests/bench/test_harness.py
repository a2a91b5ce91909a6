"""What the harness makes of methods that keep the rules, and of those that don't."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from bench import harness
from bench.dense import DenseWeights
from bench.plan import Budget, Ground, Job
from bench.teacher import live
from methods import registry
from methods.contract import Infeasible, Method, Outcome, Task, spend_remaining
from shared.energy.budget import uniform_widths
from shared.networks import importance, zero_channels


def shrink(task: Task, network: torch.nn.Module) -> None:
    """Keep the most important channels of uniform widths."""
    widths = uniform_widths(task.structure, task.energy_model, task.budget_joules)
    order = importance(network, task.structure).argsort(dim=1, descending=True, stable=True)
    dead = torch.zeros(order.shape, dtype=torch.bool)
    for unit, width in enumerate(widths):
        dead[unit, order[unit, width : task.structure.upper_bounds[unit]]] = True
    zero_channels(network, task.structure, dead)


class Toy(Method):
    """Uniform widths, trained for all iterations; a subclass breaks one rule."""

    name, title, paper = "toy", "Toy", "none"

    def run(self, task: Task) -> Outcome:
        network = task.copy_of_dense()
        shrink(task, network)
        spend_remaining(task, task.trainer(network))
        return Outcome(network, notes={"kept": True})


class Overspends(Toy):
    def run(self, task: Task) -> Outcome:
        outcome = super().run(task)
        task.trainer(outcome.network).step()
        return outcome


class Underspends(Toy):
    def run(self, task: Task) -> Outcome:
        network = task.copy_of_dense()
        shrink(task, network)
        return Outcome(network)


class OverBudget(Toy):
    def run(self, task: Task) -> Outcome:
        network = task.copy_of_dense()
        spend_remaining(task, task.trainer(network))
        return Outcome(network)


class ChangesDense(Toy):
    def run(self, task: Task) -> Outcome:
        shrink(task, task.network)
        spend_remaining(task, task.trainer(task.network))
        return Outcome(task.network)


class NotANumber(Toy):
    def run(self, task: Task) -> Outcome:
        outcome = super().run(task)
        next(outcome.network.parameters()).data.fill_(math.nan)
        return outcome


class Raises(Toy):
    def run(self, task: Task) -> Outcome:
        task.trainer(task.copy_of_dense()).step()
        raise RuntimeError("half-way")


class GivesUp(Toy):
    def run(self, task: Task) -> Outcome:
        raise Infeasible("can't reach it")


@pytest.fixture
def execute(
    ground: Ground, weights: DenseWeights, monkeypatch: pytest.MonkeyPatch
) -> Callable[[type[Method]], harness.Result]:
    def run(method: type[Method]) -> harness.Result:
        monkeypatch.setattr(registry, "get", lambda name: method())
        joules = 0.5 * ground.dense_reading_joules
        job = Job("toy", Budget(0.5, joules), seed=0)
        return harness.execute(job, "key", ground, weights, live(weights.network), lambda *_: None, "command")

    return run


def test_a_method_that_keeps_the_rules(execute: Callable[[type[Method]], harness.Result], ground: Ground) -> None:
    result = execute(Toy)
    record = result.record
    assert record.status == "ok" and record.reason is None and result.weights is not None
    assert record.measures is not None and record.budget is not None and record.cost is not None
    assert record.measures.estimate_joules <= record.budget.joules
    assert record.cost.training_iterations == ground.protocol.iterations
    assert record.cost.fine_tune_iterations == ground.protocol.fine_tune_iterations
    assert record.network["widths"] == list(record.measures.widths)
    assert record.measures.parameters == sum(
        tensor.numel()
        for name, tensor in result.weights.items()
        if not name.endswith(("running_mean", "running_var", "tracked"))
    )


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (Overspends, "expected at most 4 training iterations"),
        (Underspends, "spent 0 of 4 training iterations"),
        (OverBudget, "above the budget"),
        (ChangesDense, "changed the dense network in place"),
        (NotANumber, "NaN or infinite"),
        (Raises, "RuntimeError: half-way"),
        (GivesUp, "can't reach it"),
    ],
)
def test_a_broken_rule_is_a_miss_with_its_reason(
    method: type[Method], reason: str, execute: Callable[[type[Method]], harness.Result], weights: DenseWeights
) -> None:
    before = {name: tensor.clone() for name, tensor in weights.network.state_dict().items()}
    result = execute(method)
    assert result.record.status == "miss"
    assert result.record.reason is not None and reason in result.record.reason
    assert result.weights is None and result.record.measures is None
    for name, tensor in weights.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # the next run starts from the same weights


def test_a_method_sees_neither_test_images_nor_the_platform(ground: Ground, weights: DenseWeights) -> None:
    task = harness.make_task(Job("toy", Budget(0.5, 1.0), 0), ground, weights, live(weights.network))
    hidden = (ground, ground.platform, ground.dataset, ground.dataset.test)
    assert not any(value is secret for value in vars(task).values() for secret in hidden)
    assert task.train.split is ground.dataset.train


def test_same_seed_same_figures(execute: Callable[[type[Method]], harness.Result]) -> None:
    first, second = execute(Toy), execute(Toy)
    assert first.record.measures == second.record.measures
    assert first.weights is not None and second.weights is not None
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_fine_tuning_rate_decays_to_zero() -> None:
    assert harness.cosine(0.0) == 1.0
    assert harness.cosine(0.5) == pytest.approx(0.5)
    assert harness.cosine(1.0) == pytest.approx(0.0)

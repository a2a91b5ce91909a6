"""What the harness makes of methods that keep the rules, and of those that don't."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench import harness
from bench.dense import DenseWeights
from bench.plan import Budget, Ground, Job
from bench.record import Record, to_json
from bench.rules import Miss, keeps_the_budget
from bench.teacher import live
from methods import registry
from methods.contract import Infeasible, Method, Outcome, Task, spend_remaining
from shared.energy.budget import uniform_widths
from shared.errors import BadFile
from shared.ledger import Ledger
from shared.networks import compact, importance, zero_channels


def shrink(task: Task, network: torch.nn.Module) -> None:
    """Keep the most important channels of uniform widths."""
    widths = uniform_widths(task.structure, task.energy_model, task.budget)
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


class TrainsForFree(Toy):
    def run(self, task: Task) -> Outcome:
        outcome = super().run(task)
        optimizer = torch.optim.SGD(outcome.network.parameters(), lr=0.1)
        images, labels = task.train.batch(0)
        nn.functional.cross_entropy(outcome.network(images), labels).backward()
        optimizer.step()
        return outcome


class BorrowsTheOptimizer(Toy):
    """The suite's own optimiser, past its Trainer."""

    def run(self, task: Task) -> Outcome:
        network = task.copy_of_dense()
        shrink(task, network)
        trainer = task.trainer(network)
        trainer.step()
        trainer.optimizer.step()
        return Outcome(network)


class TrainsAnAgent(Toy):
    """Something of its own that is no network of the task."""

    def run(self, task: Task) -> Outcome:
        agent = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
        agent(torch.ones(1, 3)).sum().backward()
        torch.optim.Adam(agent.parameters()).step()
        return super().run(task)


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


class ReturnsNothing(Toy):
    def run(self, task: Task) -> Outcome:
        return None  # type: ignore[return-value]


class ReturnsNoNetwork(Toy):
    def run(self, task: Task) -> Outcome:
        return Outcome(super().run(task).network.state_dict())  # type: ignore[arg-type]


class ReturnsAnotherNetwork(Toy):
    def run(self, task: Task) -> Outcome:
        super().run(task)
        return Outcome(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))


class AddsALayer(Toy):
    """Billed as MobileNet by its widths, with a convolution more than Ê knows of."""

    def run(self, task: Task) -> Outcome:
        network = super().run(task).network
        config, shape = network.config, network.input_shape
        network = nn.Sequential(nn.Conv2d(1, 1, 1), network)
        network.config, network.input_shape = config, shape
        return Outcome(network)


class AddsAnOperation(Toy):
    """The same units, and a launch that Ê does not bill."""

    def run(self, task: Task) -> Outcome:
        network = super().run(task).network
        network.pool = nn.Sequential(nn.ReLU(), network.pool)  # type: ignore[arg-type]
        return Outcome(network)


class Hooked(Toy):
    """A forward pass of its own, that no record could hold."""

    def run(self, task: Task) -> Outcome:
        network = super().run(task).network
        network.register_forward_hook(lambda module, inputs, logits: logits.flip(1))
        return Outcome(network)


class OddNotes(Toy):
    def run(self, task: Task) -> Outcome:
        return Outcome(super().run(task).network, notes={"loss": np.float32(1.0)})


class OddTrace(Toy):
    def run(self, task: Task) -> Outcome:
        return Outcome(super().run(task).network, trace={"loss": 1.0})  # type: ignore[dict-item]


class Exits(Toy):
    def run(self, task: Task) -> Outcome:
        raise SystemExit(3)


class SwapsTheLedger(Toy):
    def run(self, task: Task) -> Outcome:
        task.ledger = Ledger(task.ledger.limit)  # type: ignore[misc]
        return super().run(task)


class SwapsTheLedgerByForce(Toy):
    def run(self, task: Task) -> Outcome:
        outcome = super().run(task)
        vars(task)["ledger"] = Ledger(task.ledger.limit)
        task.trainer(outcome.network).step()
        vars(task)["ledger"].training_iterations = task.ledger.limit
        vars(task)["budget"] = math.inf
        return Outcome(task.copy_of_dense())


class GivesUp(Toy):
    def run(self, task: Task) -> Outcome:
        raise Infeasible("can't reach it")


@pytest.fixture
def execute(
    ground: Ground, weights: DenseWeights, monkeypatch: pytest.MonkeyPatch
) -> Callable[[type[Method]], harness.Result]:
    # timed for real in test_store; half of the time of a run this short
    monkeypatch.setattr(harness, "unit_costs", lambda *_: (0.06, 0.0002))

    def run(method: type[Method]) -> harness.Result:
        monkeypatch.setattr(registry, "get", lambda name: method())
        joules = 0.5 * ground.dense_reading
        job = Job("toy", Budget(0.5, joules), seed=0)
        return harness.execute(job, "key", ground, weights, live(weights.network), lambda *_: None, "command")

    return run


def test_a_method_that_keeps_the_rules(execute: Callable[[type[Method]], harness.Result], ground: Ground) -> None:
    result = execute(Toy)
    record = result.record
    assert record.status == "ok" and record.reason is None and result.weights is not None
    assert record.measures is not None and record.budget is not None and record.cost is not None
    assert record.measures.estimate <= record.budget.amount
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
        (TrainsForFree, "an optimiser's step that the ledger does not count"),
        (BorrowsTheOptimizer, "an optimiser's step that the ledger does not count"),
        (OverBudget, "above the budget"),
        (ChangesDense, "changed the dense network in place"),
        (NotANumber, "NaN or infinite"),
        (Raises, "RuntimeError: half-way"),
        (GivesUp, "can't reach it"),
        (ReturnsNothing, "returned NoneType, not an Outcome"),
        (ReturnsNoNetwork, "returned OrderedDict as the network"),
        (ReturnsAnotherNetwork, "expected a module with input_shape"),
        (AddsALayer, "another network than the one that the energy model describes"),
        (AddsAnOperation, "another network than the one that the energy model describes"),
        (Hooked, "another network than the one that the energy model describes; their outputs differ"),
        (OddNotes, "not JSON values"),
        (OddTrace, "column 'loss' is not a list"),
        (Exits, "SystemExit: 3"),
        (SwapsTheLedger, "FrozenInstanceError"),
        (SwapsTheLedgerByForce, "above the budget"),
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
    assert to_json(Record.model_validate_json(to_json(result.record))) == to_json(result.record)
    for name, tensor in weights.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # the next run starts from the same weights


def test_a_method_may_train_a_model_of_its_own(execute: Callable[[type[Method]], harness.Result]) -> None:
    assert execute(TrainsAnAgent).record.status == "ok"


@pytest.mark.parametrize("unit", ["J", "s"])
def test_a_budget_that_is_not_kept_is_told_in_its_unit(unit: str, ground: Ground, weights: DenseWeights) -> None:
    ground = replace(ground, fit=replace(ground.fit, model=replace(ground.fit.model, unit=unit)))
    job = Job("toy", Budget(0.5, 0.5 * ground.dense_reading), seed=0)
    task = harness.make_task(job, ground, weights, live(weights.network))
    with pytest.raises(Miss, match=rf"^estimated \S+ {unit} per image, above the budget of \S+ {unit}$"):
        keeps_the_budget(task, weights, Outcome(task.copy_of_dense()))


class MeetsADamagedFile(Toy):
    def run(self, task: Task) -> Outcome:
        raise BadFile("a whole image in here.png", "half of one", "fetching it again")


def test_a_file_that_cannot_be_used_is_no_miss(execute: Callable[[type[Method]], harness.Result]) -> None:
    """A miss would stay in the table when the file is mended: nothing in a run's key tells of its bytes."""
    with pytest.raises(BadFile, match=r"expected a whole image in here\.png, got half of one; try fetching it again"):
        execute(MeetsADamagedFile)


class NanInNotes(Toy):
    def run(self, task: Task) -> Outcome:
        network = super().run(task).network
        return Outcome(network, notes={"worst": (math.inf, 1.5)}, trace={"loss": [1.0, math.nan, [-math.inf]]})


def test_nan_and_infinity_in_notes_become_null(execute: Callable[[type[Method]], harness.Result]) -> None:
    record = execute(NanInNotes).record
    assert record.status == "ok"
    assert record.notes == {"worst": [None, 1.5]} and record.trace == {"loss": [1.0, None, [None]]}
    assert to_json(Record.model_validate_json(to_json(record))) == to_json(record)


class AlreadyCut(Toy):
    def run(self, task: Task) -> Outcome:
        network = compact(super().run(task).network)
        del network.config
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        return Outcome(network)


def test_a_cut_network_is_judged_as_the_zeroed_one(execute: Callable[[type[Method]], harness.Result]) -> None:
    """Down to the bits, and without any of the module's own settings."""
    zeroed, cut = execute(Toy), execute(AlreadyCut)
    assert cut.record.status == "ok" and cut.record.measures == zeroed.record.measures
    assert cut.record.network == zeroed.record.network


def test_a_failure_outside_the_run_is_a_miss_too(ground: Ground, weights: DenseWeights) -> None:
    job = Job("uniform", Budget(0.5, 0.5 * ground.dense_reading), seed=0)
    result = harness.failed(job, "key", ground, weights, "died", "command")
    assert (result.record.status, result.record.reason, result.record.measures) == ("miss", "died", None)
    assert to_json(Record.model_validate_json(to_json(result.record))) == to_json(result.record)


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

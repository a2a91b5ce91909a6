"""What the stages make of methods that keep the rules, of those that don't, and of a machine in trouble."""

from __future__ import annotations

import copy
import errno
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.record.model import Record, to_json
from bench.run import rules, stages
from bench.run.describe import describe
from bench.run.rules import Miss, keeps_the_budget
from bench.run.stages import Run
from bench.run.teacher import live
from bench.run.trouble import MachineTrouble
from bench.setup.budgets import Budget
from bench.setup.plan import Job
from bench.setup.setup import Setup
from methods import registry
from methods.contract import Infeasible, Method, Outcome, Task, spend_remaining
from shared.errors import BadFile
from shared.ledger import Ledger
from shared.networks import compact, importance, zero_channels
from shared.training import Trainer, first_batches, recalibrate_batch_norm
from shared.widths.uniform import uniform_widths


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


class Result(NamedTuple):
    """What a run has come to: its record and its network's tensors."""

    record: Record
    weights: dict[str, Tensor] | None


Execute = Callable[[type[Method]], Result]


@pytest.fixture
def make_run(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Method]], Run]:
    """A run of a method at half of the dense joules, in a folder of its own."""
    # timed for real in test_runner; half of the time of a run this short
    monkeypatch.setattr(stages, "unit_costs", lambda *_: (0.06, 0.0002))
    monkeypatch.setattr(stages, "teacher", lambda setup, seed: live(setup.dense.network))

    def make(method: type[Method]) -> Run:
        monkeypatch.setattr(registry, "get", lambda name: method())
        job = Job("toy", Budget(0.5, 0.5 * setup.reach.dense_reading), seed=0)
        return Run(job, setup, "key", Path(tempfile.mkdtemp(dir=tmp_path)))

    return make


@pytest.fixture
def execute(make_run: Callable[[type[Method]], Run]) -> Execute:
    """All stages of a run, one after the other."""

    def go(method: type[Method]) -> Result:
        run = make_run(method)
        for stage in stages.STAGES:
            stages.do(stage, [run])
        assert run.missing() == ()
        return Result(*describe(run))

    return go


def test_a_method_that_keeps_the_rules(execute: Execute, setup: Setup) -> None:
    result = execute(Toy)
    record = result.record
    assert record.status == "ok" and record.reason is None and result.weights is not None
    assert record.measures is not None and record.budget is not None and record.cost is not None
    assert record.measures.estimate <= record.budget.amount
    assert record.cost.training_iterations == setup.protocol.iterations
    assert record.cost.fine_tune_iterations == setup.protocol.fine_tune_iterations
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
        (Hooked, "another network than the one that the energy model describes"),
        (OddNotes, "not JSON values"),
        (OddTrace, "column 'loss' is not a list"),
        (Exits, "SystemExit: 3"),
        (SwapsTheLedger, "FrozenInstanceError"),
        (SwapsTheLedgerByForce, "above the budget"),
    ],
)
def test_a_broken_rule_is_a_miss_with_its_reason(
    method: type[Method], reason: str, execute: Execute, setup: Setup
) -> None:
    before = {name: tensor.clone() for name, tensor in setup.dense.network.state_dict().items()}
    result = execute(method)
    assert result.record.status == "miss"
    assert result.record.reason is not None and reason in result.record.reason
    assert result.weights is None and result.record.measures is None
    assert to_json(Record.model_validate_json(to_json(result.record))) == to_json(result.record)
    for name, tensor in setup.dense.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # the next run starts from the same weights


def test_a_method_may_train_a_model_of_its_own(execute: Execute) -> None:
    assert execute(TrainsAnAgent).record.status == "ok"


@pytest.mark.parametrize("unit", ["J", "s"])
def test_a_budget_that_is_not_kept_is_told_in_its_unit(unit: str, setup: Setup) -> None:
    setup = replace(setup, fit=replace(setup.fit, model=replace(setup.fit.model, unit=unit)))
    job = Job("toy", Budget(0.5, 0.5 * setup.reach.dense_reading), seed=0)
    task = stages.make_task(job, setup, live(setup.dense.network))
    with pytest.raises(Miss, match=rf"^estimated \S+ {unit} per image, above the budget of \S+ {unit}$"):
        keeps_the_budget(task, setup.dense, Outcome(task.copy_of_dense()))


@pytest.fixture
def toy_task(setup: Setup) -> Task:
    """The task of a toy run."""
    job = Job("toy", Budget(0.5, 0.5 * setup.reach.dense_reading), seed=0)
    return stages.make_task(job, setup, live(setup.dense.network))


@pytest.mark.parametrize(("share", "kept"), [(1.0, True), (1 - 1e-12, True), (1 - 1e-7, False)])
def test_a_budget_is_kept_up_to_rounding(share: float, kept: bool, toy_task: Task, setup: Setup) -> None:
    task = replace(toy_task, budget=share * toy_task.dense_energy)
    with nullcontext() if kept else pytest.raises(Miss, match="above the budget"):
        rules.keeps_the_budget(task, setup.dense, Outcome(task.copy_of_dense()))


def test_every_unit_keeps_a_channel(toy_task: Task, setup: Setup) -> None:
    network, table = toy_task.copy_of_dense(), toy_task.structure
    dead = torch.zeros(len(table.units), max(table.upper_bounds), dtype=torch.bool)
    dead[2] = True
    zero_channels(network, table, dead)
    with pytest.raises(Miss, match=r"removed all channels of unit \d of 14"):
        rules.keeps_the_budget(toy_task, setup.dense, Outcome(network))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["weight", "bias", "running_mean", "running_var"])
def test_every_tensor_is_finite(value: float, kind: str, toy_task: Task, setup: Setup) -> None:
    network = toy_task.copy_of_dense()
    name = [name for name in network.state_dict() if name.endswith(kind)][-1]
    network.state_dict()[name].view(-1)[-1] = value
    with pytest.raises(Miss, match=f"NaN or infinite values in {name}"):
        rules.is_finite(toy_task, setup.dense, Outcome(network))


def test_the_dense_networks_statistics_are_not_to_change(toy_task: Task, setup: Setup) -> None:
    """As they do where it is run in training mode."""
    rules.leaves_the_dense_network(toy_task, setup.dense, Outcome(toy_task.network))
    toy_task.network.train()(toy_task.train.batch(0)[0])
    with pytest.raises(Miss, match="changed the dense network in place"):
        rules.leaves_the_dense_network(toy_task, setup.dense, Outcome(toy_task.network))


class Times(nn.Module):
    """The first pixels, one of them times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(1)[:, :10].clone()
        pixels[3, 3] *= self.factor
        return pixels


@pytest.mark.parametrize(("factor", "same"), [(1 + 1e-5, True), (1 + 1e-3, False), (math.nan, False)])
def test_outputs_are_the_same_up_to_rounding(factor: float, same: bool, toy_task: Task) -> None:
    with nullcontext() if same else pytest.raises(Miss, match="they differ by"):
        rules._check_same_outputs(Times(1.0), Times(factor), toy_task.train, "they differ")


@pytest.fixture
def calibrated(toy_task: Task) -> nn.Module:
    """The network with statistics of its own, without which untrained layers lose the images on their way."""
    network = toy_task.copy_of_dense()
    recalibrate_batch_norm(network, first_batches(toy_task.train, 2))
    return network


def test_a_fault_in_cutting_is_noticed(calibrated: nn.Module, toy_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    rules.cut(calibrated, toy_task.train)
    other = copy.deepcopy(calibrated)
    next(other.parameters()).data.mul_(-1)
    monkeypatch.setattr(rules, "compact", lambda network: other)
    with pytest.raises(Miss, match="zeroed and cut network differ by"):
        rules.cut(calibrated, toy_task.train)


def test_settings_of_modules_that_no_record_holds_are_noticed(
    calibrated: nn.Module, toy_task: Task, setup: Setup
) -> None:
    rules.described(calibrated, toy_task, setup.dense)
    for module in calibrated.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1
    with pytest.raises(Miss, match=r"another network than .*; their outputs differ by"):
        rules.described(calibrated, toy_task, setup.dense)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_all_iterations_are_to_be_spent(left: int, toy_task: Task, setup: Setup) -> None:
    toy_task.ledger.training_iterations = toy_task.ledger.limit - left
    with pytest.raises(Miss, match=rf"spent {4 - left} of 4") if left else nullcontext():
        rules.spends_the_ledger(toy_task, setup.dense, Outcome(toy_task.copy_of_dense()))


def test_steps_are_paid_whatever_makes_them(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cut network, with a rate per layer, and within a step that is paid."""
    small = setup.dense.at([2] * len(setup.structure.units))
    whole = torch.optim.SGD(small.parameters(), lr=0.1)
    by_layer = torch.optim.SGD([{"params": [parameter]} for parameter in small.parameters()], lr=0.1)
    with rules.steps_paid(setup.dense.network):
        for optimizer in (whole, by_layer):
            with pytest.raises(Miss, match="that the ledger does not count"):
                optimizer.step()
        monkeypatch.setattr(Trainer, "stepping", Mock(optimizer=whole))
        whole.step()
        with pytest.raises(Miss, match="that the ledger does not count"):
            by_layer.step()
    by_layer.step()  # afterwards nobody watches


class MeetsADamagedFile(Toy):
    def run(self, task: Task) -> Outcome:
        raise BadFile("a whole image in here.png", "half of one", "fetching it again")


def test_a_file_that_cannot_be_used_is_no_miss(execute: Execute) -> None:
    """A miss would stay in the table when the file is mended: nothing in a run's key tells of its bytes."""
    with pytest.raises(BadFile, match=r"expected a whole image in here\.png, got half of one; try fetching it again"):
        execute(MeetsADamagedFile)


class NanInNotes(Toy):
    def run(self, task: Task) -> Outcome:
        network = super().run(task).network
        return Outcome(network, notes={"worst": (math.inf, 1.5)}, trace={"loss": [1.0, math.nan, [-math.inf]]})


def test_nan_and_infinity_in_notes_become_null(execute: Execute) -> None:
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


def test_a_cut_network_is_judged_as_the_zeroed_one(execute: Execute) -> None:
    """Down to the bits, and without any of the module's own settings."""
    zeroed, cut = execute(Toy), execute(AlreadyCut)
    assert cut.record.status == "ok" and cut.record.measures == zeroed.record.measures
    assert cut.record.network == zeroed.record.network


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "memory"),
    ],
)
def test_trouble_of_the_machine_is_no_miss(
    error: Exception, kind: str, make_run: Callable[[type[Method]], Run]
) -> None:
    """It says nothing about the method: no file is left, so the run is tried again."""

    class Hindered(Toy):
        def run(self, task: Task) -> Outcome:
            raise error

    run = make_run(Hindered)
    with pytest.raises(MachineTrouble) as caught:
        stages.do("compress", [run])
    assert caught.value.trouble.kind == kind and run.missing() == stages.STAGES


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), AssertionError()])
def test_whatever_a_method_raises_is_its_miss(error: BaseException, execute: Execute) -> None:
    class Raising(Toy):
        def run(self, task: Task) -> Outcome:
            raise error

    record = execute(Raising).record
    assert record.status == "miss" and record.reason is not None and type(error).__name__ in record.reason


@pytest.mark.parametrize("notes", [{"a": "\ud800"}, {"\udfff": 1}])
def test_lone_surrogates_in_notes_are_a_miss(notes: dict[str, Any], execute: Execute) -> None:
    """No file can hold them."""

    class Odd(Toy):
        def run(self, task: Task) -> Outcome:
            return Outcome(super().run(task).network, notes=notes)

    record = execute(Odd).record
    assert record.status == "miss" and record.reason is not None and "not JSON values" in record.reason
    assert Record.model_validate_json(to_json(record)) == record


def test_a_lone_surrogate_in_an_error_is_escaped(execute: Execute) -> None:
    class Odd(Toy):
        def run(self, task: Task) -> Outcome:
            raise ValueError("\ud800")

    record = execute(Odd).record
    assert record.reason is not None and record.reason.startswith(r"ValueError: \ud800 (")
    assert Record.model_validate_json(to_json(record)) == record


class Leaks(Toy):
    """Leaves settings of the whole process changed."""

    def run(self, task: Task) -> Outcome:
        outcome = super().run(task)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_flush_denormal(True)
        torch.set_float32_matmul_precision("medium")
        torch.set_num_threads(2)
        warnings.simplefilter("error")
        os.chdir("/")
        return outcome


def test_what_a_method_leaves_changed_does_not_reach_its_checks(execute: Execute) -> None:
    place, filters = Path.cwd(), list(warnings.filters)
    plain, leaky = execute(Toy).record, execute(Leaks).record
    assert leaky.measures == plain.measures and leaky.status == "ok"
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled() and torch.get_num_threads() == 1
    assert torch.get_float32_matmul_precision() == "highest" and Path.cwd() == place
    assert warnings.filters == filters


def test_a_method_sees_neither_test_images_nor_the_platform(setup: Setup) -> None:
    job = Job("toy", Budget(0.5, 0.5 * setup.reach.dense_reading), 0)
    task = stages.make_task(job, setup, live(setup.dense.network))
    hidden = (setup, setup.platform, setup.dataset, setup.dataset.test)
    assert not any(value is secret for value in vars(task).values() for secret in hidden)
    assert task.train.split is setup.dataset.train


def test_same_seed_same_figures(execute: Execute) -> None:
    first, second = execute(Toy), execute(Toy)
    assert first.record.measures == second.record.measures
    assert first.weights is not None and second.weights is not None
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)

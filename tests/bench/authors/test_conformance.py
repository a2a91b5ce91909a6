"""The kit finds each broken rule by its name, and nothing in a method that keeps them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from bench.authors import conformance
from bench.setup import dense
from bench.setup.setup import Setup
from methods import registry
from methods.contract import Infeasible, Method, Outcome, Task, spend_remaining
from shared import data, platforms
from shared.networks import importance, zero_channels
from shared.networks.ranking import weakest_channels

Check = Callable[[type[Method]], dict[str, str | None]]


@pytest.fixture
def check(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Rule -> problem, on the small setup with a few iterations."""
    longer = replace(setup, protocol=replace(setup.protocol, iterations=6, batch_size=4))
    monkeypatch.setattr(conformance, "prepare", lambda request: longer)
    monkeypatch.setattr(dense, "obtain", lambda *_: setup.dense)

    def run(method: type[Method]) -> dict[str, str | None]:
        monkeypatch.setattr(registry, "get", lambda name: method())
        return {finding.rule: finding.problem for finding in conformance.check("good")}

    return run


class Good(Method):
    name, title, paper = "good", "Good", "Nobody: Nothing. 2000"

    def run(self, task: Task) -> Outcome:
        network = self.prune(task)
        self.train(task, network)
        return Outcome(network, {"spent": task.ledger.training_iterations})

    def prune(self, task: Task) -> nn.Module:
        network, table = task.copy_of_dense(), task.structure
        zero_channels(
            network, table, weakest_channels(importance(network, table), task.uniform_widths(), table.upper_bounds)
        )
        return network

    def train(self, task: Task, network: nn.Module) -> None:
        spend_remaining(task, task.trainer(network))


def test_a_good_method_keeps_every_rule(check: Check) -> None:
    found = check(Good)
    assert set(found.values()) == {None} and len(found) == 11


class Nameless(Good):
    title, paper = "", " "


class MisnamedControl(Good):
    name = "other"


class OddProperties(Good):
    properties: ClassVar = {"direct_metric": True}


class Lazy(Good):
    def train(self, task: Task, network: nn.Module) -> None:
        task.trainer(network).step()


class Greedy(Good):
    def train(self, task: Task, network: nn.Module) -> None:
        super().train(task, network)
        task.trainer(network).step()


class Fat(Good):
    def prune(self, task: Task) -> nn.Module:
        return task.copy_of_dense()


class Vandal(Good):
    def prune(self, task: Task) -> nn.Module:
        next(task.network.parameters()).data.mul_(2)
        return super().prune(task)


class Poisoned(Good):
    def train(self, task: Task, network: nn.Module) -> None:
        super().train(task, network)
        next(network.parameters()).data[0] = torch.nan


class Extended(Good):
    def prune(self, task: Task) -> nn.Module:
        network = super().prune(task)
        network.register_forward_hook(lambda module, inputs, logits: logits + 1)
        return network


class Stowaway(Good):
    def train(self, task: Task, network: nn.Module) -> None:
        super().train(task, network)
        torch.optim.SGD(network.parameters(), lr=0.0).step()


class Peeks(Good):
    def prune(self, task: Task) -> nn.Module:
        data.load("fashion-mnist").test.take(torch.arange(3))
        return super().prune(task)


class AsksThePlatform(Good):
    def prune(self, task: Task) -> nn.Module:
        positions = task.structure.positions(task.structure.upper_bounds)[None].numpy()
        platforms.get("1080ti").measure(task.structure.operations, positions, 1)
        return super().prune(task)


class Crashes(Good):
    def prune(self, task: Task) -> nn.Module:
        raise KeyError("widths")


class GivesUp(Good):
    def prune(self, task: Task) -> nn.Module:
        raise Infeasible("too little")


class Searches(Good):
    def train(self, task: Task, network: nn.Module) -> None:
        task.search_accuracy(network)
        super().train(task, network)


class Moody(Good):
    """Something of the class lives from run to run."""

    runs = itertools.count()

    def prune(self, task: Task) -> nn.Module:
        network = super().prune(task)
        next(network.parameters()).data.mul_(1 + 0.01 * next(self.runs))
        return network


class Forgetful(Good):
    """Saves the weights and not the moments."""

    def train(self, task: Task, network: nn.Module) -> None:
        trainer = task.trainer(network)
        if kept := task.saved("weights"):
            network.load_state_dict(kept["weights"])
        while task.ledger.remaining:
            trainer.step()
            task.save("weights", lambda: {"weights": dict(network.state_dict())})


class CountsTwice(Good):
    """Asks once more for what was counted before the state."""

    def train(self, task: Task, network: nn.Module) -> None:
        trainer = task.trainer(network)
        if kept := task.saved("training"):
            trainer.restore(kept)
        task.energy(torch.ones(len(task.structure.units)))
        while task.ledger.remaining:
            trainer.step()
            task.save("training", trainer.state)


class Stumbles(Good):
    def prune(self, task: Task) -> nn.Module:
        if task.budget < 0.4 * task.dense_energy:
            raise ZeroDivisionError("no channels")
        return super().prune(task)


@pytest.mark.parametrize(
    ("method", "rule", "problem"),
    [
        (Nameless, "declares itself", "has no title and no paper"),
        (MisnamedControl, "declares itself", "calls itself 'other', registered as 'good'"),
        (OddProperties, "declares itself", "dict as properties"),
        (Crashes, "runs", "KeyError: 'widths' (test_conformance.py:"),
        (GivesUp, "runs", "too little"),
        (Greedy, "runs", "expected at most 6 training iterations"),
        (Stowaway, "runs", "an optimiser's step that the ledger does not count"),
        (AsksThePlatform, "runs", "asked the platform"),
        (Lazy, "spends the ledger", "spent 1 of 6"),
        (Vandal, "leaves the dense network", "changed the dense network in place"),
        (Poisoned, "is finite", "NaN"),
        (Fat, "keeps the budget", "above the budget"),
        (Extended, "is the network billed", "another network than the one that the energy model describes"),
        (Searches, "announces its search samples", "looked at 50 search samples, announced at most 0"),
        (Moody, "is deterministic", "weights differ"),
        (Forgetful, "stops and goes on", "weights differ"),
        (CountsTwice, "stops and goes on", "ledger counts differ"),
        (Stumbles, "tells what it cannot reach", "ZeroDivisionError"),
    ],
)
def test_a_broken_rule_is_named(method: type[Method], rule: str, problem: str, check: Check) -> None:
    found = check(method)
    assert problem in str(found[rule])
    before = list(found.values())[: list(found).index(rule)]
    assert before == [None] * len(before)


def test_a_look_at_test_images_is_seen(check: Check, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = replace(setup, dataset=replace(setup.dataset, test=data.load("fashion-mnist").test))
    monkeypatch.setattr(conformance, "prepare", lambda request: whole)
    assert check(Peeks)["runs"] == "looked at test images"

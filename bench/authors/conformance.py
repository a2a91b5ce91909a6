"""The conformance kit: checks whether a method keeps each rule of the contract, and says how to mend a broken one.

It runs the method on the embedded workload with the counts of the protocol `smoke`: once, once more, stopped and
resumed, and at a budget that is almost out of reach.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from bench.run import rules
from bench.run.rules import Miss
from bench.run.stages import make_task
from bench.run.teacher import live
from bench.setup import dense
from bench.setup.budgets import Budget, Reach
from bench.setup.plan import Job
from bench.setup.request import Request
from bench.setup.setup import Setup, prepare
from methods import registry
from methods.contract import Infeasible, Method, Outcome, Properties, Task
from shared.checkpoints import Checkpoints
from shared.data import Split
from shared.ledger import BudgetExhausted, Ledger
from shared.platforms import EyerissPlatform, SimulatedPlatform
from shared.rng import forked

FRACTION = 0.5  # budget as a share of the dense reading, which any pruning of channels can reach
HARDLY = 1.02  # budget near the floor, as a multiple of Ê with one channel per unit
STOPS = (0.4, 0.8)  # shares of the iterations after which the process is killed


class Stopped(BaseException):
    """Stands for a killed process; a BaseException, so that no `except Exception` of a method catches it."""


@dataclass(frozen=True)
class Finding:
    """The result of checking one rule."""

    rule: str
    problem: str | None  # None where the rule is kept
    mend: str  # what to do where it is broken


@dataclass(frozen=True)
class _Run:
    task: Task
    outcome: Outcome


@dataclass(frozen=True)
class _Stand:
    """A method and the setup on which it is tried."""

    setup: Setup
    method: Method

    @property
    def weights(self) -> bool:
        """Whether the method removes weights and no channels."""
        return self.method.granularity == "weights"

    @property
    def reach(self) -> Reach:
        """The budgets that the method can be asked for."""
        return self.setup.reach_of_weights if self.weights else self.setup.reach

    @property
    def budget(self) -> float:
        """One that any pruning can reach."""
        return (self.reach.floor + self.reach.top) / 2 if self.weights else FRACTION * self.reach.dense_reading

    def run(self, budget: float, checkpoints: Checkpoints | None = None, kill_at: float | None = None) -> _Run:
        """Run the method with the harness's checks; raises Miss, Infeasible, or what the method raises.

        kill_at: the share of its iterations after which it is stopped by Stopped.
        """
        job = Job("conformance", Budget(budget / self.setup.reach.dense_reading, budget), seed=0)
        task = make_task(job, self.setup, live(self.setup.dense.network))
        task = replace(task, checkpoints=checkpoints or Checkpoints(), zeros=self.setup.zeros if self.weights else None)

        def kill(ledger: Ledger) -> None:
            if kill_at is not None and ledger.training_iterations == int(kill_at * ledger.limit):
                raise Stopped

        task.ledger.observer = kill
        with forked(task.seed, self.method.name), rules.steps_paid(self.setup.dense.network), _sealed(self.setup):
            outcome = self.method.run(replace(task))
        return _Run(task, rules.checked(outcome))

    def differs(self, first: _Run, budget: float, checkpoints: Checkpoints | None = None) -> str | None:
        """What differs between the first run and another one; None where nothing does."""
        try:
            other = self.run(budget, checkpoints)
        except Exception as error:
            return f"the second time: {rules.reason(error)}"
        for what, of in _PARTS.items():
            if of(first) != of(other):
                return f"{what} differ"
        one, two = first.outcome.network.state_dict(), other.outcome.network.state_dict()
        for name, tensor in one.items():
            if name not in two or not torch.equal(tensor, two[name]):
                return f"weights differ ({name})"
        return None


_PARTS: dict[str, Callable[[_Run], Any]] = {
    "ledger counts": lambda run: run.task.ledger.as_record(),
    "notes": lambda run: json.dumps(run.outcome.notes),
    "traces": lambda run: json.dumps(run.outcome.trace),
}


@contextlib.contextmanager
def _sealed(setup: Setup) -> Iterator[None]:
    """Raises Miss where a method looks at a test image or asks the platform."""
    test = setup.dataset.test
    assert isinstance(test, Split)  # the embedded data set
    take = Split.take

    def guarded(split: Split, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(split) == len(test) and torch.equal(split.labels, test.labels):
            raise Miss("looked at test images")
        return take(split, index)

    def refuse(*_: object, **__: object) -> None:
        raise Miss("asked the platform for joules")

    with (
        mock.patch.object(Split, "take", guarded),
        mock.patch.object(SimulatedPlatform, "simulate", refuse),
        mock.patch.object(EyerissPlatform, "breakdown", refuse),
    ):
        yield


def check(name: str) -> Iterator[Finding]:
    """Yield the findings on the method `name`, up to the first broken rule that later ones rely on.

    Raises BadInput when there is no such method.
    """
    torch.set_num_threads(1)  # as in every run
    method = registry.get(name)
    yield Finding("declares itself", _undeclared(name, method), _DECLARING)
    device = "eyeriss" if method.granularity == "weights" else Request.device
    stand = _Stand(prepare(Request(protocol="smoke", meter="sim", device=device)).with_dense_weights(), method)
    budget = stand.budget
    try:
        first = stand.run(budget)
    except Exception as error:
        yield Finding("runs", rules.reason(error), _mend_of(error))
        return
    yield Finding("runs", None, "")
    for rule, mend in _RULES.items():
        if method.compresses or rule is not rules.keeps_the_budget:
            problem = _problem(rule, first.task, stand.setup.dense, first.outcome)
            yield Finding(rule.__name__.strip("_").replace("_", " "), problem, mend)
            if problem is not None:
                return
    for rule_name, (habit, mend) in _HABITS.items():
        yield Finding(rule_name, habit(stand, first, budget), mend)


def _undeclared(name: str, method: Method) -> str | None:
    texts = {what: getattr(method, what, None) for what in ("name", "title", "paper")}
    if empty := [what for what, text in texts.items() if not isinstance(text, str) or not text.strip()]:
        return f"has no {' and no '.join(empty)}"
    if method.name != name:
        return f"calls itself {method.name!r}, registered as {name!r}"
    if not isinstance(method.properties, Properties | None):
        return f"has {type(method.properties).__name__} as properties"
    return None


_DECLARING = (
    "class attributes name (as registered), title, paper (the citation) and properties = Properties(...), the rows of "
    "the ECC paper's Table 1; None for a control"
)


def _is_the_network_billed(task: Task, weights: dense.DenseWeights, outcome: Outcome) -> None:
    rules.described(rules.cut(outcome.network, task.train), task, weights)


_RULES: dict[Callable[[Task, dense.DenseWeights, Outcome], None], str] = {
    rules.spends_the_ledger: "spend_remaining(task, trainer) at the end of run(), or steps while task.ledger.remaining",
    rules.leaves_the_dense_network: "working on task.copy_of_dense()",
    rules.is_finite: "a look at the loss; task.protocol.learning_rate is the same for all methods",
    rules.keeps_the_budget: "zeroing channels (shared.networks.zero_channels) until task.energy(widths) is within "
    "task.budget, and raising Infeasible where that can't be",
    _is_the_network_billed: "returning the network of task.copy_of_dense(), zeroed or compact, without layers or hooks "
    "of your own",
}


def _announces(stand: _Stand, first: _Run, budget: float) -> str | None:
    declared = stand.method.search_samples(first.task.protocol, first.task.structure)
    used = first.task.ledger.search_samples
    return None if used <= declared else f"looked at {used:,} search samples, announced at most {declared:,}"


def _resumes(stand: _Stand, first: _Run, budget: float) -> str | None:
    """The method is killed twice and resumed, with a state saved in each iteration."""
    with tempfile.TemporaryDirectory() as folder:
        states = Checkpoints(Path(folder), every_s=0.0)
        for share in STOPS:
            with contextlib.suppress(Exception, Stopped):  # an error comes again below
                stand.run(budget, states, kill_at=share)
        return stand.differs(first, budget, states)


def _tells(stand: _Stand, first: _Run, budget: float) -> str | None:
    if not stand.method.compresses:
        return None
    try:
        run = stand.run(HARDLY * stand.reach.floor)
        rules.check_rules(run.task, stand.setup.dense, run.outcome)
    except Infeasible as error:
        return None if str(error) else "raised Infeasible without a reason"
    except Exception as error:
        return f"near the least budget that there is: {rules.reason(error)}"
    return None


_HABITS: dict[str, tuple[Callable[[_Stand, _Run, float], str | None], str]] = {
    "announces its search samples": (_announces, "search_samples(protocol, structure): the most a run takes"),
    "is deterministic": (
        _Stand.differs,
        "task.generator(purpose, index) for all that is random, no clock, no set or dict order, no state in the class",
    ),
    "stops and goes on": (
        _resumes,
        "task.save(name, state) with all that later iterations stand on, and task.saved(name) before them; "
        "nothing that is counted may be done again once it is in a state",
    ),
    "tells what it cannot reach": (_tells, "raising methods.contract.Infeasible with the reason"),
}


def _problem(rule: Callable[[Task, dense.DenseWeights, Outcome], None], *arguments: Any) -> str | None:
    try:
        rule(*arguments)
    except Exception as error:
        return rules.reason(error)
    return None


def _mend_of(error: Exception) -> str:
    if isinstance(error, Infeasible):
        return f"reaching half of the dense network's energy ({FRACTION} of its reading)"
    if isinstance(error, BudgetExhausted):
        return "asking task.ledger.remaining before each step"
    return "the line that is named"

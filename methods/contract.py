"""The contract between the harness and a method: a Task goes in, a compressed network comes out.

A method is one class with `run(task) -> Outcome`. It sees the Task and nothing else: not the test split, not the
platform, and it takes no optimiser step that the ledger does not count.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from typing import Protocol as TypingProtocol

import torch
from torch import Tensor, nn

from shared.checkpoints import Checkpoints, State
from shared.computing import ON_CPU, Computing
from shared.data import Batches, Images
from shared.energy import ZeroSavings
from shared.errors import Infeasible
from shared.ledger import Ledger
from shared.networks import Structure, active_channels, structure
from shared.protocol import Protocol
from shared.rng import generator
from shared.training import Feed, Teacher, Trainer, first_batches, score
from shared.widths.uniform import uniform_widths

__all__ = [
    "EnergyModel",
    "Granularity",
    "Infeasible",
    "Method",
    "Outcome",
    "Properties",
    "Task",
    "spend_remaining",
    "train_stage",
]


class EnergyModel(TypingProtocol):
    """Ê, the fitted energy model. Positions are widths with image channels and outputs added at the ends."""

    @property
    def unit(self) -> str:
        """Of the estimates: "J", or "s" where the metric is latency."""

    def __call__(self, positions: Tensor, /) -> Tensor:
        """Estimate per image of positions (n, p) or (p,): float64 (n,) or (), differentiable."""

    def gradient(self, positions: Tensor) -> Tensor:
        """The estimate's derivative with respect to each position, same shape as `positions`."""


Granularity = Literal["channels", "weights"]


@dataclass(frozen=True)
class Properties:
    """The rows of the ECC paper's Table 1, which compares methods by properties."""

    direct_metric: bool  # works on the metric itself and not on a proxy such as the number of parameters
    targets_energy: bool  # its own paper is about energy
    optimization_based: bool  # solves one optimisation problem instead of searching
    platform_free: bool  # needs no knowledge of how the hardware works inside


@dataclass(frozen=True)
class Task:
    """Everything that a method sees.

    Network, batches and images are on the device of `computing`; widths, Ê and random draws are on the CPU. The helpers
    below count what they use in the ledger: training iterations, images that a decision is based on, queries of Ê.
    """

    network: nn.Module  # the dense network; must not be changed, see `copy_of_dense`
    structure: Structure  # of `network`: its units and which tensor slices they own
    energy_model: EnergyModel  # Ê; `energy` queries and counts it
    budget: float  # for Ê of the returned widths, less what zeros save, per image, in the energy model's unit
    protocol: Protocol  # counts and hyper-parameters, the same for all methods
    seed: int  # of the run; draw through `generator`
    ledger: Ledger  # `ledger.limit` iterations have to be spent
    train: Batches  # `train.batch(i)` is batch i of the run; `trainer` reads them
    search: Images  # held out of the training set for the method's own decisions (a validation split)
    teacher: Teacher  # logits of the dense network, for distillation
    checkpoints: Checkpoints = field(default_factory=Checkpoints)  # behind `save` and `saved`
    computing: Computing = ON_CPU  # device and precision of training
    zeros: ZeroSavings | None = None  # what single zero weights save; None where the platform does not skip them

    def copy_of_dense(self) -> nn.Module:
        """A copy of the dense network, which the method may change."""
        return copy.deepcopy(self.network)

    def trainer(self, model: nn.Module) -> Trainer:
        """A trainer of `model` with a new Adam and the protocol's settings; each step spends one iteration."""
        return Trainer(model, Feed(self.train, self.teacher), self.ledger, self.protocol, computing=self.computing)

    def energy(self, widths: Tensor) -> Tensor:
        """Ê per image of widths (n, units) or (units,): float64 (n,) or (), in the model's unit. Counts the queries."""
        positions = self.structure.positions(widths)
        self.ledger.energy_queries += positions.shape[0] if positions.ndim > 1 else 1
        return self.energy_model(positions)

    def energy_per_channel(self, widths: Tensor) -> Tensor:
        """dÊ/dwidths: what a channel of each unit costs at `widths`, float64 (units,). Counts no query."""
        return self.energy_model.gradient(self.structure.positions(widths))[1:-1]

    def uniform_widths(self) -> tuple[int, ...]:
        """Widths max(1, round(m * dense width)) for the largest multiplier m within the budget.

        Raises Infeasible when one channel per unit is above the budget.
        """
        return uniform_widths(self.structure, lambda rows: self.energy(rows[..., 1:-1]), self.budget)

    def energy_with_zeros(self, network: nn.Module, table: Structure | None = None) -> float:
        """Ê of a network with its zeros: that of its active widths, less what zeros among its weights save.

        table: the network's structure; traced without it.
        """
        table = table or structure(network)
        estimate = float(self.energy(active_channels(network, table).sum(1)))
        return estimate - (0.0 if self.zeros is None else self.zeros.of(network, table))

    def check_reachable(self) -> None:
        """Raises Infeasible when one channel per unit is above the budget."""
        least = float(self.energy(torch.ones(len(self.structure.units))))
        if least > self.budget:
            got = f"{self.budget:.6g} {self.energy_model.unit}"
            raise Infeasible(f"expected a budget of at least {least:.6g} (one channel per unit), got {got}; try more")

    @property
    def dense_energy(self) -> float:
        """E0 = Ê(dense), where the schedules of NetAdapt and AMC start. Counts no query."""
        return float(self.energy_model(self.structure.positions(self.structure.upper_bounds)))

    def search_accuracy(self, model: nn.Module) -> float:
        """Score of `model`, 0..1, on the protocol's number of search images, which are counted.

        The data set decides which score: top-1 accuracy or mean IoU.
        """
        count = min(self.protocol.search_images, len(self.search))
        self.ledger.count_search_samples(count)
        return score(model, self.search, count)

    def calibration_batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `count` training batches, for statistics without a training step; counts search samples."""
        for images, labels in first_batches(self.train, count):
            self.ledger.count_search_samples(len(images))
            yield images, labels

    def save(self, name: str, state: Callable[[], State]) -> None:
        """Checkpoint: save what `state()` returns under `name`, about once a minute, so that a stopped run can resume.

        state: returns JSON values and tensors, nested in dicts and lists. It is called only when a save is due, so
        `save` may stand in every iteration. What a run does before its first `save` it does again after each restart,
        and it has to do the same then.
        """
        self.checkpoints.save(name, state, self.ledger)

    def saved(self, name: str) -> State | None:
        """The last state that this run saved under `name`, with the ledger's counts restored; None in a new run."""
        return self.checkpoints.load(name, self.ledger)

    def generator(self, purpose: str, index: int = 0) -> torch.Generator:
        """A random generator for this run, determined by (seed, purpose, index)."""
        return generator(self.seed, purpose, index)


@dataclass
class Outcome:
    """What a method returns."""

    network: nn.Module  # with the removed channels zeroed or cut out, within the budget
    notes: dict[str, Any] = field(default_factory=dict)  # short facts for the record, JSON values
    trace: dict[str, list[Any]] = field(default_factory=dict)  # columns for plots: name -> numbers, or lists of them


class Method(ABC):
    """A compression method under one registered name. An instance holds settings only; all state is local to `run`."""

    name: ClassVar[str]
    title: ClassVar[str]  # in tables and plots
    paper: ClassVar[str]  # citation, or the purpose of a control
    compresses: ClassVar[bool] = True  # False: the budget does not bind (the dense control)
    properties: ClassVar[Properties | None] = None  # None for controls
    granularity: ClassVar[Granularity] = "channels"  # what it removes; weights only where zeros save energy
    revision: ClassVar[int] = 1  # of its results: raise it with every change of what its runs end with

    @abstractmethod
    def run(self, task: Task) -> Outcome:
        """Compress `task.network` to `task.budget`, spending exactly `task.ledger.limit` iterations.

        Raises Infeasible when the budget can't be reached.
        """

    def refuses(self, structure: Structure) -> str | None:
        """Why the method can't compress a network of this structure; None where it can."""
        return None

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """Upper bound of a run's search samples, for the estimate of its cost; 0 unless the method overrides it."""
        return 0


def spend_remaining(task: Task, trainer: Trainer, name: str = "training") -> None:
    """Train until the ledger is spent. `name`: of the checkpoint; unique within the run.

    Dead channels stay dead, since shared.networks.zero_channels leaves them without gradient.
    """
    if state := task.saved(name):
        trainer.restore(state)
    while task.ledger.remaining:
        trainer.step()
        task.save(name, trainer.state)


def train_stage(task: Task, trainer: Trainer, name: str, known: list[Any], stages: int) -> None:
    """Train to the end of a stage, of which each has an equal share of the iterations and the last one the remainder.

    known: what each stage up to this one has found, in the checkpoint `name` beside the trainer's state, so that a
    stopped run goes on here.
    """

    def state() -> State:
        return {name: known, "trainer": trainer.state()}

    end = task.ledger.limit if len(known) == stages else task.ledger.limit // stages * len(known)
    task.save(name, state)
    while task.ledger.training_iterations < end:
        trainer.step()
        task.save(name, state)

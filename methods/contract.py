"""The contract between the harness and a method: a Task goes in, a compressed network comes out.

A method is one class with `run(task) -> Outcome`. It sees the Task and nothing else: no test split, no true energy of
the platform, no optimiser step outside the ledger.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from typing import Protocol as TypingProtocol

import torch
from torch import Tensor, nn

from shared.checkpoints import Checkpoints, State
from shared.computing import ON_CPU, Computing
from shared.data import Batches, Images
from shared.energy.budget import uniform_widths
from shared.errors import Infeasible
from shared.ledger import Ledger
from shared.networks import Structure
from shared.protocol import Protocol
from shared.rng import generator
from shared.training import Teacher, Trainer, score

__all__ = [
    "EnergyModel",
    "Infeasible",
    "Method",
    "Outcome",
    "Properties",
    "Task",
    "spend_remaining",
]


class EnergyModel(TypingProtocol):
    """Ê: positions (n, p) or (p,), widths with the fixed ends added -> amounts per image (n,) or scalar, float64,
    differentiable. `unit` is "J", or "s" where the metric is latency.
    """

    @property
    def unit(self) -> str: ...

    def __call__(self, positions: Tensor, /) -> Tensor: ...

    def gradient(self, positions: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Properties:
    """The rows of the ECC paper's Table 1."""

    direct_metric: bool
    targets_energy: bool
    optimization_based: bool
    platform_free: bool


@dataclass(frozen=True)
class Task:
    """All that a method sees; its fields can't be swapped.

    `network` is the dense network, never to be changed: `copy_of_dense()` gives a copy that is the method's own.
    `budget` is per image in the energy model's unit, for Ê(φ). `train` yields batch i of the run, `search` is held out
    of training. Network, batches and images are on the device of `computing`; widths, Ê and all random draws are on the
    CPU. Every image that is looked at for a decision and every row asked of Ê is counted by the methods below.
    """

    network: nn.Module
    structure: Structure
    energy_model: EnergyModel
    budget: float
    protocol: Protocol
    seed: int
    ledger: Ledger
    train: Batches
    search: Images
    teacher: Teacher
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    computing: Computing = ON_CPU

    def copy_of_dense(self) -> nn.Module:
        """A copy of the dense network with its weights."""
        return copy.deepcopy(self.network)

    def trainer(self, model: nn.Module) -> Trainer:
        """A fresh Adam with the protocol's settings on `model`.

        Each of its steps spends one iteration of the ledger.
        """
        return Trainer(model, self.train, self.teacher, self.ledger, self.protocol, computing=self.computing)

    def energy(self, widths: Tensor) -> Tensor:
        """Ê per image in the model's unit, float64, of widths (n, units) or (units,); counts the rows."""
        positions = self.structure.positions(widths)
        self.ledger.energy_queries += positions.shape[0] if positions.ndim > 1 else 1
        return self.energy_model(positions)

    def uniform_widths(self) -> tuple[int, ...]:
        """Widths of the largest single multiplier within the budget: where whoever knows nothing better begins.

        Raises Infeasible when one channel per unit is above the budget.
        """
        return uniform_widths(self.structure, lambda rows: self.energy(rows[..., 1:-1]), self.budget)

    @property
    def dense_energy(self) -> float:
        """E0 = Ê(dense), what NetAdapt and AMC start from."""
        return float(self.energy_model(self.structure.positions(self.structure.upper_bounds)))

    def search_accuracy(self, model: nn.Module) -> float:
        """Score in 0..1, the one that the data set names (top-1 accuracy, mean IoU), on the protocol's number of search
        images; counted.
        """
        count = min(self.protocol.search_images, len(self.search))
        self.ledger.count_search_samples(count)
        return score(model, self.search, count)

    def calibration_batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`count` training batches for statistics, without a training step; images are counted as search samples."""
        for index in range(count):
            images, labels = self.train.batch(index)
            self.ledger.count_search_samples(len(images))
            yield images, labels

    def save(self, name: str, state: Callable[[], State]) -> None:
        """Keep what a stopped run needs to go on from here: JSON values and tensors, nested in dicts and lists.

        `state` is called about once a minute, so this may stand in every iteration. Between what `saved` returns and
        the first call of `save` a run must do the same each time it is started.
        """
        self.checkpoints.save(name, state, self.ledger)

    def saved(self, name: str) -> State | None:
        """What this run kept last under `name` before it was stopped, else None. The ledger counts on from there."""
        return self.checkpoints.load(name, self.ledger)

    def generator(self, purpose: str, index: int = 0) -> torch.Generator:
        """A random generator for this run, a function of (seed, purpose, index)."""
        return generator(self.seed, purpose, index)


@dataclass
class Outcome:
    """What a method gives back.

    `network`: zeroed channels (or already cut) with Ê(φ) <= budget. `notes`: short facts for the record, JSON values.
    `trace`: columns of the run for plots, name -> list of numbers (or of lists).
    """

    network: nn.Module
    notes: dict[str, Any] = field(default_factory=dict)
    trace: dict[str, list[Any]] = field(default_factory=dict)


class Method(ABC):
    """A compression method under one registered name. Instances hold settings alone; all state lives inside `run`."""

    name: ClassVar[str]
    title: ClassVar[str]  # how tables call it
    paper: ClassVar[str]  # citation, or what the control is for
    compresses: ClassVar[bool] = True  # False: the budget does not bind (the dense control)
    properties: ClassVar[Properties | None] = None  # None for controls

    @abstractmethod
    def run(self, task: Task) -> Outcome:
        """Compress `task.network` to `task.budget`, spending exactly `task.ledger.limit` iterations.

        Raises Infeasible where the budget can't be reached.
        """

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """How many search samples a run will take at most, for the plan's cost; 0 unless the method says otherwise."""
        return 0


def spend_remaining(task: Task, trainer: Trainer, name: str = "training") -> None:
    """Train on until the ledger is spent; `name` tells trainings of one run apart, so that a stopped run goes on.

    Dead channels stay dead, since shared.networks.zero_channels leaves them without gradient.
    """
    if state := task.saved(name):
        trainer.restore(state)
    while task.ledger.remaining:
        trainer.step()
        task.save(name, trainer.state)

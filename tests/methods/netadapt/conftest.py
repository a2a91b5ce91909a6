"""A run that is watched while it trains and judges, and tasks on networks whose widths eights can say something of."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from methods.contract import Method, Outcome, Task
from shared.energy import BilinearModel
from shared.networks import active_widths, structure


class Watched:
    """A task that notes every training and judgement of a candidate, in order."""

    def __init__(self, method: Method, task: Task) -> None:
        self.task = task
        self.starts: list[dict] = []  # weights that a trainer starts from
        self.judged: list[dict] = []  # of every candidate: its network's widths, weights, accuracy, iterations so far
        trainer, search_accuracy = task.trainer, task.search_accuracy

        def watched_trainer(model):  # type: ignore[no-untyped-def]
            made = trainer(model)
            restore = made.restore

            def watched_restore(state):  # type: ignore[no-untyped-def]
                restore(state)
                self.starts.append(copy.deepcopy(model.state_dict()))

            made.restore = watched_restore
            return made

        def watched_accuracy(model):  # type: ignore[no-untyped-def]
            accuracy = search_accuracy(model)
            self.judged.append(
                {
                    "widths": active_widths(model),
                    "weights": copy.deepcopy(model.state_dict()),
                    "accuracy": accuracy,
                    "spent": task.ledger.training_iterations,
                }
            )
            return accuracy

        vars(task).update(trainer=watched_trainer, search_accuracy=watched_accuracy)  # past the frozen dataclass
        self.outcome: Outcome = method.run(task)

    def steps(self) -> list[list[dict]]:
        """The judged candidates step by step, without the dense network where that is judged first."""
        trace = self.outcome.trace
        count = sum(score is not None for scores in trace["accuracy"] for score in scores)
        judged = iter(self.judged[len(self.judged) - count :])
        return [[next(judged) for score in scores if score is not None] for scores in trace["accuracy"]]


@pytest.fixture(scope="session")
def watch() -> Callable[[Method, Task], Watched]:
    """(method, task) -> the finished run, watched."""
    return Watched


def with_network(task: Task, network: nn.Module, coefficients: list[float]) -> Task:
    """`task` on `network`, whose chain of terms takes `coefficients` beside 0.1 J."""
    anatomy = structure(network)
    terms = tuple((j, j + 1) for j in range(len(coefficients)))
    model = BilinearModel(
        torch.tensor(0.1).double(),
        torch.tensor(coefficients).double(),
        terms,
        tuple(map(float, anatomy.position_bounds)),
    )
    budget = task.budget * float(model(anatomy.positions(anatomy.upper_bounds)))  # of the toy network's 1 J
    return replace(task, network=network, structure=anatomy, energy_model=model, budget=budget)


@pytest.fixture(scope="session")
def on_network() -> Callable[[Task, nn.Module, list[float]], Task]:
    """(task, network, coefficients) -> the task on another network."""
    return with_network


@pytest.fixture(scope="session")
def wide_task(tiny_task: Callable[..., Task]) -> Callable[..., Task]:
    """Like tiny_task, on a network with units of 5, 48, 40 and 60 channels; 1 J."""

    def make(budget_fraction: float, **arguments: int) -> Task:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            convolutions = [nn.Conv2d(1, 5, 3, 2, 1), nn.Conv2d(5, 48, 3, 2, 1), nn.Conv2d(48, 40, 1)]
            network = nn.Sequential(
                *(layer for convolution in convolutions for layer in (convolution, nn.ReLU())),
                nn.AvgPool2d(4),
                nn.Flatten(),
                nn.Linear(40, 60),
                nn.ReLU(),
                nn.Linear(60, 4),
            )
        network.input_shape = (1, 16, 16)  # type: ignore[assignment]
        return with_network(tiny_task(budget_fraction, **arguments), network, [0.05, 0.2, 0.4, 0.2, 0.05])

    return make

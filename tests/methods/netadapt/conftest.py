"""A run that is watched while it trains and judges."""

import copy
from collections.abc import Callable

import pytest

from methods.contract import Method, Outcome, Task
from shared.networks import active_widths


class Watched:
    """A task that notes every training and judgement of a candidate, in order."""

    def __init__(self, method: Method, task: Task) -> None:
        self.task = task
        self.starts: list[dict] = []  # weights when a trainer is made
        self.judged: list[dict] = []  # of every candidate: its network's widths, weights, accuracy, iterations so far
        trainer, search_accuracy = task.trainer, task.search_accuracy

        def watched_trainer(model):  # type: ignore[no-untyped-def]
            self.starts.append(copy.deepcopy(model.state_dict()))
            return trainer(model)

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

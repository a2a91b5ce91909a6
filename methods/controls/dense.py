"""The dense network after the same training as every method: what training alone changes."""

from __future__ import annotations

from typing import ClassVar

from methods.contract import Method, Outcome, Task, spend_remaining


class Dense(Method):
    """Trains the dense network and removes nothing; the budget does not apply."""

    name: ClassVar[str] = "dense"
    title: ClassVar[str] = "Dense"
    paper: ClassVar[str] = "Control: the dense network after the same training"
    compresses: ClassVar[bool] = False

    def run(self, task: Task) -> Outcome:
        """Spend all training iterations on a copy of the dense network."""
        network = task.copy_of_dense()
        spend_remaining(task, task.trainer(network))
        return Outcome(network)

"""What a method may spend, and what it spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


class BudgetExhausted(RuntimeError):
    """A training iteration was asked for after the last one that the protocol grants."""


@dataclass
class Ledger:
    """Counts training iterations (a hard limit) and, beside them, everything else that a method consumes.

    `limit` is the protocol's number of training iterations: one optimiser step of the compressed network on one
    batch. Search samples are images that went through a network for a decision of the method's own (search split,
    calibration); energy queries are rows asked of the fitted energy model. Neither is limited, both are reported.
    `observer` is called after every change of iterations or search samples, for progress.
    """

    limit: int
    training_iterations: int = 0
    search_samples: int = 0
    energy_queries: int = 0
    observer: Callable[[Ledger], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"expected a number of training iterations >= 0, got {self.limit}; try 0 for none")

    @property
    def remaining(self) -> int:
        """Training iterations that are left."""
        return self.limit - self.training_iterations

    def spend_iteration(self) -> int:
        """Take one training iteration and return its index, which is also the index of its batch.

        Raises BudgetExhausted when none is left; nothing is counted then.
        """
        if self.remaining <= 0:
            raise BudgetExhausted(
                f"expected at most {self.limit} training iterations, got a request for one more; "
                "try asking ledger.remaining before each step"
            )
        index = self.training_iterations
        self.training_iterations += 1
        if self.observer is not None:
            self.observer(self)
        return index

    def count_search_samples(self, count: int) -> None:
        """Add images that went through a network for a decision of the method's own."""
        self.search_samples += count
        if self.observer is not None:
            self.observer(self)

    def as_record(self) -> dict[str, int | float]:
        """The counts under the names that records use, without the clock."""
        return {
            "training_iterations": self.training_iterations,
            "search_samples": self.search_samples,
            "energy_queries": self.energy_queries,
        }

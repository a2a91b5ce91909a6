"""Counts what a method consumes; training iterations have a hard limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


class BudgetExhausted(RuntimeError):
    """A training iteration was requested after the protocol's last one."""


@dataclass
class Ledger:
    """The counts of one run. Training iterations are limited; search samples and energy queries are only reported."""

    limit: int  # training iterations that the protocol grants
    training_iterations: int = 0  # optimiser steps of the compressed network, each on one batch
    search_samples: int = 0  # images that went through a network for a decision of the method's own
    energy_queries: int = 0  # width vectors whose energy the fitted model estimated
    observer: Callable[[Ledger], None] | None = field(default=None, repr=False)  # called after a change, for progress

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"expected a number of training iterations >= 0, got {self.limit}; try 0 for none")

    @property
    def remaining(self) -> int:
        """Training iterations not yet spent."""
        return self.limit - self.training_iterations

    def spend_iteration(self) -> int:
        """Count one training iteration and return its index, from 0, which is also the index of its batch.

        Raises BudgetExhausted, and counts nothing, when no iteration remains.
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
        """Add `count` images that went through a network for a decision of the method's own."""
        self.search_samples += count
        if self.observer is not None:
            self.observer(self)

    def as_record(self) -> dict[str, int]:
        """The counts by the names that records use."""
        return {
            "training_iterations": self.training_iterations,
            "search_samples": self.search_samples,
            "energy_queries": self.energy_queries,
        }

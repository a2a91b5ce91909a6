"""Losses, energies and widths of an ECC run over time, subsampled so that records stay small."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 100
DIGITS = 6  # significant ones, enough for a plot


class Trace:
    """Collects about `ROWS` rows, evenly spaced over the training iterations; the last iteration is one of them.

    Losses stay on their device until `columns` is called, so that adding a row does not synchronise.
    """

    def __init__(self, limit: int) -> None:
        self._every, self._limit = -(-limit // ROWS), limit
        self.rows: list[dict[str, Any]] = []

    def due(self, iteration: int) -> bool:
        """Whether to add a row at this iteration, counted from 1."""
        return iteration % self._every == 0 or iteration == self._limit

    def add(self, iteration: int, loss: Tensor, **values: Tensor | float) -> None:
        """Add a row: the loss, which is not read yet, and numbers or vectors (units,) by name."""
        plain = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}
        self.rows.append({"iteration": iteration, "loss": loss, **plain})

    def columns(self) -> dict[str, list[Any]]:
        """Name -> values of the rows, rounded: JSON numbers, or lists of them."""
        if self.rows:
            device = self.rows[-1]["loss"].device  # losses from a checkpoint are on the CPU
            losses = torch.stack([row["loss"].to(device) for row in self.rows]).tolist()
            self.rows = [row | {"loss": loss} for row, loss in zip(self.rows, losses, strict=True)]
        return {name: [_rounded(row[name]) for row in self.rows] for name in (self.rows[0] if self.rows else ())}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value

"""What a run of ECC looked like over time, sampled so that a record stays small."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 100
DIGITS = 6  # significant ones, enough for a plot


class Trace:
    """Columns of at most some `ROWS` rows, spread evenly over the training iterations, the last one included.

    Losses stay on their device until `columns` is asked, so that sampling does not synchronise.
    """

    def __init__(self, limit: int) -> None:
        self._every, self._limit = -(-limit // ROWS), limit
        self.rows: list[dict[str, Any]] = []

    def due(self, iteration: int) -> bool:
        """Whether the row of this iteration, counted from 1, is kept."""
        return iteration % self._every == 0 or iteration == self._limit

    def add(self, iteration: int, loss: Tensor, **values: Tensor | float) -> None:
        """Note the loss (a tensor, not read yet) and numbers or vectors (units,) under their names."""
        plain = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}
        self.rows.append({"iteration": iteration, "loss": loss, **plain})

    def columns(self) -> dict[str, list[Any]]:
        """Name -> one value per row, rounded: plain JSON numbers or lists of them."""
        if self.rows:
            device = self.rows[-1]["loss"].device  # those of before a stop are on the CPU
            losses = torch.stack([row["loss"].to(device) for row in self.rows]).tolist()
            self.rows = [row | {"loss": loss} for row, loss in zip(self.rows, losses, strict=True)]
        return {name: [_rounded(row[name]) for row in self.rows] for name in (self.rows[0] if self.rows else ())}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value

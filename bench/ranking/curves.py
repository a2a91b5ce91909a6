"""Accuracy over measured joules (or seconds) of one method and seed, linear between its operating points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Operating points of one method and seed, by reading: readings (points,) ascending, accuracies (points,) 0..1.

    Example: points at 1 mJ with 80 % and 3 mJ with 90 % give 85 % at 2 mJ, and nothing at 4 mJ.
    """

    readings: Array
    accuracies: Array

    def at(self, amount: float) -> float:
        """The accuracy at `amount`; NaN beyond the points."""
        return float(np.interp(amount, self.readings, self.accuracies, np.nan, np.nan))

    def weights(self, low: float, high: float) -> Array:
        """The weight of each point in the mean accuracy over low..high: (points,), they sum to 1.

        The mean is the exact integral of the lines between the points over the length of the range; where low equals
        high it is the accuracy there. Raises ValueError when the points don't cover the range.
        """
        if not self.readings[0] <= low <= high <= self.readings[-1]:
            covered = f"{self.readings[0]:.6g} to {self.readings[-1]:.6g}"
            raise ValueError(f"expected a range within {covered}, got {low:.6g} to {high:.6g}; try a smaller one")
        inside = self.readings[(self.readings > low) & (self.readings < high)]
        knots = np.unique(np.array([low, *inside, high]))
        # A column per point: the accuracy at every knot if that point had accuracy 1 and all others 0.
        hats = np.column_stack([np.interp(knots, self.readings, unit) for unit in np.eye(len(self.readings))])
        if len(knots) == 1:
            return np.asarray(hats[0])
        return np.asarray(np.trapezoid(hats, knots, axis=0) / (high - low))

    def mean(self, low: float, high: float) -> float:
        """The mean accuracy over low..high. Raises ValueError as `weights` does."""
        return float(self.weights(low, high) @ self.accuracies)

    def amount_for(self, accuracy: float) -> float | None:
        """The least amount from which on the curve stays at or above `accuracy`; None where its end lies below."""
        if self.accuracies[-1] < accuracy:
            return None
        below = np.flatnonzero(self.accuracies < accuracy)
        if not below.size:
            return float(self.readings[0])
        last = below[-1]  # the curve rises through `accuracy` behind this point
        low, high = self.accuracies[last : last + 2]
        share = (accuracy - low) / (high - low)
        return float(self.readings[last] + share * (self.readings[last + 1] - self.readings[last]))


def curves(runs: pd.DataFrame) -> list[Curve]:
    """The curves of one method's and seed's runs: one, or several pieces where a budget between others was missed.

    runs: columns budget.amount, ok, measures.reading, measures.accuracy_after. Points with the same reading count as
    one, with their mean accuracy.
    """
    runs = runs.sort_values("budget.amount")
    pieces = []
    for _, piece in runs[runs["ok"]].groupby((~runs["ok"]).cumsum()):
        points = piece.groupby("measures.reading")["measures.accuracy_after"].mean()  # sorted by reading
        pieces.append(Curve(points.index.to_numpy(dtype=float), points.to_numpy(dtype=float)))
    return pieces

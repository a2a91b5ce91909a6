"""The paper's energy model: a non-negative sum of products of neighbouring widths.

Yang, Zhu, Liu, "ECC: Platform-Independent Energy-Constrained Deep Neural Network Compression via a Bilinear Regression
Model", CVPR 2019, section 3.2. Widths enter divided by their upper bounds, so a coefficient is its term's joules
in the dense network, and the dense estimate is the intercept plus the sum of the coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
import torch

from shared.errors import BadInput

Rows = torch.Tensor | npt.ArrayLike


@dataclass(frozen=True, eq=False)
class BilinearModel:
    """E(p) = intercept + sum over terms (i, j) of coefficient * (p_i / bound_i) * (p_j / bound_j).

    `intercept` is a scalar and `coefficients` a (terms,) tensor: CPU, float64, detached, non-negative, in `unit`.
    """

    intercept: torch.Tensor
    coefficients: torch.Tensor
    terms: tuple[tuple[int, int], ...]
    upper_bounds: tuple[float, ...]
    unit: str = "J"

    @classmethod
    def fit(
        cls,
        positions: Rows,
        joules: Rows,
        *,
        upper_bounds: Rows,
        terms: Sequence[tuple[int, int]] | None = None,
        unit: str = "J",
    ) -> BilinearModel:
        """Non-negative least squares of `joules` (n,) on the products of `positions` (n, p).

        `upper_bounds` (p,) are the dense positions. `terms` are pairs of positions, by default the chain (0, 1),
        (1, 2), … This is equation 3 of the paper with non-negative coefficients, which its section 3.2 demands.

        Raises BadInput for wrong shapes, positions outside 0..bound, numbers that are not finite, and fewer rows than
        unknowns.
        """
        bounds = _vector(upper_bounds, "upper bounds")
        if bounds.size < 2 or not bool((bounds > 0).all()):
            raise BadInput("at least two positive upper bounds", bounds.tolist(), "the dense width of every position")
        pairs = _checked_terms(terms, bounds.size)
        rows = _numpy(positions)
        if rows.ndim != 2 or rows.shape[1] != bounds.size:
            raise BadInput(f"positions of shape (n, {bounds.size})", tuple(rows.shape), "one column per upper bound")
        targets = _vector(joules, "joules")
        if targets.size != rows.shape[0]:
            raise BadInput(f"one reading for each of {rows.shape[0]} rows", targets.size, "one profile's rows")
        if rows.shape[0] < len(pairs) + 1:
            raise BadInput(f"at least {len(pairs) + 1} rows for as many unknowns", rows.shape[0], "more samples")
        if not bool(((rows >= 0) & (rows <= bounds)).all()):  # also false for NaN
            column = int(np.argmin(((rows >= 0) & (rows <= bounds)).all(axis=0)))
            raise BadInput(
                f"position {column} within 0..{bounds[column]:g}",
                f"values from {rows[:, column].min():g} to {rows[:, column].max():g}",
                "columns in the order of the upper bounds",
            )
        scaled = rows / bounds
        first, second = np.array(pairs).T
        features = np.column_stack([np.ones(rows.shape[0]), scaled[:, first] * scaled[:, second]])
        # nnls stops at an absolute tolerance: without scaling, readings in mJ and in J would give different fits.
        scale = float(np.abs(targets).max()) or 1.0
        solution, _ = scipy.optimize.nnls(features, targets / scale)
        weights = torch.from_numpy(solution * scale)
        return cls(weights[0], weights[1:].clone(), pairs, tuple(bounds.tolist()), unit)

    def __call__(self, positions: Rows) -> torch.Tensor:
        """Estimate for each row of `positions` (n, p), float64 (n,), or for one row (p,), a scalar; differentiable."""
        scaled = self._scaled(positions)
        first, second = self._indices(scaled.device)
        products = scaled[..., first] * scaled[..., second]
        return self.intercept.to(scaled.device) + products @ self.coefficients.to(scaled.device)

    def gradient(self, positions: Rows) -> torch.Tensor:
        """The estimate's derivative with respect to each position, in `unit` per channel: same shape as `positions`.

        A closed form, so that methods need no autograd for it.
        """
        scaled = self._scaled(positions).detach()
        first, second = self._indices(scaled.device)
        coefficients = self.coefficients.to(scaled.device)
        total = torch.zeros_like(scaled)
        total.index_add_(-1, first, coefficients * scaled[..., second])
        total.index_add_(-1, second, coefficients * scaled[..., first])
        return total / torch.tensor(self.upper_bounds, dtype=torch.float64, device=scaled.device)

    def to_dict(self) -> dict[str, Any]:
        """All that decides an estimate, as plain JSON values and without rounding: records keep a hash of it."""
        return {
            "form": "bilinear",
            "unit": self.unit,
            "upper_bounds": list(self.upper_bounds),
            "terms": [list(pair) for pair in self.terms],
            "intercept": self.intercept.item(),
            "coefficients": self.coefficients.tolist(),
        }

    def _scaled(self, positions: Rows) -> torch.Tensor:
        rows = positions if isinstance(positions, torch.Tensor) else torch.from_numpy(_numpy(positions))
        if rows.ndim not in (1, 2) or rows.shape[-1] != len(self.upper_bounds):
            expected = f"positions of shape (n, {len(self.upper_bounds)}) or ({len(self.upper_bounds)},)"
            raise BadInput(expected, tuple(rows.shape), "widths with image channels before and outputs after them")
        return rows.double() / torch.tensor(self.upper_bounds, dtype=torch.float64, device=rows.device)

    def _indices(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = torch.tensor(self.terms, device=device).T
        return first, second


def _checked_terms(terms: Sequence[tuple[int, int]] | None, count: int) -> tuple[tuple[int, int], ...]:
    chain = [(i, i + 1) for i in range(count - 1)]
    pairs = tuple((int(i), int(j)) for i, j in (chain if terms is None else terms))
    if not pairs or not all(0 <= i < count and 0 <= j < count for i, j in pairs):
        raise BadInput(f"pairs of positions within 0..{count - 1}", list(pairs), "the chain (0, 1), (1, 2), …")
    if len({tuple(sorted(pair)) for pair in pairs}) < len(pairs):
        raise BadInput("every pair of positions once", list(pairs), "dropping the repeated terms")
    return pairs


def _numpy(values: Rows) -> npt.NDArray[np.float64]:
    plain = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    try:
        return np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput("a table of numbers", str(error), "rows of equal length") from error


def _vector(values: Rows, name: str) -> npt.NDArray[np.float64]:
    vector = _numpy(values)
    if vector.ndim != 1:
        raise BadInput(f"{name} as a flat list of numbers", f"shape {vector.shape}", "one number per entry")
    if not bool(np.isfinite(vector).all()):
        place = int(np.argmin(np.isfinite(vector)))
        raise BadInput(f"finite {name}", f"{vector[place]} at index {place}", "leaving failed readings out")
    return vector

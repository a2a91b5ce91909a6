"""The three steps of EAP on one layer's weights: remove the smallest, restore by joint impact, fit the rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from methods.eap.support import RESTORED_SHARE, RIDGE

ROUNDS = 2  # in which weights come back
ITERATIONS = 10  # of the conjugate gradients, which start at the weights as they are


@dataclass(frozen=True)
class LayerInputs:
    """A layer's sampled inputs X, (rows, columns)."""

    rows: Tensor

    @cached_property
    def _gram(self) -> Tensor | None:
        return self.rows.T @ self.rows if len(self.rows) >= self.rows.shape[1] else None

    def times_gram(self, weights: Tensor) -> Tensor:
        """Weights (outputs, columns) times X'X, by whichever way takes fewer products."""
        return (weights @ self.rows.T) @ self.rows if self._gram is None else weights @ self._gram

    @cached_property
    def diagonal(self) -> Tensor:
        """The diagonal of X'X, (columns,)."""
        return self.rows.square().sum(0)

    def squared_norm(self, weights: Tensor) -> float:
        """|X W'|^2."""
        return float((self.times_gram(weights) * weights).sum())


def largest(weight: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """Mask of the `count` largest weights by magnitude, of those in `among` where it is given."""
    size = weight.abs() if among is None else torch.where(among, weight.abs(), -1.0)
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[size.flatten().argsort(descending=True, stable=True)[:count]] = True
    return mask.view(weight.shape)


def restored(weight: Tensor, inputs: LayerInputs, cross: Tensor, count: int) -> Tensor:
    """Mask of `count` weights that are not zero: most by magnitude, the others by what their return lets fall.

    cross: Y'X, (outputs, columns). The squared error |Y - X A'|^2 falls by 2 a (Y'X - A X'X)_j - a^2 (X'X)_jj when
    weight a returns to column j. All weights of a round are judged on what the round before has left.
    """
    available = weight != 0
    certain = count - int(RESTORED_SHARE * count)
    mask = largest(weight, certain, available)
    for number in range(ROUNDS):
        left = cross - inputs.times_gram(torch.where(mask, weight, 0.0))
        drop = 2 * weight * left - weight.square() * inputs.diagonal
        drop = torch.where(available & ~mask, drop, -torch.inf).flatten()
        more = (count - int(mask.sum())) // (ROUNDS - number)
        mask.view(-1)[drop.argsort(descending=True, stable=True)[:more]] = True
    return mask


def fitted(weight: Tensor, mask: Tensor, inputs: LayerInputs, cross: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The least-squares weights on the mask, by conjugate gradients for all outputs at once; (outputs, columns).

    Solves argmin |Y - X A'|^2 + ridge |A - W|^2 with A zero off the mask: every output has columns of its own, but all
    share X'X. The diagonal of X'X preconditions.
    """
    ridge = RIDGE * float(inputs.diagonal.mean()) or 1.0
    scale = 1 / (inputs.diagonal + ridge)

    def times(rows: Tensor) -> Tensor:
        return torch.where(mask, inputs.times_gram(rows) + ridge * rows, 0.0)

    solution = torch.where(mask, weight, 0.0)
    left = torch.where(mask, cross + ridge * weight, 0.0) - times(solution)
    direction = scale * left
    product = (left * direction).sum(1, keepdim=True)
    for _ in range(iterations):
        image = times(direction)
        curvature = (direction * image).sum(1, keepdim=True)
        step = torch.where(curvature > 0, product / curvature, 0.0)
        solution = solution + step * direction
        left = left - step * image
        after = (left * scale * left).sum(1, keepdim=True)
        direction = scale * left + torch.where(product > 0, after / product, 0.0) * direction
        product = after
    return solution

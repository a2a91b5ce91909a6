"""Which channels a unit keeps: the largest ones, then those whose return brings its readers' outputs nearest.

Yang, Chen, Sze, "Designing Energy-Efficient Convolutional Neural Networks using Energy-Aware Pruning", CVPR 2017: the
magnitudes remove too many weights, and those with the largest joint impact on the output come back. Here an item is a
channel of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

RESTORED_SHARE = 0.2  # of what is kept: so much comes back by joint impact; the paper's number is not known
RIDGE = 1e-4  # of the least squares, times the Gram matrix's mean diagonal


@dataclass(frozen=True)
class Reader:
    """What a unit's channels contribute to the output of one layer that reads it; all float64.

    A channel's contribution Z_c is its columns of the layer's input rows times its weights, (rows, outputs).
    products: <Z_c, Z_d>, (channels, channels). target: <Z_c, Y>, (channels,), Y being the output without its bias that
    is to be kept. total: <Y, Y>. magnitudes: squared norms of the channels' weights, (channels,). problem: X'X, X'Y and
    the weight, from which least squares fits; None where the inputs were not sampled.
    """

    products: Tensor
    target: Tensor
    total: float
    magnitudes: Tensor
    problem: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, gram: Tensor, cross: Tensor, weight: Tensor, total: float, channels: int) -> Reader:
        """From X'X (columns, columns), X'Y (columns, outputs) and the weight (outputs, columns) on the inputs X.

        Columns lie channel by channel, as many for each.
        """

        def blocks(columns: Tensor) -> Tensor:
            return columns.view(channels, -1).sum(1)

        products = ((weight.T @ weight) * gram).view(channels, len(gram) // channels, channels, -1).sum((1, 3))
        target, magnitudes = blocks((cross * weight.T).sum(1)), blocks(weight.square().sum(0))
        return cls(products, target, total, magnitudes, (gram, cross, weight))

    @classmethod
    def by_magnitude(cls, magnitudes: Tensor) -> Reader:
        """For a layer whose inputs were not sampled: channels count by their squared norms, each for itself."""
        total = max(float(magnitudes.sum()), torch.finfo(magnitudes.dtype).tiny)
        return cls(magnitudes.diag(), magnitudes, total, magnitudes)

    def error(self, kept: Tensor) -> float:
        """|Y - X_S A|^2 over |Y|^2 with the fitted weights A of the kept channels, mask (channels,).

        Where inputs were not sampled, the share of the removed channels' squared norms.
        """
        if self.problem is None:
            return float(self.magnitudes[~kept].sum()) / self.total
        gram, cross, weight = self.problem
        fitted = refitted(gram, cross, weight, kept.repeat_interleave(len(gram) // len(kept)), RIDGE)
        return float(self.total - 2 * (fitted.T * cross).sum() + ((fitted @ gram) * fitted).sum()) / self.total


class Readers:
    """All layers that read a unit together, each by shares of its own output's square."""

    def __init__(self, readers: list[Reader]) -> None:
        self.products = torch.stack([reader.products / reader.total for reader in readers]).sum(0)
        self.target = torch.stack([reader.target / reader.total for reader in readers]).sum(0)
        self.magnitudes = torch.stack([reader.magnitudes for reader in readers]).sum(0)
        self._readers = readers
        self._errors: dict[int, float] = {}

    @cached_property
    def _by_magnitude(self) -> Tensor:
        return self.magnitudes.argsort(descending=True, stable=True)

    def support(self, width: int) -> Tensor:
        """Mask of the `width` channels that are kept, bool (channels,)."""
        certain = width - int(RESTORED_SHARE * width)
        kept = torch.zeros(len(self.target), dtype=torch.bool)
        kept[self._by_magnitude[:certain]] = True
        drops = 2 * (self.target - self.products[:, kept].sum(1)) - self.products.diagonal()
        for _ in range(width - certain):
            best = int(torch.where(kept, -torch.inf, drops).argmax())
            kept[best] = True
            drops = drops - 2 * self.products[:, best]
        return kept

    def error(self, kept: Tensor) -> float:
        """The mean of the layers' relative errors, each with its weights fitted to the kept channels."""
        return sum(reader.error(kept) for reader in self._readers) / len(self._readers)

    def least_width(self, tolerance: float) -> int:
        """The width at which bisection finds the error within the tolerance; the whole unit if no smaller one is."""
        low, high = 0, len(self.target)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._error_at(middle) <= tolerance else (middle, high)
        return high

    def _error_at(self, width: int) -> float:
        if width not in self._errors:
            self._errors[width] = self.error(self.support(width))
        return self._errors[width]


def refitted(gram: Tensor, cross: Tensor, weight: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """The weights (outputs, columns) of the kept columns, by least squares, and zero elsewhere.

    With rows X and outputs Y: argmin |Y - X_S A|^2 = (X_S'X_S)^-1 X_S'Y. The ridge, times the mean diagonal of the Gram
    matrix X'X, pulls towards the weights as they are. kept: mask of the columns.
    """
    inner = gram[kept][:, kept]
    pull = ridge * float(inner.diagonal().mean()) or 1.0
    matrix = inner + pull * torch.eye(len(inner), dtype=gram.dtype, device=gram.device)
    solved = torch.linalg.solve(matrix, cross[kept] + pull * weight[:, kept].T)
    fitted = torch.zeros_like(weight)
    fitted[:, kept] = solved.T
    return fitted

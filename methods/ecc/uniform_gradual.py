"""A control: ECC's schedule, importances and proximal step, towards uniform widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.contract import Properties
from methods.ecc.ecc import ECC, WidthIterate


@dataclass(frozen=True)
class UniformGradual(ECC):
    """ECC without its choice of the unit: at every moment the widths are those of one multiplier.

    The estimated energy takes the path that it takes in ECC, and at each point of the path the widths are the uniform
    ones for that energy. What ECC wins over this control it therefore wins by *which widths*, not by *gradually*.
    (Widths interpolated towards the final uniform ones would end alike but take another path of energy.)
    """

    name: ClassVar[str] = "uniform-gradual"
    title: ClassVar[str] = "Uniform, gradual"
    paper: ClassVar[str] = "Control: ECC's schedule and proximal step towards uniform widths"
    properties: ClassVar[Properties | None] = None

    def choose(self, at: WidthIterate) -> tuple[Tensor, float]:
        """All units whose width max(1, round(c * m)), halves rounded up, is the first to drop as m falls; no z."""
        turn = torch.where(at.s > 1, (at.s - 0.5) / at.upper_bounds, 0.0)  # the least m that still gives s
        return turn >= turn.max() - 1e-12, 0.0

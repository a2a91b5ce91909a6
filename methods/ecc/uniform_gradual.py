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
    """ECC without its choice of units: at every iteration the widths are those of a single multiplier.

    The estimated energy falls as in ECC, and at each iteration the widths are the uniform ones for that energy. So what
    ECC gains over this control it gains by *which widths*, not by *gradually*. (Widths interpolated towards the final
    uniform ones would end at the same widths, but along another path of energy.)
    """

    name: ClassVar[str] = "uniform-gradual"
    title: ClassVar[str] = "Uniform, gradual"
    paper: ClassVar[str] = "Control: ECC's schedule and proximal step towards uniform widths"
    properties: ClassVar[Properties | None] = None

    def choose(self, at: WidthIterate) -> tuple[Tensor, float]:
        """The units whose width max(1, round(c * m)), halves rounded up, drops first as m falls; z is not used."""
        threshold = torch.where(at.s > 1, (at.s - 0.5) / at.upper_bounds, 0.0)  # the least m that still gives s
        return threshold >= threshold.max() - 1e-12, 0.0

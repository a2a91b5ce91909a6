"""ECC with importances that do not depend on the scale of a layer's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.ecc.ecc import ECC, PAPER
from methods.ecc.metric import ChannelNorms
from shared.networks import Structure


@dataclass(frozen=True)
class ECCInvariant(ECC):
    """ECC whose importances are shares of a layer: the sums of w^2 B of Algorithm 2 over their total in the layer.

    The shares are this suite's; schedule, prices and proximal step are ECC's. Why: batch norm lets a layer's weights be
    multiplied by c without a change of the function. Gradients, and with them B, are divided by c then, so the paper's
    sum of w^2 B is multiplied by c. Importances of different units can't be compared, and where a unit's channels cost
    many joules, ECC may drain it to one channel. A share stays the same, up to Adam's eps. It is the derivative of the
    sum over layers of log(sum of w^2 B), so a unit gets dearer as it gets narrow. A unit that several layers read, such
    as a depthwise and a pointwise one, adds their shares.

    It was chosen among such importances on the search split, see `bench.studies.importances`.
    """

    name: ClassVar[str] = "ecc-invariant"
    title: ClassVar[str] = "ECC, invariant"
    paper: ClassVar[str] = f"{PAPER}; importances that do not depend on scale are this suite's"

    def importances(self, model: nn.Module, structure: Structure, optimizer: torch.optim.Adam) -> Callable[[], Tensor]:
        """The shares, float64 (units, largest upper bound); dead channels and padding have none."""
        return ChannelNorms(model, structure, optimizer, shares=True)

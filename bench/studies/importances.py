"""Chooses the importance of `ecc-invariant` on the search split, and writes the table down.

The importance of Algorithm 2, the sum of w² √v over a channel's consumer columns, is not comparable between units:
batch norm lets a layer's weights be scaled by c without a change of the function, and the importance then scales with
c. The candidates here are invariant under that scaling. All else is ECC's. No seed of a page takes part.

    python -m bench.studies.importances reports
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.studies.choices import Choice
from methods.contract import Method
from methods.ecc import ECC, ECCInvariant, UniformGradual
from methods.ecc.metric import ChannelNorms
from shared.networks import Structure


@dataclass(frozen=True)
class Fisher(ECC):
    """Σ w² v: the loss that removing the weights costs, by optimal brain damage with the empirical Fisher diagonal."""

    def importances(self, model: nn.Module, structure: Structure, optimizer: torch.optim.Adam) -> Callable[[], Tensor]:
        return ChannelNorms(model, structure, optimizer, fisher=True)


@dataclass(frozen=True)
class UnitShare(ECC):
    """The importance of `ECC` or of `Fisher` as a share of what the unit has left, all layers that read it together."""

    fisher: bool = False

    def importances(self, model: nn.Module, structure: Structure, optimizer: torch.optim.Adam) -> Callable[[], Tensor]:
        norms = ChannelNorms(model, structure, optimizer, fisher=self.fisher)

        def shares() -> Tensor:
            sums = norms()
            return sums / sums.sum(1, keepdim=True)

        return shares


VARIANTS: dict[str, Method] = {
    "Σ w² √v (ECC)": ECC(),
    "Σ w² v": Fisher(),
    "Σ w² v, share of the unit": UnitShare(fisher=True),
    "Σ w² √v, share of the unit": UnitShare(),
    "Σ w² √v, share of the layer": ECCInvariant(),
    "uniform-gradual": UniformGradual(),
}
# w² v does not depend on a layer's scale, w² √v grows with it: so do its shares of a unit that several layers read
INVARIANT = ("Σ w² v", "Σ w² v, share of the unit", "Σ w² √v, share of the layer")


def _verdict(means: Mapping[str, float]) -> str:
    best = max(INVARIANT, key=lambda name: means[name])
    return (
        f"Candidates are those that the scaling which batch norm undoes leaves alone: {'; '.join(INVARIANT)}. "
        "Σ w² √v as a share of the unit is none: it changes where several layers read the unit, as in MobileNet. "
        f"Chosen among the candidates by the mean: **{best}**."
    )


CHOICE = Choice(
    "importances",
    "The importance of `ecc-invariant`",
    "Columns differ in the importance alone; v is Adam's second moment, corrected for its bias. The last column is the "
    "control.",
    VARIANTS,
    _verdict,
)

if __name__ == "__main__":
    CHOICE.main()

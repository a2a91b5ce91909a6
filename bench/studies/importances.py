"""Chooses the importance of `ecc-invariant` on the search split, and writes the table down.

The importance of Algorithm 2, the sum of w² √v over a channel's consumer columns, is not comparable between units:
batch norm lets a layer's weights be scaled by c without a change of the function, and the importance then scales with
c. The candidates here are invariant under that scaling. All else is ECC's. No seed of a page takes part.

    python -m bench.studies.importances reports
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from bench.report.text import mean_std, table
from bench.setup.request import Request
from bench.studies.trials import planned, scores, trial
from methods.contract import Method
from methods.ecc import ECC, ECCInvariant, UniformGradual
from methods.ecc.metric import ChannelNorms
from shared.cache import atomic_write
from shared.host import print_any_text, usable_cores
from shared.networks import Structure

NAME = "importances"
COLUMNS = ["network", "budget", "variant", "seed", "score"]
COMMON = Request(methods="ecc", protocol="standard", seeds="101,102,103", meter="sim")
REQUESTS = (
    replace(COMMON, network="mobilenet", device="1080ti", budgets="0.45,0.3"),
    replace(COMMON, network="alexnet", device="1080ti", budgets="0.45,0.3"),
)


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


def write(folder: Path, jobs: int, say: Callable[[str], None] = print) -> Path:
    """Run all variants in `jobs` processes and write the page into `folder`; returns its path."""
    trials = [
        trial(plan, replace(job, method=method.name), method)
        for plan in map(planned, REQUESTS)
        for job in plan.jobs
        for method in VARIANTS.values()
    ]
    trials.sort(key=lambda one: one.job.seed)  # so that a stopped study has whole seeds
    found = scores(trials, jobs, folder / f"records/{NAME}.json", say)
    variants = {method: name for name, method in VARIANTS.items()}
    rows = [
        (one.request.network, one.job.budget.name, variants[one.method], one.job.seed, score)
        for one, score in zip(trials, found, strict=True)
        if one.job.budget is not None
    ]
    path = folder / f"{NAME}.md"
    atomic_write(path, page(pd.DataFrame(rows, columns=COLUMNS)).encode())
    return path


def page(scores: pd.DataFrame) -> str:
    """The page. scores: a row per run with COLUMNS; scores are 0..1."""
    cells = scores.groupby(["network", "budget", "variant"], sort=False)["score"]
    texts = cells.agg(lambda column: mean_std(100 * column)).unstack("variant")[list(VARIANTS)]
    means = 100 * cells.mean().groupby("variant").mean()
    rows = [[", ".join(place), *row] for place, row in zip(texts.index, texts.to_numpy().tolist(), strict=True)]
    rows.append(["mean", *(f"{means[name]:.2f}" for name in VARIANTS)])
    best = max(INVARIANT, key=lambda name: float(means[name]))
    seeds = ", ".join(map(str, sorted(scores["seed"].unique())))
    lines = [
        "# The importance of `ecc-invariant`",
        "",
        f"Search accuracy in % after fine-tuning, mean ± sample standard deviation over the seeds {seeds}, which no "
        f"page uses: protocol {COMMON.protocol}, fashion-mnist, simulated 1080ti, budgets as fractions of the dense "
        "joules. Columns differ in the importance alone; v is Adam's second moment, corrected for its bias. The last "
        "column is the control.",
        "",
        table((["network, budget", *VARIANTS], rows)),
        "",
        f"Candidates are those that the scaling which batch norm undoes leaves alone: {'; '.join(INVARIANT)}. "
        "Σ w² √v as a share of the unit is none: it changes where several layers read the unit, as in MobileNet. "
        f"Chosen among the candidates by the mean: **{best}**.",
        "",
        "`python -m bench.studies.importances reports` makes this page.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print_any_text()
    print(write(Path(sys.argv[1]), usable_cores()))

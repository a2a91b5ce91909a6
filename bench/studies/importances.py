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
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bench.report.text import mean_std, table
from bench.setup.plan import make
from bench.setup.request import Request
from bench.studies.trials import Trial, scores
from methods.contract import Method
from methods.ecc import ECC, UniformGradual
from methods.ecc.metric import ChannelNorms
from shared.cache import atomic_write
from shared.host import usable_cores
from shared.networks import Structure

NAME = "importances"
COMMON = Request(methods="ecc", protocol="standard", seeds="101,102,103", meter="sim")
REQUESTS = (
    replace(COMMON, network="mobilenet", device="1080ti", budgets="0.45,0.3"),
    replace(COMMON, network="alexnet", device="1080ti", budgets="0.45,0.3"),
)


def shares(sums: Tensor) -> Tensor:
    """The sums (units, channels) as shares of what their unit has left."""
    return sums / sums.sum(1, keepdim=True).clamp(min=torch.finfo(sums.dtype).tiny)


@dataclass(frozen=True)
class Fisher(ECC):
    """Σ w² v: the loss that removing the weights costs, by optimal brain damage with the empirical Fisher diagonal."""

    divided: ClassVar[bool] = False

    def importances(
        self, model: nn.Module, structure: Structure, optimizer: torch.optim.Adam
    ) -> Callable[[], Tensor]:
        norms = ChannelNorms(model, structure, optimizer, fisher=True)
        return (lambda: shares(norms())) if self.divided else norms


@dataclass(frozen=True)
class FisherShare(Fisher):
    """Σ w² v as a share of what its unit has left."""

    divided: ClassVar[bool] = True


@dataclass(frozen=True)
class AdamShare(ECC):
    """Σ w² √v as a share of what its unit has left."""

    def importances(
        self, model: nn.Module, structure: Structure, optimizer: torch.optim.Adam
    ) -> Callable[[], Tensor]:
        norms = ChannelNorms(model, structure, optimizer)
        return lambda: shares(norms())


VARIANTS: dict[str, Method] = {
    "Σ w² √v (ECC)": ECC(),
    "Σ w² v": Fisher(),
    "Σ w² v, share": FisherShare(),
    "Σ w² √v, share": AdamShare(),
    "uniform-gradual": UniformGradual(),
}
CANDIDATES = list(VARIANTS)[1:4]


def write(folder: Path, jobs: int, say: Callable[[str], None] = print) -> Path:
    """Run all variants in `jobs` processes and write the page into `folder`; returns its path."""
    plans = [(request, make(request, to_train=True).jobs) for request in REQUESTS]
    trials = [
        Trial(request, replace(job, method=method.name), method)
        for request, jobs_of_plan in plans
        for job in jobs_of_plan
        for method in VARIANTS.values()
    ]
    trials.sort(key=lambda trial: trial.job.seed)  # so that a stopped study has whole seeds
    found = scores(trials, jobs, folder / f"records/{NAME}.json", say)
    variants = {method: name for name, method in VARIANTS.items()}
    cells: dict[tuple[Request, str, str], list[float]] = {}
    for trial, score in zip(trials, found, strict=True):
        assert trial.job.budget is not None
        cell = trial.request, trial.job.budget.name, variants[trial.method]
        cells.setdefault(cell, []).append(100 * score)
    path = folder / f"{NAME}.md"
    atomic_write(path, page(cells).encode())
    return path


def page(cells: dict[tuple[Request, str, str], list[float]]) -> str:
    """The page. cells: (request, budget, variant) -> search scores in % over the seeds."""
    rows = [
        [f"{request.network}, {budget}", *(mean_std(cells[request, budget, variant]) for variant in VARIANTS)]
        for request, budget in dict.fromkeys((request, budget) for request, budget, _ in cells)
    ]
    means = {name: np.mean([np.mean(cells[key]) for key in cells if key[2] == name]) for name in VARIANTS}
    rows.append(["mean", *(f"{mean:.2f}" for mean in means.values())])
    best = max(CANDIDATES, key=lambda name: means[name])
    lines = [
        "# The importance of `ecc-invariant`",
        "",
        f"Search accuracy in % after fine-tuning, mean ± sample standard deviation over seeds {COMMON.seeds}, which no "
        f"page uses: protocol {COMMON.protocol}, fashion-mnist, simulated 1080ti, budgets as fractions of the dense "
        "joules. Rows differ in a_i alone; v is Adam's second moment, corrected for its bias, and a share is of what "
        "the unit has left. The first candidate is not invariant, the last column is the control.",
        "",
        table((["network, budget", *VARIANTS], rows)),
        "",
        f"Chosen among the invariant ones by the mean: **{best}**.",
        "",
        "`python -m bench.studies.importances reports` makes this page.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), usable_cores()))

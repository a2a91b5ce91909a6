"""What landing before fine-tuning is worth: the same networks, cut further by 5 % before it and after it.

A network that a platform reads above its budget has to lose channels, and the harness takes them before fine-tuning.
This study shows what taking them afterwards would cost. Methods compress to the protocol's tightest budget; from each
returned network, channels go by the landing rule until it is read at 95 % of what it was, once before and once after
the same fine-tuning. Scores are of the search split: the comparison alone looks at test images.

    python -m bench.studies.early_landing reports
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from bench.run import landing, rules
from bench.run.fine_tuning import fine_tune
from bench.run.processes import compute_on_one_thread
from bench.run.stages import make_task
from bench.run.teacher import live
from bench.setup.plan import Job, make
from bench.setup.request import Request
from bench.setup.setup import Setup, reopen
from bench.studies.trials import at_tightest, compressed
from methods import registry
from methods.contract import Task
from shared.cache import atomic_write
from shared.host import print_any_text, usable_cores
from shared.ledger import Ledger
from shared.networks import structure
from shared.training import first_batches, recalibrate_batch_norm, score

REQUEST = Request(methods="ecc,amc,uniform", seeds="0,1,2", meter="sim")
SHARE = 0.95  # of a network's reading that is left after the cut
PAGE = "early-landing.md"


class Scores(NamedTuple):
    """Search scores of a network and of what is left of it, 0..1, after fine-tuning and whatever follows that."""

    whole: float
    cut_before: float
    cut_after: float
    removed: tuple[int, int]  # channels that went before and after

    @property
    def gain(self) -> float:
        """Of cutting before, over cutting after."""
        return self.cut_before - self.cut_after


def compare(job: Job, setup: Setup, task: Task) -> Scores:
    """Run the job's method, then cut and fine-tune the network in both orders."""
    network = compressed(registry.get(job.method), task)
    early = _cut(network, setup, task)
    whole = copy.deepcopy(network)
    for small in (early, whole):
        fine_tune(small, task, Ledger(task.protocol.fine_tune_iterations))
    late = _cut(whole, setup, task)
    channels = [sum(structure(small).upper_bounds) for small in (network, early, late)]
    removed = (channels[0] - channels[1], channels[0] - channels[2])
    scores = [score(small, setup.dataset.search) for small in (whole, early, late)]
    return Scores(scores[0], scores[1], scores[2], removed)


def _cut(network: nn.Module, setup: Setup, task: Task) -> nn.Module:
    """A copy that lost channels by the landing rule until it is read at SHARE of the network's reading."""
    small = copy.deepcopy(network)
    reading = landing.land(small, float("inf"), setup).before.amount
    landing.cut_to(small, landing.land(small, SHARE * reading, setup).widths)
    small = rules.cut(small, task.train)
    recalibrate_batch_norm(small, first_batches(task.train, task.protocol.recalibration_batches))
    return small


def write(request: Request, folder: Path, jobs: int, say: Callable[[str], None] = print) -> Path:
    """Compare in `jobs` processes and write the page into `folder`; returns its path."""
    plan = make(request, to_train=True)
    chosen = at_tightest(plan)
    scores = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), compute_on_one_thread) as pool:
        for job, one in zip(chosen, pool.map(_work, [request] * len(chosen), chosen), strict=True):
            scores[job] = one
            say(f"{job.name}: {100 * one.gain:+.2f} points")
    path = folder / PAGE
    atomic_write(path, page(plan.setup, scores).encode())
    return path


def _work(request: Request, job: Job) -> Scores:
    setup = reopen(request)
    return compare(job, setup, make_task(job, setup, live(setup.dense.network)))


def page(setup: Setup, scores: dict[Job, Scores]) -> str:
    """The page: every pair, and each method's mean gain with its standard error over seeds."""
    request, budget = setup.request, next(iter(scores)).budget
    assert budget is not None
    name = setup.dataset.objective.score_name
    lines = [
        "# Landing before fine-tuning or after it",
        "",
        f"Networks of {request.network} on {request.dataset}, compressed to {budget.fraction:.3g} of the dense reading "
        f"({request.device}, {setup.platform.source}; protocol {setup.protocol.name}), lose channels by the landing "
        f"rule until they are read at {SHARE:.0%} of what they were: once before fine-tuning, once after it. The "
        f"iterations of fine-tuning are the same. Scores are {name} in % on the search split after all that.",
        "",
        "| method | seed | not cut | cut before | cut after | gain, points | channels before, after |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for job, one in scores.items():
        whole, before, after, gain = (
            f"{100 * share:.2f}" for share in (one.whole, one.cut_before, one.cut_after, one.gain)
        )
        removed = ", ".join(map(str, one.removed))
        lines.append(f"| {job.method} | {job.seed} | {whole} | {before} | {after} | {gain} | {removed} |")
    lines += ["", "| method | mean gain, points | standard error | seeds |", "| --- | ---: | ---: | ---: |"]
    for method in dict.fromkeys(job.method for job in scores):
        gains = 100 * np.array([one.gain for job, one in scores.items() if job.method == method])
        error = f"{gains.std(ddof=1) / len(gains) ** 0.5:.2f}" if len(gains) > 1 else "–"
        lines.append(f"| {method} | {gains.mean():+.2f} | {error} | {len(gains)} |")
    return "\n".join([*lines, "", "`python -m bench.studies.early_landing reports` makes this page.", ""])


if __name__ == "__main__":
    print_any_text()
    print(write(REQUEST, Path(sys.argv[1]), usable_cores()))

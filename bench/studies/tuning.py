"""Chooses one learning rate per protocol on the search split (a validation split), and writes the grid down.

With a rate far too small for the protocol's iterations, gradual methods score many points above one-shot ones. So the
chosen rate is the one with the highest mean search accuracy over the controls, one-shot and gradual. No method that the
benchmark compares takes part.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bench.run.fine_tuning import fine_tune
from bench.run.processes import compute_on_one_thread
from bench.run.stages import make_task
from bench.run.teacher import live
from bench.setup.plan import Job, Plan, make
from bench.setup.request import Request
from bench.setup.setup import reopen
from bench.studies.compressing import at_tightest, compressed
from shared.cache import atomic_write
from shared.ledger import Ledger
from shared.training import score

GRID = (3e-4, 1e-3, 2e-3, 4e-3, 8e-3)
CONTROLS = "uniform,uniform-gradual"


def tune(request: Request, *, jobs: int, folder: Path, console: Console) -> None:
    """Run the controls at the protocol's tightest budget over GRID and write the page of the grid into `folder`.

    The page is `learning-rate-<protocol>.md` for MobileNet, else `learning-rate-<protocol>-<network>.md`. The request's
    methods are ignored.
    """
    request = replace(request, methods=CONTROLS)
    plan = make(request, to_train=True)
    chosen = [job for job in at_tightest(plan) if job.seed == plan.jobs[0].seed]
    tasks = [(request, job, rate) for rate in GRID for job in chosen]
    context = multiprocessing.get_context("spawn")
    console.print(f"{len(tasks)} runs of the controls on {jobs} processes", highlight=False)
    scores: dict[tuple[str, float], float] = {}
    with ProcessPoolExecutor(jobs, context, compute_on_one_thread) as pool:
        for (_, job, rate), score in zip(tasks, pool.map(_score, *zip(*tasks, strict=True)), strict=True):
            scores[job.method, rate] = score
            console.print(f"{job.method} at {rate:g}: {100 * score:.2f} % on search", highlight=False)
    page = _page(plan, chosen, scores)
    network = "" if request.network == Request.network else f"-{request.network}"
    path = folder / f"learning-rate-{request.protocol}{network}.md"
    atomic_write(path, page.encode())
    console.print(page, highlight=False)
    console.print(f"written to {path}", highlight=False)


def _score(request: Request, job: Job, rate: float) -> float:
    """Search accuracy after compression and fine-tuning at learning rate `rate`."""
    setup = reopen(request)
    protocol = replace(setup.protocol, learning_rate=rate)
    task = make_task(job, replace(setup, protocol=protocol), live(setup.dense.network))
    small = compressed(job, task)
    fine_tune(small, task, Ledger(protocol.fine_tune_iterations))
    return score(small, setup.dataset.search)


def _page(plan: Plan, jobs: list[Job], scores: dict[tuple[str, float], float]) -> str:
    methods = [job.method for job in jobs]
    means = {rate: sum(scores[method, rate] for method in methods) / len(methods) for rate in GRID}
    best = max(means, key=lambda rate: means[rate])
    budget = jobs[0].budget
    assert budget is not None
    request = plan.setup.request
    network = "" if request.network == Request.network else f" for {request.network}"
    lines = [
        f"# Learning rate of the protocol `{plan.setup.protocol.name}`{network}",
        "",
        f"Search accuracy in % after compression and fine-tuning at {budget.fraction:.3g} of the dense joules "
        f"({request.network} on {request.dataset}, {request.device}, {plan.setup.platform.source}), "
        f"seed {jobs[0].seed}. Only controls take part; the chosen rate holds for every method.",
        "",
        "| learning rate | " + " | ".join(methods) + " | mean |",
        "| ---: |" + " ---: |" * (len(methods) + 1),
    ]
    for rate in GRID:
        cells = [f"{100 * scores[method, rate]:.2f}" for method in methods] + [f"{100 * means[rate]:.2f}"]
        mark = " (best)" if rate == best else ""
        lines.append(f"| {rate:g}{mark} | " + " | ".join(cells) + " |")
    edge = " It lies on the edge of the grid: widen the grid." if best in (GRID[0], GRID[-1]) else ""
    lines += ["", f"Chosen: {best:g}.{edge}", ""]
    return "\n".join(lines)

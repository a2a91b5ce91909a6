"""Trials of studies: what a method's network scores on the search split after compression and fine-tuning.

The comparison alone looks at test images. Scores are kept in a JSON file as they come, so a stopped study goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

from bench.run import rules
from bench.run.fine_tuning import fine_tune
from bench.run.processes import compute_on_one_thread
from bench.run.stages import make_task
from bench.run.teacher import live
from bench.setup.fingerprints import code_fingerprint, method_fingerprint
from bench.setup.plan import Job, Plan, make
from bench.setup.request import Request
from bench.setup.setup import reopen
from methods.contract import Infeasible, Method, Task
from shared.cache import atomic_write, content_key
from shared.ledger import Ledger
from shared.rng import forked
from shared.training import first_batches, recalibrate_batch_norm, score


@dataclass(frozen=True)
class Trial:
    """A method at a job of a plan; the job's method is its name in figures. rate: None for the protocol's.

    shared: hash of the plan's dense weights, images and energy model at the job's budget.
    """

    request: Request
    job: Job
    method: Method
    rate: float | None
    shared: str

    @property
    def key(self) -> str:
        """Content key of all that decides the score."""
        return content_key(
            replace(self.request, methods="", seeds=None).command,
            asdict(self.job),
            [type(self.method).__qualname__, {name: str(value) for name, value in vars(self.method).items()}],
            method_fingerprint(self.method),
            self.rate,
            self.shared,
            code_fingerprint(),
            torch.__version__,
        )

    @property
    def name(self) -> str:
        """For a person."""
        return self.job.name + ("" if self.rate is None else f" at {self.rate:g}")


def trial(plan: Plan, job: Job, method: Method, rate: float | None = None) -> Trial:
    """The trial of a method at a job of a plan whose setup has its dense weights."""
    setup = plan.setup
    model = setup.model(job.budget).to_dict()
    return Trial(
        setup.request, job, method, rate, content_key(setup.dense.fingerprint, setup.dataset.fingerprint, model)
    )


def planned(request: Request) -> Plan:
    """The plan of a request, its setup with dense weights."""
    plan = make(request, to_train=True)
    return replace(plan, setup=plan.setup.with_dense_weights())


def scores(trials: Sequence[Trial], jobs: int, file: Path, say: Callable[[str], None]) -> list[float | None]:
    """The search score, 0..1, of every trial, in `jobs` processes; known ones are taken from `file`.

    None where a method can't reach the budget or its training diverges. Another error ends the study at once; what is
    known by then is kept.
    """
    known: dict[str, float | None] = json.loads(file.read_bytes()) if file.exists() else {}
    missing = [trial for trial in trials if trial.key not in known]
    say(f"{len(missing)} of {len(trials)} runs are to be done, on {jobs} processes")
    with ProcessPoolExecutor(jobs, get_context("spawn"), compute_on_one_thread) as pool:
        waiting = {pool.submit(_score, trial): trial for trial in missing}
        try:
            for done in as_completed(waiting):
                key, score = waiting[done].key, done.result()
                known[key] = score
                atomic_write(file, json.dumps(known, indent=1, sort_keys=True).encode() + b"\n")
                say(f"{waiting[done].name}: " + ("a miss" if score is None else f"{100 * score:.2f} % on search"))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [known[trial.key] for trial in trials]


def at_tightest(plan: Plan) -> list[Job]:
    """The jobs at the tightest budget of each method: those that remove weights have budgets of their own."""
    tightest: dict[str, float] = {}
    for job in plan.jobs:
        if job.budget is not None:
            tightest[job.method] = min(job.budget.amount, tightest.get(job.method, math.inf))
    return [job for job in plan.jobs if job.budget is not None and job.budget.amount == tightest[job.method]]


def compressed(method: Method, task: Task) -> nn.Module:
    """The cut network that a method returns, with recalibrated batch norm."""
    with forked(task.seed, method.name):
        outcome = method.run(task)
    small = rules.cut(outcome.network, task.train)
    recalibrate_batch_norm(small, first_batches(task.train, task.protocol.recalibration_batches))
    return small


def _score(trial: Trial) -> float | None:
    setup = reopen(trial.request)
    protocol = setup.protocol if trial.rate is None else replace(setup.protocol, learning_rate=trial.rate)
    task = make_task(trial.job, replace(setup, protocol=protocol), live(setup.dense.network))
    try:
        small = compressed(trial.method, task)
    except (Infeasible, FloatingPointError):
        return None
    fine_tune(small, task, Ledger(protocol.fine_tune_iterations))
    return score(small, setup.dataset.search)

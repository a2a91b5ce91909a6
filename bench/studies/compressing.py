"""What studies share that compress networks beside a plan: its tightest jobs, and a method's network."""

from __future__ import annotations

from torch import nn

from bench.run import rules
from bench.setup.plan import Job, Plan
from methods import registry
from methods.contract import Task
from shared.rng import forked
from shared.training import recalibrate_batch_norm


def at_tightest(plan: Plan) -> list[Job]:
    """The plan's jobs at its tightest budget."""
    tightest = min(job.budget.amount for job in plan.jobs if job.budget is not None)
    return [job for job in plan.jobs if job.budget is not None and job.budget.amount == tightest]


def compressed(job: Job, task: Task) -> nn.Module:
    """The cut network that the job's method returns, with recalibrated batch norm."""
    with forked(job.seed, job.method):
        outcome = registry.get(job.method).run(task)
    small = rules.cut(outcome.network, task.train)
    recalibrate_batch_norm(small, task.train, task.protocol.recalibration_batches)
    return small

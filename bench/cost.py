"""What a plan will cost, said before it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from bench import dense, harness
from bench.plan import Ground, Job, Plan
from bench.progress import minutes
from methods import registry


@dataclass(frozen=True)
class Cost:
    """Counts over all jobs, and estimated seconds of one process per job."""

    training_iterations: int
    fine_tune_iterations: int
    search_samples: int
    job_seconds: dict[Job, float]

    def describe(self, jobs: int) -> str:
        """One line for a person, with the wall time on `jobs` processes."""
        seconds = max(sum(self.job_seconds.values()) / jobs, max(self.job_seconds.values(), default=0.0))
        return (
            f"{len(self.job_seconds)} runs: {self.training_iterations:,} training iterations, "
            f"{self.fine_tune_iterations:,} of fine-tuning, up to about {self.search_samples:,} search samples; "
            f"about {minutes(seconds)} on {jobs} processes"
        )


def estimate(plan: Plan, jobs: list[Job] | tuple[Job, ...]) -> Cost:
    """Time a distillation step and a forward pass of the dense network on one thread, and multiply.

    Fine-tuning is counted at the dense network's price, which is more than a cut network takes. Search samples are
    what each method expects at most for the job's own budget.
    """
    protocol = plan.ground.protocol
    step_s, forward_s = _prices(plan.ground)
    samples = {job: _search_samples(job, plan.ground) for job in jobs}
    training = (protocol.iterations + protocol.fine_tune_iterations) * step_s
    return Cost(
        training_iterations=len(jobs) * protocol.iterations,
        fine_tune_iterations=len(jobs) * protocol.fine_tune_iterations,
        search_samples=sum(samples.values()),
        job_seconds={job: training + samples[job] * forward_s for job in jobs},
    )


def _search_samples(job: Job, ground: Ground) -> int:
    budgets = ground.protocol.budgets if job.budget is None else (job.budget.fraction,)
    expected = registry.get(job.method).search_samples(replace(ground.protocol, budgets=budgets), ground.structure)
    return max(0, expected)


@lru_cache(maxsize=1)  # a plan is priced as a whole and again for what is left of it
def _prices(ground: Ground) -> tuple[float, float]:
    """Seconds of a distillation step, and of a forward pass per search image."""
    protocol = ground.protocol
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = ground.computing.device
        network = dense.untrained(ground.workload).to(device)
        stream = ground.dataset.train.stream(0, protocol.batch_size)
        shape = (protocol.batch_size, ground.structure.outputs, *ground.dataset.label_shape)
        zeros = torch.zeros(shape, device=device)
        return harness.unit_costs(network, stream, lambda index, images: zeros, ground)
    finally:
        torch.set_num_threads(threads)

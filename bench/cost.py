"""What a plan will cost, said before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from bench import dense, harness, readings, repair, teacher
from bench.plan import Ground, Job, Plan
from bench.progress import minutes
from methods import registry
from shared.data import in_files
from shared.platforms import Hardware

TIMED_PIXELS = 2**19  # of the batch that is timed: ten images of ImageNet, one of Cityscapes


@dataclass(frozen=True)
class Cost:
    """Counts over all jobs, and estimated seconds of one process per job."""

    training_iterations: int
    fine_tune_iterations: int
    search_samples: int
    job_seconds: dict[Job, float]
    reading_s: float = 0.0  # at most, on hardware, when all are trained

    def describe(self, jobs: int) -> str:
        """One line for a person, with the wall time on `jobs` processes."""
        seconds = max(sum(self.job_seconds.values()) / jobs, max(self.job_seconds.values(), default=0.0))
        return (
            f"{len(self.job_seconds)} runs: {self.training_iterations:,} training iterations, "
            f"{self.fine_tune_iterations:,} of fine-tuning, up to about {self.search_samples:,} search samples; "
            f"about {minutes(seconds)} on {jobs} processes"
            + (f", then at most about {minutes(self.reading_s)} of readings" if self.reading_s else "")
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
        reading_s=_reading_s(plan, len(jobs)),
    )


def _reading_s(plan: Plan, count: int) -> float:
    """At most: one pass over the networks and the dense one; with repair one more after each round of it, in which
    every network is read with each of its units halved, and then halved to its place beside what it was.
    """
    platform = plan.ground.platform
    if not isinstance(platform, Hardware):
        return 0.0
    pass_s = platform.full.limit_s * (1 + count)
    bounds = plan.ground.structure.upper_bounds
    short = 1 + len(bounds) + repair.CLOSER * 2 * (1 + math.ceil(math.log2(sum(bounds))))
    round_s = pass_s + count * short * platform.short.limit_s
    return pass_s + (readings.REPAIRS * round_s if plan.request.repair else 0.0)


def _search_samples(job: Job, ground: Ground) -> int:
    budgets = ground.protocol.budgets if job.budget is None else (job.budget.fraction,)
    images = min(ground.protocol.search_images, len(ground.dataset.search))
    protocol = replace(ground.protocol, budgets=budgets, search_images=images)
    return max(0, registry.get(job.method).search_samples(protocol, ground.structure))


def missing_weights(plan: Plan) -> str | None:
    """What a person is told where the dense weights have to be loaded or trained before the first run."""
    ground, files = plan.ground, in_files(plan.ground.workload.dataset)
    if dense.find(ground.workload, ground.dataset) is not None:
        return None
    recipe, work = dense.recipe_of(ground.workload), ground.workload
    step_s, _ = _prices(ground)
    seconds = recipe.iterations * step_s * recipe.batch_size / ground.protocol.batch_size
    passes = recipe.iterations * recipe.batch_size / len(ground.dataset.train)
    training = "which `run` asks for; without --weights it trains them" if files else "else `run` trains them first"
    return (
        f"no dense weights of {work.network} on {work.dataset} yet: {dense.loading(work)} loads trained ones"
        f"{',' if files else ';'} {training}, {recipe.iterations:,} iterations of batch {recipe.batch_size}, "
        f"{passes:,.1f} passes over the images, about {minutes(seconds)} more"
    )


def without_data(plan: Plan) -> str:
    """What a person is told where a data set stands in for that in files."""
    work = plan.ground.workload
    return (
        f"no --data: prices are for as many images as {work.dataset} has, without the time to read them, and `run` "
        f"wants dense weights first, by {dense.loading(work)}"
    )


@lru_cache(maxsize=1)  # a plan is priced as a whole and again for what is left of it
def _prices(ground: Ground) -> tuple[float, float]:
    """Seconds of a distillation step, and of a forward pass per search image.

    Where a batch has very many pixels for a processor, a part of it is timed and the step is as many times as long.
    That is too much where weights cost more than pixels (AlexNet on ImageNet: 1.7 times), since Adam's share stays.
    """
    whole, (_, height, width) = ground.protocol.batch_size, ground.dataset.input_shape
    tabled = len(teacher.chunks(ground)) > 0
    part = min(whole, max(1, TIMED_PIXELS // (height * width))) if ground.computing.device.type == "cpu" else whole
    if part < whole:
        images = min(part, ground.protocol.search_images)
        ground = replace(ground, protocol=replace(ground.protocol, batch_size=part, search_images=images))
    protocol = ground.protocol
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = ground.computing.device
        network = dense.untrained(ground.workload).to(device)
        stream = ground.dataset.train.stream(0, protocol.batch_size)
        shape = (protocol.batch_size, ground.structure.outputs, *ground.dataset.label_shape)
        zeros = torch.zeros(shape, device=device)
        step_s, forward_s = harness.unit_costs(network, stream, lambda index, images: zeros, ground)
    finally:
        torch.set_num_threads(threads)
    if not tabled:  # the dense network answers beside each step
        step_s += part * forward_s
    return step_s * whole / part, forward_s

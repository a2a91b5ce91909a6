"""Estimates what a plan will cost before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from bench.run import teacher
from bench.run.progress import minutes
from bench.run.timing import unit_costs
from bench.setup import dense
from bench.setup.plan import Job, Plan
from bench.setup.setup import Setup
from methods import registry
from shared.data import in_files
from shared.training import Feed

TIMED_PIXELS = 2**19  # largest batch that is timed on a processor: ten images of ImageNet, one of Cityscapes


@dataclass(frozen=True)
class Cost:
    """Counts and seconds of a plan's jobs."""

    training_iterations: int  # of all jobs together, like the other counts
    fine_tune_iterations: int
    search_samples: int
    job_seconds: dict[Job, float]  # estimate for one process on one thread
    reading_s: float = 0.0  # upper bound of the platform's readings on hardware, for landing and at the end

    def describe(self, jobs: int) -> str:
        """One line for the user, with the wall time on `jobs` processes."""
        seconds = max(sum(self.job_seconds.values()) / jobs, max(self.job_seconds.values(), default=0.0))
        return (
            f"{len(self.job_seconds)} runs: {self.training_iterations:,} training iterations, "
            f"{self.fine_tune_iterations:,} of fine-tuning, up to about {self.search_samples:,} search samples; "
            f"about {minutes(seconds)} on {jobs} processes"
            + (f", then at most about {minutes(self.reading_s)} of readings" if self.reading_s else "")
        )


def estimate(plan: Plan, jobs: Sequence[Job]) -> Cost:
    """Time a distillation step and a forward pass of the dense network on one thread, and multiply.

    Fine-tuning counts at the dense network's price, which is above a cut network's. Search samples are the most that
    each method announces for the job's budget.
    """
    protocol = plan.setup.protocol
    step_s, forward_s = _prices(plan.setup)
    samples = {job: _search_samples(job, plan.setup) for job in jobs}
    training = (protocol.iterations + protocol.fine_tune_iterations) * step_s
    return Cost(
        training_iterations=len(jobs) * protocol.iterations,
        fine_tune_iterations=len(jobs) * protocol.fine_tune_iterations,
        search_samples=sum(samples.values()),
        job_seconds={job: training + samples[job] * forward_s for job in jobs},
        reading_s=reading_s(plan.setup, len(jobs)),
    )


def reading_s(setup: Setup, count: int) -> float:
    """The most seconds that reading `count` networks takes: a bisection to land each, then one pass over all."""
    group, at_once = setup.platform.channel_group, setup.platform.at_once
    removals = sum(math.ceil(bound / group) + min(bound, group) for bound in setup.structure.upper_bounds)
    rounds = 2 + math.ceil(math.log(removals, at_once + 1))  # both ends of the path, then bisection
    return count * rounds * setup.platform.reading_s(at_once, "landing") + setup.platform.reading_s(count)


def _search_samples(job: Job, setup: Setup) -> int:
    budgets = setup.protocol.budgets if job.budget is None else (job.budget.fraction,)
    images = min(setup.protocol.search_images, len(setup.dataset.search))
    protocol = replace(setup.protocol, budgets=budgets, search_images=images)
    return max(0, registry.get(job.method).search_samples(protocol, setup.structure))


def missing_weights(plan: Plan) -> str | None:
    """A hint for the user where there are no dense weights yet: how to load them, what training takes; else None."""
    setup, files = plan.setup, in_files(plan.setup.workload.dataset)
    if dense.find(setup.workload, setup.dataset) is not None:
        return None
    recipe, work = dense.recipe_of(setup.workload), setup.workload
    step_s, _ = _prices(setup)
    seconds = recipe.iterations * step_s * recipe.batch_size / setup.protocol.batch_size
    passes = recipe.iterations * recipe.batch_size / len(setup.dataset.train)
    training = "which `run` asks for; without --weights it trains them" if files else "else `run` trains them first"
    return (
        f"no dense weights of {work.network} on {work.dataset} yet: {dense.loading(work)} loads trained ones"
        f"{',' if files else ';'} {training}, {recipe.iterations:,} iterations of batch {recipe.batch_size}, "
        f"{passes:,.1f} passes over the images, about {minutes(seconds)} more"
    )


def without_data(plan: Plan) -> str:
    """A remark for the user where a plan without --data takes blank images for a data set in files."""
    work = plan.setup.workload
    return (
        f"no --data: prices are for as many images as {work.dataset} has, without the time to read them, and `run` "
        f"wants dense weights first, by {dense.loading(work)}"
    )


@lru_cache(maxsize=1)  # missing_weights and estimate ask for the same setup
def _prices(setup: Setup) -> tuple[float, float]:
    """Seconds of a distillation step, and of a forward pass per search image.

    On a processor, of a batch above TIMED_PIXELS only a part is timed, and the result is scaled up. That overestimates
    steps whose cost lies in the weights, which Adam updates once per step (AlexNet on ImageNet: 1.7 times).
    """
    whole, (_, height, width) = setup.protocol.batch_size, setup.dataset.input_shape
    tabled = len(teacher.chunks(setup)) > 0
    part = min(whole, max(1, TIMED_PIXELS // (height * width))) if setup.computing.device.type == "cpu" else whole
    if part < whole:
        images = min(part, setup.protocol.search_images)
        setup = replace(setup, protocol=replace(setup.protocol, batch_size=part, search_images=images))
    protocol = setup.protocol
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = setup.computing.device
        network = dense.untrained(setup.workload).to(device)
        stream = setup.dataset.train.stream(0, protocol.batch_size)
        shape = (protocol.batch_size, setup.structure.outputs, *setup.dataset.label_shape)
        zeros = torch.zeros(shape, device=device)
        step_s, forward_s = unit_costs(network, Feed(stream, lambda index, images: zeros), setup)
    finally:
        torch.set_num_threads(threads)
    if not tabled:  # the dense network computes its logits in each step
        step_s += part * forward_s
    return step_s * whole / part, forward_s

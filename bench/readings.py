"""Readings of a plan's networks on hardware, when all trainings are done and nothing of ours computes beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bench.dense import DenseWeights
from bench.harness import Result
from bench.plan import Ground, Job, Plan
from bench.record import Measures, Repair
from shared.energy.budget import BudgetTooSmallError
from shared.energy.greedy import greedy_widths
from shared.meters import Reading
from shared.networks import compact, importance, structure, zero_channels
from shared.networks.ranking import weakest_channels
from shared.platforms import MeasuredPlatform, Subject
from shared.training import recalibrate_batch_norm, score

Say = Callable[[str], None]
Widths = tuple[int, ...]

REPAIR_TRIES = 12
LEAST_STEP = 0.01  # a try aims at least this much lower than the one before


def read_again(plan: Plan, dense: DenseWeights, results: dict[Job, Result], say: Say) -> dict[Job, Result]:
    """The results with readings of their networks, and repaired ones where the plan asks for it.

    All networks and the dense one are read in turns, so that a drift meets all alike; equal widths are read once. After
    a repair everything is read once more: what a record says was not chosen for having been low once.
    Raises MeterError when the sensor fails.
    """
    found = {job: result.record.measures for job, result in results.items() if result.record.measures is not None}
    dense_again, readings = _read(plan.ground, [measures.widths for measures in found.values()], say)
    repaired: dict[Job, Result] = {}
    if plan.request.repair:
        for job, measures in found.items():
            if job.budget is not None and readings[measures.widths].amount > job.budget.amount:
                repaired[job] = _repaired(job, results[job], readings[measures.widths], plan, dense, say)
    if repaired:
        of_all = [result.record.measures.widths for job, result in (results | repaired).items() if job in found]  # type: ignore[union-attr]
        dense_again, readings = _read(plan.ground, of_all, say)
    return {job: _with_reading(result, dense_again, readings) for job, result in (results | repaired).items()}


def _platform(ground: Ground) -> tuple[MeasuredPlatform, Subject]:
    assert isinstance(ground.platform, MeasuredPlatform), "simulated readings are taken in the run"
    return ground.platform, Subject(ground.structure, ground.workload.build)


def _read(ground: Ground, widths: list[Widths], say: Say) -> tuple[float, dict[Widths, Reading]]:
    """The dense network's reading per image, and one of each of the distinct `widths`."""
    platform, subject = _platform(ground)
    distinct = list(dict.fromkeys(widths))
    limit_min = platform.full.limit_s * (1 + len(distinct)) / 60
    say(f"reading the dense network and {len(distinct)} cut ones in turns, at most about {limit_min:.0f} min")
    rows = [ground.structure.upper_bounds, *distinct]
    first, *others = platform.read(subject, rows, ground.inference_batch, platform.full)
    return first.amount, dict(zip(distinct, others, strict=True))


def _with_reading(result: Result, dense_again: float, readings: dict[Widths, Reading]) -> Result:
    measures = result.record.measures
    if measures is None:
        return result
    reading = readings[measures.widths]
    told = {"reading": reading.amount, "interval": reading.interval, "flags": reading.flags}
    update = {"measures": measures.model_copy(update=told), "dense_again": dense_again}
    return replace(result, record=result.record.model_copy(update=update))


def _repaired(job: Job, result: Result, reading: Reading, plan: Plan, dense: DenseWeights, say: Say) -> Result:
    """The run's network cut on until a short reading, its interval included, is within the budget.

    Nothing is trained any more, so iterations stay equal; batch norm's statistics are taken anew as for everyone. What
    can't be repaired stays as it was.
    """
    assert job.budget is not None and result.weights is not None and result.record.measures is not None
    ground, measures = plan.ground, result.record.measures
    platform, subject = _platform(ground)
    small = dense.at(measures.widths)
    small.load_state_dict(result.weights)
    anatomy = structure(small)
    norms = importance(small, anatomy)
    target = measures.estimate * job.budget.amount / reading.amount
    for _ in range(REPAIR_TRIES):
        try:
            widths = greedy_widths(norms, measures.widths, _estimate(ground), _savings(ground), target)
        except BudgetTooSmallError:
            break
        short = platform.read(subject, [widths], ground.inference_batch, platform.short)[0]
        say(f"repair of {job.name}: {short.amount / job.budget.amount - 1:+.1%} to its budget")
        if short.interval[1] <= job.budget.amount:
            zero_channels(small, anatomy, weakest_channels(norms, widths, anatomy.upper_bounds))
            return _rewritten(result, _cut(small, job, ground), measures, reading, ground)
        target *= min(1 - LEAST_STEP, job.budget.amount / short.interval[1])
    say(f"{job.name} could not be repaired in {REPAIR_TRIES} tries")
    return result


def _estimate(ground: Ground) -> Callable[[torch.Tensor], float]:
    return lambda widths: float(ground.fit.model(ground.structure.positions(widths)))


def _savings(ground: Ground) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda widths: ground.fit.model.gradient(ground.structure.positions(widths))[1:-1]


def _cut(network: nn.Module, job: Job, ground: Ground) -> nn.Module:
    small = compact(network).to(memory_format=torch.channels_last)
    stream = ground.dataset.train.stream(job.seed, ground.protocol.batch_size)
    recalibrate_batch_norm(small, (stream.batch(index) for index in range(ground.protocol.recalibration_batches)))
    return small


def _rewritten(result: Result, small: nn.Module, before: Measures, reading: Reading, ground: Ground) -> Result:
    """The result with the repaired network's figures; its reading is still to be taken."""
    anatomy = structure(small)
    widths = anatomy.upper_bounds
    told: dict[str, Any] = {
        "widths": widths,
        "estimate": _estimate(ground)(torch.tensor(widths)),
        "parameters": int(anatomy.parameters(widths)),
        "macs": int(anatomy.macs(widths)),
        "accuracy_after": score(small, ground.dataset.test),
    }
    repair = Repair(
        widths=before.widths,
        estimate=before.estimate,
        reading=reading.amount,
        accuracy_after=before.accuracy_after,
        removed_channels=sum(before.widths) - sum(widths),
    )
    update = {"measures": before.model_copy(update=told), "repair": repair, "network": dict(small.config)}  # type: ignore[arg-type]
    weights = {name: value.contiguous() for name, value in small.state_dict().items()}
    return Result(result.record.model_copy(update=update), weights)

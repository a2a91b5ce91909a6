"""Readings of a plan's networks on hardware, when all trainings are done and nothing of ours computes beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from bench.dense import DenseWeights
from bench.harness import Result
from bench.plan import Ground, Job, Plan
from bench.progress import minutes
from bench.record import FirstPass, Measures, Record, Repair
from bench.rules import cut
from shared.energy.greedy import removals
from shared.meters.reading import Held, Reading
from shared.networks import importance, structure, zero_channels
from shared.networks.ranking import weakest_channels
from shared.platforms import Hardware, Subject
from shared.training import recalibrate_batch_norm, score

Say = Callable[[str], None]
Widths = tuple[int, ...]

REPAIRS = 3  # at most of a network: each is followed by a reading of all, which may again find it above
REPAIR_PRECISION = 50  # repair takes up to this part of its steps more than it has to
TOGETHER = (
    8  # channels go down to multiples of this, on which vector and matrix units work: one less saves them nothing
)


class _Pass(NamedTuple):
    """One pass over all networks: the dense one's reading per image, and one of each distinct widths."""

    dense: Reading
    cut: dict[Widths, Reading]

    def held(self, result: Result, ground: Ground) -> Held:
        """The reading of a result's network, held against the dense one's, whose first reading budgets refer to."""
        return self.cut[_measures(result).widths].held_against(self.dense, ground.dense_reading)


def is_due(plan: Plan, record: Record) -> bool:
    """Whether hardware has still to read the run's network, or a plan with repair to look whether it fits."""
    if record.measures is None or not isinstance(plan.ground.platform, Hardware):
        return False
    return record.measures.reading is None or (plan.request.repair and record.first_pass is None)


def read_again(plan: Plan, dense: DenseWeights, results: dict[Job, Result], say: Say) -> dict[Job, Result]:
    """The results, all with measures, with readings of their networks, and repaired where the plan asks for it.

    All networks and the dense one are read in turns, and held against the dense one, so that a drift since the profile
    counts for none of them; equal widths are read once. After a repair everything is read once more, and what is above
    its budget then is repaired again: what a record says was not chosen for having been low once. The first pass stays
    in the records. Raises MeterError when the sensor fails.
    """
    ground = plan.ground
    first = last = _read(ground, results.values(), say)
    done = results
    for _ in range(REPAIRS if plan.request.repair else 0):
        before = done
        done = {job: _fitting(job, result, last, plan, dense, say) for job, result in before.items()}
        if all(done[job] is before[job] for job in done):
            break
        last = _read(ground, done.values(), say)
    told = {job: _with_reading(result, last, ground) for job, result in done.items()}
    if not plan.request.repair:
        return told
    passed = {
        job: FirstPass(reading=first.held(result, ground).amount, dense=first.dense.amount)
        for job, result in results.items()
    }
    return {
        job: replace(result, record=result.record.model_copy(update={"first_pass": passed[job]}))
        for job, result in told.items()
    }


def _fitting(job: Job, result: Result, read: _Pass, plan: Plan, dense: DenseWeights, say: Say) -> Result:
    """The result itself where its network reads within its budget, else what repair makes of it."""
    amount = read.held(result, plan.ground).amount
    if job.budget is None or amount <= job.budget.amount:
        return result
    return _repaired(job, result, amount, plan, dense, say)


def _measures(result: Result) -> Measures:
    assert result.record.measures is not None, "a miss has no network to read"
    return result.record.measures


def _platform(ground: Ground) -> tuple[Hardware, Subject]:
    assert isinstance(ground.platform, Hardware), "simulated readings are taken in the run"
    return ground.platform, Subject(ground.structure, ground.workload.build)


def _read(ground: Ground, results: Iterable[Result], say: Say) -> _Pass:
    platform, subject = _platform(ground)
    distinct = list(dict.fromkeys(_measures(result).widths for result in results))
    limit = minutes(platform.full.limit_s * (1 + len(distinct)))
    say(f"reading the dense network and {len(distinct)} cut ones in turns, at most about {limit}")
    rows = [ground.structure.upper_bounds, *distinct]
    first, *others = platform.read(subject, rows, ground.inference_batch, platform.full)
    return _Pass(first, dict(zip(distinct, others, strict=True)))


def _with_reading(result: Result, read: _Pass, ground: Ground) -> Result:
    measures, held = _measures(result), read.held(result, ground)
    reading = read.cut[measures.widths]
    detail = json.loads(json.dumps(asdict(reading), default=str))
    told = {"reading": held.amount, "interval": held.interval, "flags": reading.flags, "detail": detail}
    update = {"measures": measures.model_copy(update=told), "dense_again": read.dense.amount}
    return replace(result, record=result.record.model_copy(update=update))


def _repaired(job: Job, result: Result, amount: float, plan: Plan, dense: DenseWeights, say: Say) -> Result:
    """The run's network with as few channels more taken as bring its reading, the interval included, within the budget.

    They go down to multiples of TOGETHER, the least important per energy that they save, which readings tell for each
    unit. How many, readings decide too, by halving: short ones, held against the network as it was, which reads
    `amount` beside all others. Nothing is trained any more, so iterations stay equal; batch norm's
    statistics are taken anew as for everyone. What can't be repaired stays as it was.
    """
    assert job.budget is not None and result.weights is not None
    ground, measures, budget = plan.ground, _measures(result), job.budget.amount
    platform, subject = _platform(ground)
    small = dense.at(measures.widths)
    small.load_state_dict(result.weights)
    small.to(ground.computing.device)  # where its images are
    anatomy = structure(small)
    norms = importance(small, anatomy)
    path = list(removals(norms, measures.widths, _savings(ground, measures.widths), TOGETHER))

    def fits(taken: int) -> bool:
        rows = [path[taken], measures.widths]
        now, before = platform.read(subject, rows, ground.inference_batch, platform.short)
        held, fewer = now.held_against(before, amount), sum(measures.widths) - sum(path[taken])
        say(f"repair of {job.name}: {fewer} channels less, {held.amount / budget - 1:+.1%} to its budget")
        return held.interval[1] <= budget

    above, within = 0, len(path) - 1
    if not within or not fits(within):
        say(
            f"{job.name} can't be repaired: it reads above its budget with one channel left wherever one saves anything"
        )
        return result
    while within - above > max(1, within // REPAIR_PRECISION):
        middle = (above + within) // 2
        above, within = (above, middle) if fits(middle) else (middle, within)
    zero_channels(small, anatomy, weakest_channels(norms, path[within], anatomy.upper_bounds))
    return _rewritten(result, _cut(small, job, ground), measures, amount, ground)


def _estimate(ground: Ground) -> Callable[[torch.Tensor], float]:
    return lambda widths: float(ground.fit.model(ground.structure.positions(widths)))


def _savings(ground: Ground, widths: Widths) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a channel of each unit saves at widths (units,): by the model, times what readings show of it.

    Of each unit half is taken, and the network read in turns with the whole one. Where a reading shows nothing, a
    thousandth of the model's word is left, so that such units go last.
    """
    platform, subject = _platform(ground)

    def slopes(at: torch.Tensor) -> torch.Tensor:
        return ground.fit.model.gradient(ground.structure.positions(at))[1:-1]

    halves = [max(1, width // 2 // TOGETHER * TOGETHER or width // 2) for width in widths]
    rows = [widths, *((*widths[:unit], half, *widths[unit + 1 :]) for unit, half in enumerate(halves))]
    whole, *less = platform.read(subject, rows, ground.inference_batch, platform.short)
    left = [reading.held_against(whole, whole.amount).amount for reading in less]
    shown = whole.amount - torch.tensor(left, dtype=torch.float64)
    told = (torch.tensor(widths) - torch.tensor(halves)) * slopes(torch.tensor(widths))
    factors = torch.where(told > 0, shown / told, 0.0).clamp(min=1e-3)
    return lambda at: factors * slopes(at)


def _cut(network: nn.Module, job: Job, ground: Ground) -> nn.Module:
    stream = ground.dataset.train.stream(job.seed, ground.protocol.batch_size)
    small = cut(network, stream)
    recalibrate_batch_norm(small, (stream.batch(index) for index in range(ground.protocol.recalibration_batches)))
    return small


def _rewritten(result: Result, small: nn.Module, before: Measures, amount: float, ground: Ground) -> Result:
    """The result with the repaired network's figures; its reading is still to be taken. What was before the first
    repair stays told.
    """
    anatomy = structure(small)
    widths = anatomy.upper_bounds
    told: dict[str, Any] = {
        "widths": widths,
        "estimate": _estimate(ground)(torch.tensor(widths)),
        "parameters": int(anatomy.parameters(widths)),
        "macs": int(anatomy.macs(widths)),
        "accuracy_after": score(small, ground.dataset.test),
    }
    repair = result.record.repair or Repair(
        widths=before.widths,
        estimate=before.estimate,
        reading=amount,
        accuracy_after=before.accuracy_after,
        removed_channels=0,
    )
    repair = repair.model_copy(update={"removed_channels": sum(repair.widths) - sum(widths)})
    update = {"measures": before.model_copy(update=told), "repair": repair, "network": dict(small.config)}  # type: ignore[arg-type]
    weights = {name: value.cpu().contiguous() for name, value in small.state_dict().items()}
    return Result(result.record.model_copy(update=update), weights)

"""Readings of a plan's networks on hardware, when all trainings are done and nothing of ours computes beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import NamedTuple

from bench.dense import DenseWeights
from bench.harness import Result
from bench.plan import Ground, Job, Plan
from bench.progress import minutes
from bench.record import FirstPass, Record
from bench.repair import Say, Widths, hardware_of, measures_of, repaired
from shared.meters.reading import Held, Reading
from shared.platforms import Hardware

REPAIRS = 3  # at most of a network: each is followed by a reading of all, which may again find it above


class _Pass(NamedTuple):
    """One pass over all networks: the dense one's reading per image, and one of each distinct widths."""

    dense: Reading
    cut: dict[Widths, Reading]

    def held(self, result: Result, ground: Ground) -> Held:
        """The reading of a result's network, held against the dense one's, whose first reading budgets refer to."""
        return self.cut[measures_of(result).widths].held_against(self.dense, ground.dense_reading)


def is_due(plan: Plan, record: Record) -> bool:
    """Whether hardware has still to read the run's network, or a plan with repair to look whether it fits."""
    if record.measures is None or not isinstance(plan.ground.platform, Hardware):
        return False
    return record.measures.reading is None or (plan.request.repair and record.first_pass is None)


def read_again(plan: Plan, dense: DenseWeights, results: dict[Job, Result], say: Say) -> dict[Job, Result]:
    """The results, all with measures, with readings of their networks, and repaired where the plan asks for it.

    All networks and the dense one are read in turns, and held against the dense one, so that a drift since the profile
    counts for none of them; equal widths are read once. After a repair everything is read once more, so that the
    reading in a record is not the one that ended its repair, and what is above its budget then is repaired again. The
    first pass stays in the records. Raises MeterError when the sensor fails.
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
    return repaired(job, result, amount, plan.ground, dense, say)


def _read(ground: Ground, results: Iterable[Result], say: Say) -> _Pass:
    platform, subject = hardware_of(ground)
    distinct = list(dict.fromkeys(measures_of(result).widths for result in results))
    limit = minutes(platform.full.limit_s * (1 + len(distinct)))
    say(f"reading the dense network and {len(distinct)} cut ones in turns, at most about {limit}")
    rows = [ground.structure.upper_bounds, *distinct]
    first, *others = platform.read(subject, rows, ground.inference_batch, platform.full)
    return _Pass(first, dict(zip(distinct, others, strict=True)))


def _with_reading(result: Result, read: _Pass, ground: Ground) -> Result:
    measures, held = measures_of(result), read.held(result, ground)
    reading = read.cut[measures.widths]
    detail = json.loads(json.dumps(asdict(reading), default=str))
    detail["dense_amounts"] = list(read.dense.amounts)  # what the shares are of
    flags = tuple(sorted({*reading.flags, *read.dense.flags}))
    told = {"reading": held.amount, "interval": held.interval, "flags": flags, "detail": detail}
    update = {"measures": measures.model_copy(update=told), "dense_again": read.dense.amount}
    return replace(result, record=result.record.model_copy(update=update))

"""Repair: a network that reads above its budget loses further channels until a reading is within."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.dense import DenseWeights
from bench.harness import Result
from bench.plan import Ground, Job
from bench.record import Measures, Repair
from bench.rules import cut
from shared.energy.greedy import kept_norms, removals
from shared.meters import Settings
from shared.networks import importance, structure, zero_channels
from shared.networks.ranking import weakest_channels
from shared.platforms import Hardware, Subject
from shared.training import recalibrate_batch_norm, score

Say = Callable[[str], None]
Widths = tuple[int, ...]

RESOLVED = 1e-9  # relative; better than any meter
CLOSER = 4  # times as long as a profile's readings, at most, for half of their interval; twice as many visits at least
PRECISION = 50  # up to this part of all steps more are taken than have to be
TOGETHER = 8  # channels: vector and matrix units work on so many at once, one less saves them nothing


def measures_of(result: Result) -> Measures:
    """What the result's network is. A miss has none to read."""
    assert result.record.measures is not None, "a miss has no network to read"
    return result.record.measures


def hardware_of(ground: Ground) -> tuple[Hardware, Subject]:
    """What reads, and what is read."""
    assert isinstance(ground.platform, Hardware), "simulated readings are taken in the run"
    return ground.platform, Subject(ground.structure, ground.workload.build)


def repaired(job: Job, result: Result, amount: float, ground: Ground, dense: DenseWeights, say: Say) -> Result:
    """The run's network with as few channels more taken as bring its reading within the budget.

    They go down to multiples of TOGETHER, the least important per energy that they save first, see `worth` and
    `_savings`. How many, readings decide too, by halving: closer ones than a profile's, held against the network as it
    was, which reads `amount` beside all others; the whole interval has to be within. Nothing is trained any more, so
    iterations stay equal; batch norm's statistics are taken anew as for everyone. What can't be repaired stays.
    """
    assert job.budget is not None and result.weights is not None
    measures, budget = measures_of(result), job.budget.amount
    platform, subject = hardware_of(ground)
    small = dense.at(measures.widths)
    small.load_state_dict(result.weights)
    small.to(ground.computing.device)  # where its images are
    anatomy = structure(small)
    norms = importance(small, anatomy)
    path = list(removals(worth(norms), measures.widths, _savings(ground, measures.widths, amount), TOGETHER))

    def fits(taken: int) -> bool:
        rows = [path[taken], measures.widths]
        now, before = platform.read(subject, rows, ground.inference_batch, closer(platform.short))
        held, fewer = now.held_against(before, amount), sum(measures.widths) - sum(path[taken])
        say(f"repair of {job.name}: {fewer} channels less, {held.amount / budget - 1:+.1%} to its budget")
        return held.interval[1] <= budget

    above, within = 0, len(path) - 1
    if not within or not fits(within):
        say(
            f"{job.name} can't be repaired: it reads above its budget with one channel left wherever one saves anything"
        )
        return result
    while within - above > max(1, within // PRECISION):
        middle = (above + within) // 2
        above, within = (above, middle) if fits(middle) else (middle, within)
    zero_channels(small, anatomy, weakest_channels(norms, path[within], anatomy.upper_bounds))
    return _rewritten(result, _cut(small, job, ground), measures, amount, ground)


def closer(short: Settings) -> Settings:
    """Settings of the readings that decide how far a repair has to go."""
    return replace(
        short,
        name=f"{short.name}, closer",
        visits=2 * short.visits,  # boards go by these alone
        target=short.target / 2,
        limit_s=CLOSER * short.limit_s,
    )


def worth(norms: Tensor) -> Tensor:
    """Logarithms of the sum of every unit's k largest norms, see shared.energy.greedy.removals.

    Summed over units they fall by what a cut leaves of the product of all units' norms, as a signal goes through one
    unit after another. Bare norms can't be compared between units where nothing learns to make up for what is gone: the
    first units, with few weights and much energy to a channel, would be the first to go down to one.
    """
    return kept_norms(norms).clamp(min=torch.finfo(torch.float64).tiny).log()


def _savings(ground: Ground, widths: Widths, amount: float) -> Callable[[Tensor], Tensor]:
    """What a channel of each unit saves at widths (units,): by the model, times a factor by readings.

    widths, amount: of the network that is repaired, and its reading.

    Of each unit half is taken, and the network read in turns with the whole one: what that saves over what the model
    says. The less sure a reading is of it, the closer the factor stays to 1, since it is taken to be normal around 1
    with a standard deviation of 1 before it is read. At least a thousandth, so that units that save nothing go last.
    """
    platform, subject = hardware_of(ground)

    def slopes(at: Tensor) -> Tensor:
        return ground.fit.model.gradient(ground.structure.positions(at))[1:-1]

    halves = [max(1, width // 2 // TOGETHER * TOGETHER or width // 2) for width in widths]
    rows = [widths, *((*widths[:unit], half, *widths[unit + 1 :]) for unit, half in enumerate(halves))]
    whole, *less = platform.read(subject, rows, ground.inference_batch, platform.short)
    left = [reading.held_against(whole, amount) for reading in less]
    shown = amount - torch.tensor([held.amount for held in left], dtype=torch.float64)
    error = torch.tensor([held.error for held in left], dtype=torch.float64).clamp(min=RESOLVED * amount)
    told = (torch.tensor(widths) - torch.tensor(halves)) * slopes(torch.tensor(widths))
    factors = ((told * shown + error**2) / (told**2 + error**2)).clamp(min=1e-3)
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
        "estimate": float(ground.fit.model(ground.structure.positions(widths))),
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

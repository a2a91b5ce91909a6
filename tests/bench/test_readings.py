"""Readings come when all trainings are done; repair cuts on until they fit, and tells what it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import cost, harness, readings, repair
from bench.budgets import Budget
from bench.dense import DenseWeights
from bench.plan import Ground, Job, Plan, Request
from bench.teacher import live
from bench.workload import Workload
from shared.energy.greedy import removals
from shared.errors import BadInput
from shared.meters import ClockMeter, Reading, Settings
from shared.networks import importance, structure
from shared.platforms import Hardware, MeasuredPlatform, Subject
from tests.shared.meters.simulated import SimulatedClock
from tests.shared.platforms.played import Played

Truth = Callable[[Sequence[int]], float]


@dataclass(frozen=True)
class PlayedWorkload(Workload):
    """MobileNet whose copies for readings take as long as `truth` says."""

    truth: Truth = len
    clock: SimulatedClock | None = None

    def build(self, widths: tuple[int, ...] | None = None) -> nn.Module:
        assert widths is not None and self.clock is not None
        return Played(widths, lambda kept, batch: self.truth(kept) * batch, self.clock, [])


@pytest.fixture
def on_hardware(ground: Ground, in_cache: Path) -> Callable[[Truth], Ground]:
    def make(truth: Truth) -> Ground:
        clock = SimulatedClock()
        work = PlayedWorkload(**vars(ground.workload), truth=truth, clock=clock)
        return replace(ground, workload=work, platform=MeasuredPlatform("cpu", ClockMeter(clock), clock=clock))

    return make


def plan_of(ground: Ground, weights: DenseWeights, *, repair: bool) -> tuple[Plan, dict[Job, harness.Result]]:
    """Uniform widths at two budgets, each as its run left it: a network, and a reading that is still to be taken."""
    jobs = [Job("uniform", Budget(share, share * ground.dense_reading), 0) for share in (0.6, 0.4)]
    teacher = live(weights.network)
    results = {job: harness.execute(job, "key", ground, weights, teacher, lambda *_: None, "command") for job in jobs}
    assert all(result.record.status == "ok" for result in results.values())
    return Plan(Request(repair=repair), ground, tuple(jobs)), results


def estimate(ground: Ground, widths: Sequence[int]) -> float:
    return float(ground.fit.model(ground.structure.positions(list(widths))))


def above_estimates(ground: Ground, by: Sequence[float], drift: float = 1.0) -> Truth:
    """Hardware on which cut networks take `by[0]` times what the model says, and all `drift` times what they took."""

    def truth(widths: Sequence[int]) -> float:
        dense = tuple(widths) == ground.structure.upper_bounds
        return drift * (ground.dense_reading if dense else by[0] * estimate(ground, widths))

    return truth


def test_readings_of_cut_networks_are_held_against_the_dense_one(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights
) -> None:
    here = on_hardware(above_estimates(ground, [1.1], drift=1.2))
    plan, unread = plan_of(here, weights, repair=False)
    said: list[str] = []
    done = readings.read_again(plan, weights, unread, said.append)
    assert list(done) == list(plan.jobs)
    for job, result in done.items():
        measures = result.record.measures
        assert measures is not None and result.record.repair is None
        assert measures.widths == unread[job].record.measures.widths  # type: ignore[union-attr]
        assert measures.reading == pytest.approx(1.1 * measures.estimate)
        assert measures.interval == pytest.approx((measures.reading,) * 2)
        assert measures.detail is not None and measures.detail["amount"] == pytest.approx(1.32 * measures.estimate)
        dense_amounts = measures.detail["dense_amounts"]
        assert dense_amounts == pytest.approx([1.2 * ground.dense_reading] * len(measures.detail["amounts"]))
        assert result.record.dense_again == pytest.approx(1.2 * ground.dense_reading)
        assert result.weights is unread[job].weights
    assert said == ["reading the dense network and 2 cut ones in turns, at most about 60 s"]


def test_what_the_sensor_said_of_the_dense_network_concerns_all(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = on_hardware(above_estimates(ground, [0.9]))
    assert isinstance(here.platform, Hardware)
    plan, unread = plan_of(here, weights, repair=False)
    read = here.platform.read

    def throttled(*asked: Any) -> list[Reading]:
        dense, first, *others = read(*asked)
        return [replace(dense, flags=("throttled",)), replace(first, flags=("late",)), *others]

    monkeypatch.setattr(here.platform, "read", throttled)
    done = readings.read_again(plan, weights, unread, lambda line: None).values()
    flags = [result.record.measures.flags for result in done if result.record.measures]
    assert flags == [("late", "throttled"), ("throttled",)]


def test_repair_cuts_the_least_important_until_the_reading_fits(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights
) -> None:
    here = on_hardware(above_estimates(ground, [1.1], drift=0.7))
    plan, unread = plan_of(here, weights, repair=True)
    done = readings.read_again(plan, weights, unread, lambda line: None)
    for job, result in done.items():
        record, before = result.record, unread[job].record.measures
        measures, repair = record.measures, record.repair
        assert measures is not None and repair is not None and before is not None and job.budget is not None
        assert repair.reading > job.budget.amount >= measures.reading > 0.9 * job.budget.amount
        assert repair.widths == before.widths and repair.accuracy_after == before.accuracy_after
        assert repair.removed_channels == sum(before.widths) - sum(measures.widths) > 0
        assert all(now <= then for now, then in zip(measures.widths, before.widths, strict=True))
        assert measures.estimate == pytest.approx(estimate(ground, measures.widths))
        assert record.network["widths"] == list(measures.widths) and record.cost == unread[job].record.cost
        small = weights.at(measures.widths)
        small.load_state_dict(result.weights)  # type: ignore[arg-type]
        assert measures.parameters == sum(p.numel() for p in small.parameters())
        # every channel that stays is one of the network's before
        old, new = unread[job].weights, result.weights
        assert old is not None and new is not None
        stem = next(name for name, value in new.items() if value.ndim == 4)
        kept = [any(torch.equal(row, other) for other in old[stem]) for row in new[stem]]
        assert all(kept) and structure(small).upper_bounds == measures.widths


def test_what_is_above_again_is_repaired_again(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hardware on which cut networks take a tenth longer when all is read for the second time."""
    factor, passes = [1.1], list[float]()
    here = on_hardware(above_estimates(ground, factor))
    plan, unread = plan_of(here, weights, repair=True)
    read = readings._read

    def slowing(*asked: object) -> object:
        factor[0] = 1.21 if passes else 1.1
        passes.append(factor[0])
        return read(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(readings, "_read", slowing)
    done = readings.read_again(plan, weights, unread, lambda line: None)
    assert passes == [1.1, 1.21, 1.21]
    for job, result in done.items():
        record, before = result.record, unread[job].record.measures
        assert record.measures is not None and record.repair is not None and record.first_pass is not None
        assert before is not None and job.budget is not None and record.measures.reading is not None
        assert record.repair.widths == before.widths and record.repair.accuracy_after == before.accuracy_after
        assert record.repair.reading == record.first_pass.reading == pytest.approx(1.1 * before.estimate)
        assert record.repair.removed_channels == sum(before.widths) - sum(record.measures.widths)
        assert record.measures.reading == pytest.approx(1.21 * record.measures.estimate)
        assert record.measures.reading <= job.budget.amount
        assert record.first_pass.dense == pytest.approx(ground.dense_reading)


def test_repair_ends_on_hardware_that_slows_for_ever(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor, passes = [1.0], [0]
    here = on_hardware(above_estimates(ground, factor))
    assert isinstance(here.platform, Hardware)
    plan, unread = plan_of(here, weights, repair=True)
    read, on_platform, asked_s = readings._read, here.platform.read, list[float]()

    def timed(subject: Subject, rows: Sequence[Sequence[int]], batch: int, settings: Settings) -> list[Reading]:
        asked_s.append(len(rows) * settings.limit_s)
        return on_platform(subject, rows, batch, settings)

    def slowing(*asked: object) -> object:
        factor[0] *= 1.05
        passes[0] += 1
        return read(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(readings, "_read", slowing)
    monkeypatch.setattr(here.platform, "read", timed)
    done = readings.read_again(plan, weights, unread, lambda line: None)
    assert passes[0] == 1 + readings.REPAIRS
    told_s = cost._reading_s(plan, len(plan.jobs))
    assert told_s / 3 < sum(asked_s) <= told_s  # no more than was said before
    assert all(result.record.measures is not None and result.record.repair for result in done.values())


@pytest.mark.parametrize("drift", [0.5, 1.0, 1.5])
def test_networks_within_their_budgets_are_left_alone(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights, drift: float
) -> None:
    here = on_hardware(above_estimates(ground, [0.9], drift))
    plan, unread = plan_of(here, weights, repair=True)
    for job, result in readings.read_again(plan, weights, unread, lambda line: None).items():
        assert result.record.repair is None and result.weights is unread[job].weights
        assert result.record.first_pass is not None and result.record.measures is not None
        assert result.record.first_pass.reading == result.record.measures.reading


def test_what_cannot_be_repaired_stays_and_is_said(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights
) -> None:
    """Hardware that takes the same whatever the widths."""
    here = on_hardware(lambda widths: 10 * ground.dense_reading)
    plan, unread = plan_of(here, weights, repair=True)
    said: list[str] = []
    for job, result in readings.read_again(plan, weights, unread, said.append).items():
        assert result.record.repair is None and result.weights is unread[job].weights
        assert result.record.measures is not None and job.budget is not None
        assert result.record.measures.reading > job.budget.amount
    assert sum("can't be repaired" in line for line in said) == 2


def test_what_is_still_to_be_read(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights
) -> None:
    here = on_hardware(lambda widths: 0.9 * estimate(ground, widths))
    plan, unread = plan_of(here, weights, repair=False)
    asked_later = replace(plan, request=Request(repair=True))
    job = plan.jobs[0]
    before = unread[job].record
    read = readings.read_again(plan, weights, unread, lambda line: None)[job].record
    looked_at = readings.read_again(asked_later, weights, unread, lambda line: None)[job].record
    miss = harness.failed(job, "key", here, weights, "died", "command").record
    due = [readings.is_due(some, record) for some in (plan, asked_later) for record in (before, read, looked_at, miss)]
    assert due == [True, False, False, False, True, True, False, False]
    assert not readings.is_due(replace(plan, ground=ground), before)  # simulated
    with pytest.raises(BadInput, match="still to be"):
        _ = before.measures.read  # type: ignore[union-attr]


def test_repair_takes_hardly_more_than_it_has_to(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights
) -> None:
    """Hardware on which the model is far off: a floor that it does not know. Oracle: every number of channels tried."""

    def truth(widths: Sequence[int]) -> float:
        return 0.3 * ground.dense_reading + 0.8 * estimate(ground, widths)

    def held(widths: Sequence[int]) -> float:
        return ground.dense_reading * truth(widths) / truth(ground.structure.upper_bounds)

    here, repaired = on_hardware(truth), 0
    plan, unread = plan_of(here, weights, repair=True)
    for job, result in readings.read_again(plan, weights, unread, lambda line: None).items():
        before = unread[job]
        assert before.record.measures is not None and result.record.measures is not None and job.budget is not None
        small = weights.at(before.record.measures.widths)
        small.load_state_dict(before.weights)  # type: ignore[arg-type]
        anatomy = structure(small)
        steps = list(
            removals(
                repair.worth(importance(small, anatomy)),
                anatomy.upper_bounds,
                lambda widths: ground.fit.model.gradient(ground.structure.positions(widths))[1:-1],
                repair.TOGETHER,
            )
        )
        # all units save 0.8 of what the model says, so the order is the model's
        fitting = [k for k, widths in enumerate(steps) if held(widths) <= job.budget.amount]
        if not fitting:
            assert result.record.repair is None
            continue
        repaired += 1
        taken = steps.index(result.record.measures.widths)
        assert fitting[0] <= taken <= fitting[0] + max(1, len(steps) // repair.PRECISION)
    assert repaired


def test_repair_takes_channels_where_readings_show_that_they_save(
    ground: Ground, on_hardware: Callable[[Truth], Ground], weights: DenseWeights
) -> None:
    """Hardware that is slow by the fourth unit alone, whatever the model thinks of the others."""
    dense = ground.structure.upper_bounds

    def truth(widths: Sequence[int]) -> float:
        return ground.dense_reading * (0.2 + 0.8 * widths[3] / dense[3])

    here = on_hardware(truth)
    plan, unread = plan_of(here, weights, repair=True)
    done = readings.read_again(plan, weights, unread, lambda line: None)
    repaired = 0
    for job, result in done.items():
        before, after = unread[job].record.measures, result.record.measures
        assert before is not None and after is not None and job.budget is not None
        if result.record.repair is not None:
            repaired += 1
            assert after.widths[3] < before.widths[3] and after.widths[:3] == before.widths[:3]
            assert after.widths[4:] == before.widths[4:] and truth(after.widths) <= job.budget.amount * (1 + 1e-9)
    assert repaired

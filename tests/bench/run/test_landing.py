"""Landing: who stays, who is cut further and how far, on simulated platforms and on played hardware that drifts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.run import cost, landing, stages
from bench.run.describe import describe
from bench.run.stages import Run
from bench.run.teacher import live
from bench.setup.budgets import Budget
from bench.setup.plan import Job
from bench.setup.setup import Setup
from bench.setup.workload import Workload
from shared.energy import LocalFit
from shared.meters import ClockMeter
from shared.networks import active_channels, importance, structure
from shared.platforms import MeasuredPlatform, Platform, PlatformReading
from shared.platforms.hardware import closer
from shared.platforms.measured import CLOCK_SHORT
from tests.shared.meters.simulated import SimulatedClock
from tests.shared.platforms.played import Played

Truth = Callable[[Sequence[int]], float]
WIDE = 0.75  # of every unit of the network that is to land


@dataclass(frozen=True)
class PlayedWorkload(Workload):
    """MobileNet whose copies for readings take as long as `truth` says."""

    truth: Truth = len
    clock: SimulatedClock | None = None

    def build(self, widths: tuple[int, ...] | None = None) -> nn.Module:
        assert widths is not None and self.clock is not None
        return Played(widths, lambda kept, batch: self.truth(kept) * batch, self.clock, [])


@pytest.fixture
def on_hardware(setup: Setup, in_cache: Path) -> Callable[[Truth], Setup]:
    """The setup on hardware whose truth is given; its profile and energy model stay those of the simulation."""

    def make(truth: Truth) -> Setup:
        clock = SimulatedClock()
        own = {field.name: getattr(setup.workload, field.name) for field in fields(setup.workload)}
        work = PlayedWorkload(**own, truth=truth, clock=clock)
        return replace(setup, workload=work, platform=MeasuredPlatform("cpu", ClockMeter(clock), clock=clock))

    return make


@pytest.fixture
def small(setup: Setup) -> nn.Module:
    """A cut network, three quarters of every unit wide."""
    return setup.dense.at([math.ceil(WIDE * bound) for bound in setup.structure.upper_bounds])


def above_estimates(setup: Setup, by: float, drift: float = 1.0) -> Truth:
    """Hardware on which cut networks take `by` times what the model says, and all `drift` times what they took."""

    def truth(widths: Sequence[int]) -> float:
        dense = tuple(widths) == setup.structure.upper_bounds
        return drift * (setup.reach.dense_reading if dense else by * setup.estimate(tuple(widths), None))

    return truth


def true_amount(setup: Setup, widths: Sequence[int]) -> float:
    """The simulation's noise-free joules, asked in its own way."""
    positions = setup.structure.positions([list(widths)]).numpy()
    return float(setup.platform.true(setup.structure.operations, positions, setup.inference_batch)[0])  # type: ignore[attr-defined]


@given(st.data())
def test_a_channels_worth_is_a_share_of_its_unit(drawn: st.DataObject) -> None:
    """By hand, whatever the scale of a unit's norms."""
    bounds = drawn.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    norms = torch.zeros(len(bounds), max(bounds), dtype=torch.float64)
    for unit, bound in enumerate(bounds):
        scale = 4.0 ** drawn.draw(st.integers(-9, 9))
        drawn_norms = drawn.draw(st.lists(st.integers(1, 1000), min_size=bound, max_size=bound))
        norms[unit, :bound] = scale * torch.tensor(drawn_norms)
    table = landing.log_shares(norms)
    for unit, bound in enumerate(bounds):
        strongest = sorted(norms[unit, :bound].tolist(), reverse=True)
        by_hand = [math.log(sum(strongest[:kept]) / sum(strongest)) for kept in range(1, bound + 1)]
        assert (table[unit, 1 : bound + 1] - table[unit, bound]).tolist() == pytest.approx(by_hand)


def test_a_unit_of_zeros_is_worth_the_same_at_every_width() -> None:
    table = landing.log_shares(torch.tensor([[0.0, 0.0, 0.0]]))
    assert table.isfinite().all() and (table == table[0, 0]).all()


def test_a_simulated_network_loses_no_more_than_it_has_to(setup: Setup, small: nn.Module) -> None:
    """Oracle: the removals one after another, each asked for its joules by itself."""
    widths = structure(small).upper_bounds
    budget = 0.95 * true_amount(setup, widths)
    landed = landing.land(small, budget, setup)
    path = landing.removal_path(importance(small, structure(small)), widths, setup)
    above = [next(path)]
    while true_amount(setup, row := next(path)) > budget:
        above.append(row)
    assert landed.widths == row and sum(widths) - sum(row) == len(above)  # single channels
    assert landed.readings == 1 + len(above)
    assert landed.before.amount == pytest.approx(true_amount(setup, widths), rel=1e-12)
    assert landed.after.amount == pytest.approx(true_amount(setup, row), rel=1e-12) and landed.after.amount <= budget


@pytest.mark.parametrize("group", [1, 8])
def test_the_least_share_of_norms_per_joule_goes_next(
    group: int, setup: Setup, small: nn.Module, on_hardware: Callable[[Truth], Setup]
) -> None:
    """Oracle: before each removal every unit is priced by differences of the model's estimates."""
    here = setup if group == 1 else on_hardware(len)
    assert here.platform.channel_group == group
    norms, bounds = importance(small, structure(small)).double(), structure(small).upper_bounds
    sums = [sorted(row[:bound].tolist(), reverse=True) for row, bound in zip(norms, bounds, strict=True)]
    path = landing.removal_path(importance(small, structure(small)), bounds, here)
    widths = list(bounds)
    for _ in range(400 // group):
        assert next(path) == tuple(widths)
        prices, whole = [], setup.estimate(tuple(widths), None)
        for unit, width in enumerate(widths):
            fewer = (width - 1) // group * group if width > group else width - 1
            lost = math.log(sum(sums[unit][:width]) / sum(sums[unit][:fewer])) if fewer else math.inf
            saved = whole - setup.estimate((*widths[:unit], fewer, *widths[unit + 1 :]), None)
            prices.append((lost / saved, unit, fewer))
        _, unit, widths[unit] = min(prices)
    assert sum(width < bound for width, bound in zip(widths, bounds, strict=True)) > 5


def test_a_landed_network_keeps_its_most_important_channels(small: nn.Module) -> None:
    norms, widths = importance(small, structure(small)), structure(small).upper_bounds
    landed = [max(1, width - unit) for unit, width in enumerate(widths)]
    landing.cut_to(small, tuple(landed))
    for row, kept, width, left in zip(norms, active_channels(small), widths, landed, strict=True):
        assert set(kept.nonzero().flatten().tolist()) == set(row[:width].argsort(descending=True)[:left].tolist())


@pytest.mark.parametrize("simulated", [True, False])
def test_a_network_whose_interval_is_within_is_left_alone(
    simulated: bool, setup: Setup, small: nn.Module, on_hardware: Callable[[Truth], Setup]
) -> None:
    widths = structure(small).upper_bounds
    here = setup if simulated else on_hardware(above_estimates(setup, 1.0, drift=1.3))
    amount = true_amount(setup, widths) if simulated else setup.estimate(widths, None)
    landed = landing.land(small, amount * (1 + 1e-9), here)
    assert landed.widths == widths and landed.after is landed.before and landed.readings == 1
    assert landing.land(small, amount * (1 - 1e-9), here).widths != widths


class Wide(Platform):
    """A platform whose intervals are a tenth wide; the amount of a network is its number of channels."""

    name, meter, host, calibration = "wide", "hand", None, "none"
    source, unit = "measured", "J"
    readings_need_quiet, channel_group = True, 1

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def read_beside(self, subject: object, rows: Sequence[Sequence[int]], *_: object, **__: object):  # type: ignore[no-untyped-def]
        self.asked += [tuple(row) for row in rows]
        return [PlatformReading(sum(row), (0.9 * sum(row), 1.1 * sum(row))) for row in rows]

    def profile(self, *_: object, **__: object):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    local_profile = profile

    def reading_s(self, rows: int, effort: str = "final") -> float:
        return float(rows)


@pytest.mark.parametrize("share", [1.2, 1.05, 0.99, 0.8, 0.3])
def test_the_whole_interval_decides_who_stays_and_who_has_landed(share: float, setup: Setup, small: nn.Module) -> None:
    """A reading below the budget whose interval crosses it counts as above, at first and in the end alike."""
    here, widths = replace(setup, platform=Wide()), structure(small).upper_bounds
    budget = share * sum(widths)
    landed = landing.land(small, budget, here)
    assert landed.after.interval[1] <= budget
    assert (landed.widths == widths) is (1.1 * sum(widths) <= budget)
    needed = max(0, math.ceil(sum(widths) - budget / 1.1))
    taken = sum(widths) - sum(landed.widths)
    assert needed <= taken <= needed + max(1, taken // landing.PRECISION)


def test_what_cannot_land_says_so(setup: Setup, small: nn.Module, on_hardware: Callable[[Truth], Setup]) -> None:
    flat = on_hardware(lambda widths: setup.reach.dense_reading)
    with pytest.raises(landing.CannotLand, match=r"read at \S+ s per image, above the budget of \S+ s, and at \S+ s"):
        landing.land(small, 0.5 * setup.reach.dense_reading, flat)
    ones = setup.dense.at([1] * len(setup.structure.units))
    with pytest.raises(landing.CannotLand):  # nothing is left to be cut
        landing.land(ones, 0.5 * true_amount(setup, structure(ones).upper_bounds), setup)


@pytest.mark.parametrize("drift", [0.7, 1.0, 1.4])
def test_hardware_that_drifts_lands_the_same_widths(
    drift: float, setup: Setup, small: nn.Module, on_hardware: Callable[[Truth], Setup]
) -> None:
    """Every reading is a ratio to the dense network's, so a drift that meets all counts for none."""
    widths, here = structure(small).upper_bounds, on_hardware(above_estimates(setup, 1.1, drift))
    budget = setup.estimate(widths, None)
    landed = landing.land(small, budget, here)
    assert landed.before.amount == pytest.approx(1.1 * budget, rel=1e-6)
    assert landed.before.reference == pytest.approx(drift * setup.reach.dense_reading, rel=1e-6)
    assert 0.95 * budget < landed.after.amount <= budget
    wider = [old for old, new in zip(widths, landed.widths, strict=True) if new < old]
    cut = [new for old, new in zip(widths, landed.widths, strict=True) if new < old]
    assert all(new % here.platform.channel_group == 0 or new < here.platform.channel_group for new in cut) and wider
    steady = landing.land(small, budget, on_hardware(above_estimates(setup, 1.1)))
    assert landed.widths == steady.widths


def test_landing_takes_no_longer_than_was_announced(
    setup: Setup, small: nn.Module, on_hardware: Callable[[Truth], Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = on_hardware(above_estimates(setup, 1.1))
    asked: list[float] = []
    read = type(here.platform).read

    def counted(self: MeasuredPlatform, *arguments: object) -> object:
        asked.append(len(arguments[1]) * arguments[3].limit_s)  # type: ignore[arg-type, attr-defined]
        return read(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(MeasuredPlatform, "read", counted)
    landing.land(small, setup.estimate(structure(small).upper_bounds, None), here)
    announced = cost.reading_s(here, 1) - here.platform.reading_s(1)
    assert announced / 4 < sum(asked) <= announced
    assert closer(CLOCK_SHORT).limit_s == 4 * CLOCK_SHORT.limit_s


def test_the_stage_writes_down_what_landing_took(
    setup: Setup, on_hardware: Callable[[Truth], Setup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uniform widths at half of the dense joules, on hardware that takes a tenth more than its model says."""
    monkeypatch.setattr(stages, "unit_costs", lambda *_: (0.06, 0.0002))
    monkeypatch.setattr(stages, "teacher", lambda setup, seed: live(setup.dense.network))
    here = on_hardware(above_estimates(setup, 1.1, drift=0.8))
    budget = 0.5 * setup.reach.dense_reading
    here._near[budget] = LocalFit(setup.fit.model, 1.0, 0.0, 0.0, (0.0, 0.0), 0.0, 1)  # a profile would correct it
    run = Run(Job("uniform", Budget(0.5, budget), 0), here, "key", tmp_path / "run")
    for stage in stages.STAGES:
        stages.do(stage, [run])
    record, weights = describe(run)
    landed, measures = record.landing, record.measures
    assert landed is not None and measures is not None and weights is not None and record.cost is not None
    assert landed.before.amount == pytest.approx(1.1 * landed.estimate) and landed.before.amount > budget
    assert landed.after.amount <= budget and record.cost.landing_readings > 1
    assert landed.removed_channels == sum(landed.widths) - sum(measures.widths) > 0
    assert all(now <= then for now, then in zip(measures.widths, landed.widths, strict=True))
    assert measures.estimate == pytest.approx(setup.estimate(measures.widths, None))
    assert measures.reading == pytest.approx(1.1 * measures.estimate) == pytest.approx(landed.after.amount)
    assert measures.reference == pytest.approx(0.8 * setup.reach.dense_reading)
    assert measures.detail is not None
    assert measures.detail["reference_amounts"] == pytest.approx([0.8 * setup.reach.dense_reading] * 8)
    assert 0 <= landed.search_accuracy_after <= 1 and record.network["widths"] == list(measures.widths)
    # every channel that stays is one of the network's before
    before, after = (run.read(stage)["network"] for stage in ("compress", "land"))  # type: ignore[index]
    stem = next(name for name, tensor in after.items() if tensor.ndim == 4)
    assert all(any(torch.equal(row, other) for other in before[stem]) for row in after[stem])


def test_a_network_that_cannot_land_is_a_miss(
    setup: Setup, on_hardware: Callable[[Truth], Setup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "unit_costs", lambda *_: (0.06, 0.0002))
    monkeypatch.setattr(stages, "teacher", lambda setup, seed: live(setup.dense.network))
    here = on_hardware(lambda widths: setup.reach.dense_reading)
    run = Run(Job("uniform", Budget(0.5, 0.5 * setup.reach.dense_reading), 0), here, "key", tmp_path / "run")
    for stage in stages.STAGES:
        stages.do(stage, [run])
    record, weights = describe(run)
    assert record.status == "miss" and weights is None and record.measures is None
    assert record.reason is not None and "above the budget" in record.reason
    assert record.cost is not None and record.cost.training_iterations == 4


def paths(length: int) -> Iterator[tuple[int, ...]]:
    return iter([(place,) for place in range(length)])


@given(st.integers(1, 400), st.sampled_from([1, 2, 30]), st.data())
def test_bisection_finds_what_trying_all_finds(length: int, at_once: int, drawn: st.DataObject) -> None:
    needed = drawn.draw(st.integers(0, length - 1))  # the first row that is within
    asked: list[int] = []
    rounds = 0

    def read(rows: Sequence[tuple[int, ...]]) -> list[PlatformReading]:
        nonlocal rounds
        rounds += 1
        asked.extend(row[0] for row in rows)
        return [PlatformReading(1.0, (1.0, 2.0 if row[0] < needed else 1.0)) for row in rows]

    end = landing._bisection(paths(length), read, 1.0, at_once)
    assert end.widths is not None and end.readings == len(asked)
    assert rounds <= 2 + math.ceil(math.log(length + 1, at_once + 1) + 1e-9)
    assert needed <= end.widths[0] <= needed + max(1, (end.widths[0] + 1) // landing.PRECISION) - 1
    swept = landing._sweep(paths(length), read, 1.0, 64)
    assert swept.widths == (needed,) and swept.readings == needed + 1


def test_readings_are_json(setup: Setup, small: nn.Module, on_hardware: Callable[[Truth], Setup]) -> None:
    landed = landing.land(small, math.inf, on_hardware(above_estimates(setup, 1.0)))
    assert json.loads(json.dumps(landed.before.detail)) == landed.before.detail

"""Readings beside a reference: simulations give what is true, hardware what is left when the drift is taken out."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared import networks, platforms
from shared.meters import FULL, SHORT, MeterError, Reading, Settings
from shared.meters.reading import Visit, bootstrap_interval, summarise
from shared.networks import Structure, structure
from shared.platforms import Hardware, Platform, Subject
from shared.platforms.hardware import closer
from tests.conftest import ToyNet
from tests.shared.platforms.played import Bench

Row = tuple[int, ...]
SENSOR = SimpleNamespace(name="nvml", scope="board", unit="J", method="integral", simulated=False)
SLOTS = st.floats(0.1, 10.0)


@cache
def small() -> Structure:
    with torch.device("meta"):
        return networks.structure(networks.build("mobilenet", num_classes=10, in_channels=1, input_size=28))


def never(widths: Row) -> Any:
    raise AssertionError("a simulation builds no network")


SUBJECT = Subject(small(), never)
some_rows = st.lists(st.tuples(*(st.integers(1, bound) for bound in small().upper_bounds)), min_size=1, max_size=5)


@pytest.mark.parametrize("unit", ["J", "s"])
@given(rows=some_rows, batch=st.sampled_from([1, 4, 64]), standard=SLOTS)
def test_a_simulation_gives_its_noise_free_amounts_in_order(
    unit: Any, rows: list[Row], batch: int, standard: float
) -> None:
    """Whatever the reference: a simulation has no drift."""
    platform: Platform = platforms.get("tx2", unit)
    found = platform.read_beside(SUBJECT, rows, batch, reference=rows[-1], standard=standard)
    for row, one in zip(rows, found, strict=True):
        positions = small().positions([list(row)]).numpy()
        (true,) = platforms.get("tx2", unit).true(small().operations, positions, batch)
        assert one.amount == pytest.approx(true, rel=1e-12)
        assert one.interval == (one.amount, one.amount)
        assert (one.flags, one.reference, one.detail) == ((), None, None)
    assert platform.queries == 0  # type: ignore[attr-defined]  # of noisy readings


def test_a_simulation_takes_no_time_and_profiles_at_the_batch_that_suits_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    platform = platforms.get("tx2")
    assert platform.reading_s(1000) == platform.reading_s(1000, "landing") == 0.0
    assert not platform.readings_need_quiet
    found = platform.profile(SUBJECT, samples=20, test_samples=5, may_read=False)  # a worker may compute it
    batch = platform.inference_batch(small().operations, small().position_bounds)
    same = platforms.profile(platforms.get("tx2"), small(), batch, samples=20, test_samples=5)
    assert found.batch == same.batch == batch and (found.amounts == same.amounts).all()
    assert platform.profile(SUBJECT, samples=20, test_samples=5, batch=2).batch == 2


@dataclass
class Drifting(Hardware):
    """Hardware whose every visit is off by a factor that is the same for all rows, and that says what it was asked."""

    drift: Sequence[float]
    flags: dict[Row, tuple[str, ...]] = field(default_factory=dict)
    shaky: Sequence[float] = (1.0,)  # of rows other than the first, visit by visit
    asked: list[tuple[list[Row], Settings]] = field(default_factory=list)

    full, short, unit, source = FULL, SHORT, "J", "measured"

    def read(self, subject: Subject, widths: Sequence[Sequence[int]], batch: int, settings: Settings) -> list[Reading]:
        rows = [tuple(row) for row in widths]
        self.asked.append((rows, settings))
        readings = []
        for place, row in enumerate(rows):
            amounts = np.array(self.drift) * true_joules(row) * (self.shaky if place else 1.0)
            visits = [Visit(float(amount), 0.0, 1.0, 1, 1, self.flags.get(row, ())) for amount in amounts]
            readings.append(summarise(SENSOR, visits, [], settings, {}))
        return readings

    def inference_batch(self, subject: Subject) -> int:
        return 1


def true_joules(row: Row) -> float:
    return 1e-3 * sum(row)


@given(rows=some_rows, drift=st.lists(SLOTS, min_size=2, max_size=8), standard=SLOTS)
def test_a_drift_that_meets_all_alike_is_gone(rows: list[Row], drift: list[float], standard: float) -> None:
    platform, dense = Drifting(drift), small().upper_bounds
    found = platform.read_beside(SUBJECT, rows, 1, reference=dense, standard=standard)
    for row, one in zip(rows, found, strict=True):
        expected = true_joules(row) / true_joules(dense) * standard
        assert one.amount == pytest.approx(expected) and one.interval == pytest.approx((expected, expected))
        assert one.reference == pytest.approx(true_joules(dense) * statistics.mean(drift))  # bare
    assert platform.asked == [([dense, *dict.fromkeys(rows)], FULL)]  # one pass, equal rows once


def test_an_amount_is_the_mean_ratio_of_the_turns_times_the_standard() -> None:
    """Dense 1 J, 2 J, 4 J in three turns; the other network half of it, give or take."""
    platform = Drifting((1.0, 2.0, 4.0), shaky=(0.9, 1.0, 1.1))
    (one,) = platform.read_beside(SUBJECT, [(500,)], 1, reference=(1000,), standard=3.0)
    assert one.amount == pytest.approx(3.0 * (0.45 + 0.5 + 0.55) / 3)
    low, high = bootstrap_interval(np.array([0.45, 0.5, 0.55]), np.mean)  # of the ratios, not of the amounts
    assert one.interval == pytest.approx((3.0 * low, 3.0 * high)) and low < 0.5 < high
    assert one.detail is not None and one.detail["amounts"] == pytest.approx([0.45, 1.0, 2.2])
    assert one.detail["reference_amounts"] == pytest.approx([1.0, 2.0, 4.0])
    assert json.loads(json.dumps(one.detail)) == one.detail


def test_flags_of_the_reference_are_told_beside_a_row_s_own() -> None:
    platform = Drifting((1.0, 1.0), flags={(9,): ("throttled", "dropped"), (1,): ("warm",), (2,): ("throttled",)})
    found = platform.read_beside(SUBJECT, [(1,), (2,), (3,), (1,)], 1, reference=(9,), standard=1.0)
    assert [set(one.flags) for one in found] == [
        {"dropped", "throttled", "warm"},
        {"dropped", "throttled"},
        {"dropped", "throttled"},
        {"dropped", "throttled", "warm"},
    ]


def test_a_reference_that_reads_as_nothing_is_a_fault_of_the_sensor() -> None:
    with pytest.raises(MeterError, match="amounts above 0"):
        Drifting((1.0, 0.0)).read_beside(SUBJECT, [(1,)], 1, reference=(9,), standard=1.0)


def test_readings_to_land_are_shorter_than_those_that_count() -> None:
    platform = Drifting((1.0, 1.0))
    platform.read_beside(SUBJECT, [(1,)], 1, reference=(9,), standard=1.0, effort="landing")
    (_, settings) = platform.asked[-1]
    assert settings == closer(SHORT) and settings.limit_s < FULL.limit_s
    assert (settings.target, settings.visits) == (SHORT.target / 2, 2 * SHORT.visits)
    assert platform.reading_s(3) == 4 * FULL.limit_s  # the reference too
    assert platform.reading_s(1, "landing") == 2 * settings.limit_s


def test_networks_that_run_on_a_processor_that_slows_down_read_as_they_were() -> None:
    """Each inference takes a ten-thousandth longer than the one before it."""
    bench: Bench

    def seconds(widths: Sequence[int], batch: int) -> float:
        return 1e-3 * sum(widths) * 1.0001 ** len(bench.log)

    bench = Bench(ToyNet(), seconds)
    bench.platform.full = replace(bench.platform.full, target=0.05)
    dense, half = structure(ToyNet()).upper_bounds, (6, 10, 8, 12)
    (one,) = bench.platform.read_beside(bench.subject, [half], 1, reference=dense, standard=2.0)
    assert one.amount == pytest.approx(1.0, rel=0.01)
    assert one.interval[0] == pytest.approx(1.0, rel=0.02) and one.interval[1] == pytest.approx(1.0, rel=0.02)
    assert one.reference is not None and one.reference > 1.02e-3 * sum(dense)  # bare, it has slowed

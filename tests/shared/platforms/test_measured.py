"""Readings of networks on hardware are per image, in turns, alone on the device and on one core."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest
import torch
from torch import nn

from shared.meters import ClockMeter, MeterError, device_lock
from shared.networks import structure
from shared.platforms import MeasuredPlatform, Subject, measured
from tests.conftest import ToyNet
from tests.shared.meters.simulated import GTX_1080_TI, SimulatedClock, SimulatedMeter
from tests.shared.platforms.played import Bench


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path


def work(widths: Sequence[int], batch: int) -> float:
    return 1e-3 + 1e-5 * batch * sum(widths)


def test_seconds_per_image_in_turns() -> None:
    bench = Bench(ToyNet(), work)
    rows = [(12, 20, 16, 24), (1, 1, 1, 1), (6, 10, 8, 12)]
    readings = bench.platform.read(bench.subject, rows, 8, bench.platform.short)
    assert [reading.amount for reading in readings] == pytest.approx([work(row, 8) / 8 for row in rows])
    assert [reading.interval for reading in readings] == [pytest.approx((work(row, 8) / 8,) * 2) for row in rows]
    assert {(reading.unit, reading.method, reading.simulated) for reading in readings} == {("s", "clock", False)}
    visits = [row for row, _ in groupby(bench.log)]
    assert visits == [rows[0], rows[1], rows[2], rows[1], rows[0]] * 2 or visits[:3] == rows
    assert visits[2:5] == [rows[2], rows[1], rows[0]]  # there and back


def test_joules_are_those_of_the_power_while_it_runs() -> None:
    """100 W throughout: an image costs 100 times its seconds, whatever the sensor does."""
    bench = Bench(ToyNet(), work, lambda clock: SimulatedMeter(GTX_1080_TI, lambda moment_s: 100.0, clock))
    (reading,) = bench.platform.read(bench.subject, [(6, 10, 8, 12)], 4, bench.platform.short)
    assert reading.unit == "J" and bench.platform.unit == "J" and bench.platform.source == "simulated"
    assert reading.amount == pytest.approx(100 * work((6, 10, 8, 12), 4) / 4, rel=0.02)
    assert bench.platform.short.name == "short" and bench.platform.full.name == "full"


@pytest.mark.parametrize(
    ("launches", "batch"),  # of an image that one channel everywhere takes
    [(0.0, 2), (0.1, 4), (0.9, 32), (6.0, 128), (1000.0, measured.LARGEST_BATCH)],
)
def test_the_batch_is_where_launches_stop_counting(launches: float, batch: int) -> None:
    """A dense inference of b images takes launches + b, of which launches and one image's least may be a twentieth."""
    dense = structure(ToyNet()).upper_bounds
    bench = Bench(ToyNet(), lambda widths, images: 1e-3 * (launches + images * sum(widths) / sum(dense)))
    least = launches + len(dense) / sum(dense)
    found = bench.platform.inference_batch(bench.subject)
    assert found == batch
    assert batch == measured.LARGEST_BATCH or least <= 0.05 * (launches + batch)
    assert least > 0.05 * (launches + batch / 2)


@pytest.mark.parametrize("most", [0, 1, 32, 128])
@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_the_batch_is_one_that_memory_holds(most: int, error: Exception) -> None:
    def seconds(widths: Sequence[int], images: int) -> float:
        if images > most and tuple(widths) != (1, 1, 1, 1):
            raise error
        return 1.0 + 1e-3 * images

    bench = Bench(ToyNet(), seconds)
    assert bench.platform.inference_batch(bench.subject) == max(1, most)


def test_other_errors_while_looking_for_the_batch_are_told() -> None:
    def seconds(widths: Sequence[int], images: int) -> float:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    bench = Bench(ToyNet(), seconds)
    with pytest.raises(RuntimeError, match="shapes"):
        bench.platform.inference_batch(bench.subject)


def test_a_processor_runs_on_one_thread_that_stays_on_one_core() -> None:
    seen: list[tuple[int, set[int]]] = []

    class Watched(nn.Module):
        input_shape = (1, 4, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((torch.get_num_threads(), os.sched_getaffinity(0)))
            clock.sleep(1e-3)
            return images

    clock = SimulatedClock()
    platform = MeasuredPlatform("cpu", ClockMeter(clock), clock=clock)
    bench = Bench(ToyNet(), work)
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(2)
    try:
        platform.read(Subject(bench.subject.structure, lambda widths: Watched()), [(1, 1, 1, 1)], 1, platform.short)
        assert {count for count, _ in seen} == {1}
        assert {len(on) for _, on in seen} == {1}
        assert torch.get_num_threads() == 2 and os.sched_getaffinity(0) == cores
    finally:
        torch.set_num_threads(threads)


def test_nothing_is_read_while_ours_compute_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(ToyNet(), work)
    monkeypatch.setattr(measured, "WAIT_S", 0.0)
    with (
        device_lock("cpu", "training ecc", shared=True),
        pytest.raises(MeterError, match=r"cpu held by process .*training ecc"),
    ):
        bench.platform.read(bench.subject, [(1, 1, 1, 1)], 1, bench.platform.short)
    assert not bench.log
    assert len(bench.platform.read(bench.subject, [(1, 1, 1, 1)], 1, bench.platform.short)) == 1


def test_what_decides_readings_is_in_the_calibration() -> None:
    clock = SimulatedClock()
    one, other = MeasuredPlatform("cpu", ClockMeter(clock), clock=clock), MeasuredPlatform("cpu", ClockMeter(clock))
    assert one.calibration == other.calibration
    joules = MeasuredPlatform("cpu", SimulatedMeter(GTX_1080_TI, lambda moment_s: 1.0, clock), clock=clock)
    assert joules.calibration != one.calibration
    assert "thread" in one.host and one.source == "measured"

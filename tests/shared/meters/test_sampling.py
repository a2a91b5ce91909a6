"""Sampling beside the work: exact windows, flags for what is late or lost, the quantum, failures."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.meters import Clock, DroppedSample, MeterError, SampledMeter
from shared.meters.signal import DROPPED, LATE
from tests.shared.meters.simulated import SimulatedClock


class Ramp(SampledMeter):
    """Reads 100 W + 10 W/s * t, and does at chosen readings (counted from 0) what `faults` says."""

    name, scope = "ramp", "nothing"

    def __init__(self, clock: Clock, faults: dict[int, Exception] | None = None) -> None:
        super().__init__(0.1, clock=clock)
        self.faults, self.readings = faults or {}, 0

    def read_watts(self) -> float:
        self.readings += 1
        if fault := self.faults.get(self.readings - 1):
            raise fault
        return 100 + 10 * self.clock.now_s()


def lost() -> MeterError:
    return MeterError("an answer", "none", "again")


def dropped() -> DroppedSample:
    return DroppedSample("an answer", "none", "again")


@given(st.floats(0, 0.1), st.floats(0.25, 20))
def test_the_integral_is_of_exactly_the_window(wait_s: float, window_s: float) -> None:
    clock = SimulatedClock()
    clock.sleep(wait_s)
    meter = Ramp(clock)
    meter.start()
    assert clock.now_s() == wait_s  # nothing waits, so nothing cools down before the window
    clock.sleep(window_s)
    window = meter.stop()
    start, end = wait_s, wait_s + window_s
    assert (window.start_s, window.end_s) == (pytest.approx(start), pytest.approx(end))
    assert window.amount == pytest.approx(100 * window_s + 5 * (end**2 - start**2))
    assert window.flags == () and window.quantum == 0
    assert abs(window.samples - window_s / 0.1) <= 2 + 1e-6


def test_a_window_after_another_starts_anew() -> None:
    clock = SimulatedClock()
    meter = Ramp(clock, faults={5: dropped()})
    windows = []
    for _ in range(2):
        meter.start()
        clock.sleep(1.0)
        windows.append(meter.stop())
        readings = meter.readings
        clock.sleep(5.0)
        assert meter.readings == readings  # nothing is polled between windows
    assert [window.flags for window in windows] == [(DROPPED,), ()]
    assert windows[1].amount == pytest.approx(100 + 10 * 6.5)


@pytest.mark.parametrize(
    ("missing", "flags"),
    [((), ()), ((4,), (DROPPED,)), ((4, 5), (LATE, DROPPED)), ((0,), (DROPPED,)), ((8, 9, 10), (LATE, DROPPED))],
)
def test_dropped_samples_are_flagged_and_bridged(missing: tuple[int, ...], flags: tuple[str, ...]) -> None:
    clock = SimulatedClock()
    meter = Ramp(clock, {k: dropped() for k in missing})
    meter.start()
    clock.sleep(1.03)
    window = meter.stop()
    assert window.flags == flags
    if 0 not in missing:  # where the edge is known, a straight line is bridged exactly
        assert window.amount == pytest.approx(103 + 5 * 1.03**2)


def test_late_samples_are_flagged() -> None:
    clock = SimulatedClock()
    meter = Ramp(clock)
    slow = iter([0.0, 0.0, 0.16, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    read = meter.read_watts

    def read_slowly() -> float:
        wait_s = next(slow)
        clock._now_s += wait_s  # a sensor that blocks
        return read()

    meter.read_watts = read_slowly  # type: ignore[method-assign]
    meter.start()
    clock.sleep(0.6)
    assert meter.stop().flags == ()  # 0.16 s late: a gap of two periods or so
    slow = iter([0.0, 0.0, 0.5, *[0.0] * 9])
    meter.start()
    clock.sleep(0.8)
    assert meter.stop().flags == (LATE,)


def test_the_quantum_grows_with_the_window() -> None:
    clock = SimulatedClock()
    meter = Ramp(clock)
    meter.quantum_watts = 0.152
    meter.start()
    clock.sleep(2.0)
    assert meter.stop().quantum == pytest.approx(0.304)


@pytest.mark.parametrize(("missing", "got"), [(range(99), 0), (range(1, 99), 1), ([*range(5), *range(6, 99)], 1)])
def test_fewer_than_two_samples_are_no_number(missing: Iterable[int], got: int) -> None:
    clock = SimulatedClock()
    meter = Ramp(clock, {k: dropped() for k in missing})
    meter.start()
    clock.sleep(1.05)
    with pytest.raises(MeterError, match=f"at least 2 samples in the window, got {got}"):
        meter.stop()


def test_a_sensor_that_is_silent_from_the_start_fails_at_the_start() -> None:
    with pytest.raises(MeterError, match="expected an answer"):
        Ramp(SimulatedClock(), {0: lost()}).start()


def test_a_sensor_that_is_lost_on_the_way_is_no_number() -> None:
    clock = SimulatedClock()
    meter = Ramp(clock, {k: lost() for k in range(4, 99)})
    meter.start()
    with pytest.raises(MeterError, match="expected an answer"):
        clock.sleep(1)
    with pytest.raises(MeterError, match="expected an answer"):
        meter.stop()


@pytest.mark.parametrize("watts", [-1.0, math.nan])
def test_nonsense_is_no_number(watts: float) -> None:
    clock = SimulatedClock()
    meter = Ramp(clock)
    meter.read_watts = lambda: watts  # type: ignore[method-assign]
    meter.start()
    clock.sleep(1)
    with pytest.raises(MeterError, match="0 W or more"):
        meter.stop()

"""Wall time as a meter."""

from __future__ import annotations

import pytest

from shared.meters import ClockMeter, MeterError
from tests.shared.meters.simulated import SimulatedClock


def test_seconds_from_start_to_stop() -> None:
    clock = SimulatedClock(5.0)
    meter = ClockMeter(clock)
    meter.start()
    clock.sleep(0.25)
    window = meter.stop()
    assert (window.amount, window.start_s, window.end_s) == (0.25, 5.0, 5.25)
    assert (meter.unit, meter.method, meter.name, window.samples) == ("s", "clock", "clock", 0)


def test_no_time_is_no_number() -> None:
    meter = ClockMeter(SimulatedClock())
    meter.start()
    with pytest.raises(MeterError, match="a window longer than 0 s"):
        meter.stop()


def test_the_machines_clock_is_the_default() -> None:
    meter = ClockMeter()
    meter.start()
    sum(range(1000))
    assert meter.stop().amount > 0

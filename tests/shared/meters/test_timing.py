"""Repeating work happens at its moments on a simulated clock, and in a thread on the machine's."""

from __future__ import annotations

import threading

import pytest

from shared.meters import Clock
from tests.shared.meters.simulated import SimulatedClock


def test_simulated_work_happens_at_its_exact_moments() -> None:
    clock, told = SimulatedClock(10.0), []
    stop = clock.every(0.5, lambda: told.append(("a", clock.now_s())))
    clock.every(0.75, lambda: told.append(("b", clock.now_s())))
    clock.sleep(1.5)
    assert clock.now_s() == 11.5
    assert told == [("a", 10), ("b", 10), ("a", 10.5), ("b", 10.75), ("a", 11.0), ("a", 11.5), ("b", 11.5)]
    stop()
    clock.sleep(0.75)
    assert told[7:] == [("b", 12.25)]


def test_simulated_work_that_takes_its_time_is_not_made_up_for() -> None:
    clock, told = SimulatedClock(), []

    def work() -> None:
        told.append(clock.now_s())
        if len(told) == 2:
            clock.sleep(3.5)

    clock.every(1.0, work)
    clock.sleep(6.0)
    assert told == [0, 1, 4.5, 5.5]


def test_simulated_failures_surface() -> None:
    clock = SimulatedClock()

    def fail() -> None:
        if clock.now_s() > 1:
            raise OSError("gone")

    clock.every(0.4, fail)
    with pytest.raises(OSError, match="gone"):
        clock.sleep(2)


def test_machine_work_repeats_until_it_is_stopped() -> None:
    clock, calls, enough = Clock(), [], threading.Event()

    def work() -> None:
        calls.append(clock.now_s())
        if len(calls) >= 3:
            enough.set()

    stop = clock.every(0.001, work)
    assert enough.wait(30)
    stop()
    count = len(calls)
    clock.sleep(0.01)
    assert len(calls) == count and calls == sorted(calls)


def test_machine_failures_surface_on_stopping() -> None:
    calls, failed = [], threading.Event()

    def fail_later() -> None:
        calls.append(threading.current_thread())
        if len(calls) == 2:
            failed.set()
            raise OSError("gone")

    stop = Clock().every(0.001, fail_later)
    assert failed.wait(30)
    with pytest.raises(OSError, match="gone"):
        stop()
    assert len(calls) == 2


@pytest.mark.parametrize("clock", [Clock(), SimulatedClock()], ids=["machine", "simulated"])
def test_the_first_call_fails_at_once(clock: Clock) -> None:
    calls = []

    def fail() -> None:
        calls.append(threading.current_thread())
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        clock.every(0.001, fail)
    clock.sleep(0.01)
    assert calls == [threading.current_thread()]

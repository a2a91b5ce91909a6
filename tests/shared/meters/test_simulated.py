"""Each stage of the played sensor against a closed form, and joules that come back through all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from shared.meters import MeterError
from shared.meters.signal import DROPPED
from tests.shared.meters.simulated import (
    GTX_1080_TI,
    TX2_VDD_IN,
    Sensor,
    SimulatedClock,
    SimulatedMeter,
    SteppedPower,
    ages_s,
    ina3221,
)

PLAIN = Sensor(update_s=0.02, averaged_s=0.01)


def readings(sensor: Sensor, watts: Callable[[float], float], moments_s: list[float], seed: int = 0) -> list[float]:
    clock = SimulatedClock()
    meter = SimulatedMeter(sensor, watts, clock, seed=seed)
    values = []
    for moment_s in moments_s:
        clock.sleep(moment_s - clock.now_s())
        values.append(meter.read_watts())
    return values


def test_a_reading_is_the_mean_of_its_window_and_held_until_the_next_update() -> None:
    ramp = lambda moment_s: 100 * moment_s  # noqa: E731
    got = readings(PLAIN, ramp, [0.100, 0.105, 0.119, 0.120, 0.2])
    assert got == pytest.approx([9.5, 9.5, 9.5, 11.5, 19.5])  # mean over the 10 ms before an update
    assert readings(replace(PLAIN, delay_s=0.03), ramp, [0.1, 0.2]) == pytest.approx([6.5, 16.5])


def test_power_in_the_blind_half_is_not_seen() -> None:
    blind = lambda moment_s: 200.0 if moment_s % 0.02 < 0.01 else 50.0  # noqa: E731
    assert readings(PLAIN, blind, [0.1, 0.3]) == pytest.approx([50, 50])


@pytest.mark.parametrize("rise_s", [0.0, 0.039, 0.25])
def test_a_step_rises_as_lag_and_window_say(rise_s: float) -> None:
    sensor = Sensor(update_s=0.001, averaged_s=0.010, delay_s=0.012, rise_s=rise_s)
    tau_s = rise_s / (math.log(0.9) - math.log(0.1)) or 1e-9

    def response(after_s: float) -> float:
        """Of the lag alone."""
        return 1 - math.exp(-after_s / tau_s) if after_s > 0 else 0.0

    moments_s = [1 + k * 0.007 for k in range(1, 60)]
    got = readings(sensor, lambda moment_s: 100.0 * (moment_s >= 1), moments_s)
    for moment_s, value in zip(moments_s, got, strict=True):
        after_s = math.floor(moment_s / 0.001 + 1e-9) * 0.001 - 1.012
        mean = integrate.quad(response, after_s - 0.010, after_s, points=[0.0])[0] / 0.010
        assert value == pytest.approx(100 * mean, abs=100 / 20)  # 20 moments stand for the window


@given(st.floats(0.001, 0.2), st.floats(0, 0.1), st.floats(0, 0.5))
def test_ages_have_the_kernels_mean(averaged_s: float, delay_s: float, rise_s: float) -> None:
    sensor = Sensor(update_s=0.02, averaged_s=averaged_s, delay_s=delay_s, rise_s=rise_s)
    found = ages_s(sensor)
    tau_s = rise_s / math.log(9)
    assert (np.diff(found) > 0).all() and found[0] > delay_s
    assert found.mean() == pytest.approx(delay_s + averaged_s / 2 + tau_s, abs=0.03 * (averaged_s + rise_s))


def test_calibration_and_quantum() -> None:
    sensor = replace(PLAIN, slope=0.9, offset_watts=-5.0)
    assert readings(sensor, lambda _: 100.0, [1.0]) == pytest.approx([85])
    assert readings(sensor, lambda _: 2.0, [1.0]) == [0]  # never below nothing
    assert readings(replace(PLAIN, quantum_watts=7.0), lambda _: 100.0, [1.0]) == pytest.approx([98])
    noisy = readings(replace(PLAIN, quantum_watts=7.0, noise_watts=20.0), lambda _: 100.0, [k / 10 for k in range(50)])
    assert all(value % 7 == pytest.approx(0, abs=1e-9) for value in noisy) and len(set(noisy)) > 3


def test_noise_is_normal_and_a_function_of_seed_and_update() -> None:
    moments_s = [k * 0.02 for k in range(2000)]
    noisy = replace(PLAIN, noise_watts=3.0)
    one, same, other = (readings(noisy, lambda _: 100.0, moments_s, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert np.mean(one) == pytest.approx(100, abs=4 * 3 / math.sqrt(2000))
    assert np.std(one) == pytest.approx(3, rel=0.08)
    assert readings(noisy, lambda _: 100.0, moments_s[7::9], seed=1) == one[7::9]  # whatever was read before


def test_drop_outs_have_their_rate_and_a_flag() -> None:
    clock = SimulatedClock()
    meter = SimulatedMeter(replace(PLAIN, drop_rate=0.2), lambda _: 80.0, clock)
    meter.start()
    clock.sleep(40.0)
    window = meter.stop()
    assert window.samples / 2000 == pytest.approx(0.8, abs=0.04)
    assert DROPPED in window.flags and window.amount == pytest.approx(3200)


def test_refusals() -> None:
    clock = SimulatedClock()
    with pytest.raises(MeterError, match="NOT_SUPPORTED"):
        SimulatedMeter(replace(PLAIN, supported=False), lambda _: 80.0, clock).start()
    meter = SimulatedMeter(replace(PLAIN, lost_after_s=2.0), lambda _: 80.0, clock)
    meter.start()
    clock.sleep(1.9)
    assert meter.stop().amount == pytest.approx(1.9 * 80)
    meter.start()
    with pytest.raises(MeterError, match="GPU_IS_LOST"):
        clock.sleep(1.0)
    with pytest.raises(MeterError, match="GPU_IS_LOST"):
        meter.stop()


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0, 300)), max_size=10), st.floats(-3, 30), st.floats(0, 30))
def test_power_at_hand_adds_up(steps: list[tuple[float, float]], start_s: float, lasts_s: float) -> None:
    clock = SimulatedClock(1.0)
    power = SteppedPower(clock, 40.0)
    for wait_s, watts in steps:
        clock.sleep(wait_s)
        power.draw(watts)
    changes = [k for k in power._times_s if start_s < k < start_s + lasts_s]
    edges = [start_s, *changes, start_s + lasts_s]
    expected = sum(power((a + b) / 2) * (b - a) for a, b in pairwise(edges))
    assert power.joules(start_s, start_s + lasts_s) == pytest.approx(expected, abs=1e-6)


def test_presets() -> None:
    assert (GTX_1080_TI.update_s, GTX_1080_TI.averaged_s) == (0.020, 0.010)
    assert (GTX_1080_TI.rise_s, GTX_1080_TI.delay_s) == (0.039, 0.012)
    assert TX2_VDD_IN.quantum_watts == pytest.approx(8e-3 * 19, rel=1e-9)  # 40 uV over 5 mOhm is 8 mA
    logged = ina3221(shunt_ohms=10e-3, supply_volts=19.2).quantum_watts
    assert [math.floor(1000 * k * logged + 0.5) for k in (1, 7)] == [77, 538]  # steps as TX2 boards log them
    facts = SimulatedMeter(GTX_1080_TI, lambda _: 80.0, SimulatedClock(), seed=3).facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts and facts["seed"] == 3 and facts["rise_s"] == 0.039


def random_load(draw: np.random.Generator) -> tuple[Callable[[float], float], float, float]:
    """A load that repeats: watts by moment, its period in seconds, its true joules per period.

    Straight pieces or steps between levels of 60 to 280 W, as layers and batches of a network come and go.
    """
    period_s, pieces = float(np.exp(draw.uniform(np.log(0.003), np.log(0.3)))), int(draw.integers(2, 7))
    edges = np.sort(np.r_[0, draw.uniform(0, 1, pieces - 1), 1]) * period_s
    levels = draw.uniform(60, 280, pieces)
    if draw.random() < 0.5:
        return (
            lambda moment_s: float(levels[min(np.searchsorted(edges, moment_s % period_s, "right") - 1, pieces - 1)]),
            period_s,
            float(np.diff(edges) @ levels),
        )
    ring = np.r_[levels, levels[0]]
    return (
        lambda moment_s: float(np.interp(moment_s % period_s, edges, ring)),
        period_s,
        float(np.trapezoid(ring, edges)),
    )


@pytest.mark.parametrize("index", range(100))
def test_joules_of_a_1080_ti_come_back_within_a_percent(index: int) -> None:
    """Windows of 1 s or more, whole runs of the load, mean over eight phases of the sensor."""
    watts, period_s, joules = random_load(np.random.default_rng(index))
    clock, begin_s = SimulatedClock(), 0.0
    meter = SimulatedMeter(GTX_1080_TI, lambda moment_s: watts(moment_s - begin_s), clock)
    runs = math.ceil(1.0 / period_s)
    errors = []
    for phase in range(8):
        updates = math.ceil(clock.now_s() / 0.02) + 50
        begin_s = (updates + phase / 8) * 0.02  # the load is under way before, and a run begins here
        clock.sleep(begin_s - clock.now_s())
        meter.start()
        clock.sleep(runs * period_s)
        errors.append(meter.stop().amount / (runs * joules) - 1)
    assert abs(np.mean(errors)) < 0.01


def test_loads_in_step_with_the_sensor_need_the_phases() -> None:
    """Work as long as an update is seen by one half only; the eight phases together see all of it."""
    clock = SimulatedClock()
    power = SteppedPower(clock, 60.0)
    meter = SimulatedMeter(PLAIN, power, clock)
    errors = []
    for phase in range(8):
        clock.sleep(phase / 8 * 0.02)
        for warm in (True, False):
            if not warm:
                meter.start()
            for _ in range(50):
                power.draw(200.0)
                clock.sleep(0.01)
                power.draw(60.0)
                clock.sleep(0.01)
        errors.append(meter.stop().amount / (50 * 2.6) - 1)
        clock.sleep(0.02 * math.ceil(clock.now_s() / 0.02 - 1e-9) - clock.now_s())
    assert max(map(abs, errors)) > 0.5 and abs(np.mean(errors)) < 0.01

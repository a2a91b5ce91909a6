"""The protocol: what is read, when, in which order and how often; intervals against scipy and against the truth."""

from __future__ import annotations

import doctest
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from shared.meters import FULL, SHORT, ClockMeter, Meter, MeterError, Settings, Window, measure_all, measuring
from shared.meters.measuring import ATTEMPTS, REPEATED
from shared.meters.reading import DRIFTED, bootstrap_interval
from shared.meters.signal import DROPPED
from tests.shared.meters.simulated import Sensor, SimulatedClock, SimulatedMeter, SteppedPower, measure

EXACT = Sensor(update_s=0.001, averaged_s=0.001)
TINY = Settings("tiny", 4, window_s=1.0, runs=8, warmup_s=0.5, cool_down_s=1.0, idle_s=1.0, target=0.01, limit_s=30.0)


class Bench:
    """A machine that draws 50 W at rest, and works that draw more; what happens is noted with its moment."""

    def __init__(self, sensor: Sensor = EXACT, seed: int = 0) -> None:
        self.clock = SimulatedClock(100.0)
        self.power = SteppedPower(self.clock, 50.0)
        self.meter = SimulatedMeter(sensor, self.power, self.clock, seed=seed)
        self.notes: list[tuple[str, float]] = []

    def work(self, watts: float, seconds: float, name: str = "run") -> Callable[[], None]:
        def run() -> None:
            self.notes.append((name, self.clock.now_s()))
            self.power.draw(watts)
            self.clock.sleep(seconds)
            self.power.draw(50.0)

        return run

    def watch(self, meter: Meter) -> list[Window]:
        """Windows of `meter` as they are made."""
        windows, stop = [], meter.stop

        def stop_and_keep() -> Window:
            windows.append(stop())
            return windows[-1]

        meter.stop = stop_and_keep  # type: ignore[method-assign]
        return windows


def test_the_worked_example_runs() -> None:
    outcome = doctest.testmod(measuring)
    assert outcome.failed == 0 and outcome.attempted >= 8


def test_joules_of_a_run_gross_and_without_idle() -> None:
    bench = Bench()
    reading = measure(bench.work(150.0, 0.02), bench.meter, TINY, bench.clock)
    assert reading.amount == pytest.approx(3.0, rel=2e-3) and reading.unit == "J"
    assert reading.idle_subtracted == pytest.approx(2.0, rel=3e-3)
    assert reading.idle_watts == pytest.approx((50, 50))
    assert reading.seconds == pytest.approx(0.02) and len(reading.amounts) == 4
    assert reading.repeats in range(200, 209)  # four windows of a second
    assert reading.samples == pytest.approx(4000, rel=0.05)
    assert (reading.ended, reading.settings, reading.simulated, reading.flags) == ("target", "tiny", True, ())
    assert (reading.meter, reading.scope, reading.method) == ("sim", "simulated board", "integral")
    assert json.loads(json.dumps(asdict(reading), allow_nan=False))["sensor"]["update_s"] == 0.001


def test_a_visit_rests_shifts_warms_up_and_reads() -> None:
    bench = Bench(Sensor(update_s=0.08, averaged_s=0.01))
    windows = bench.watch(bench.meter)
    measure(bench.work(150.0, 0.25), bench.meter, TINY, bench.clock)
    idle_before, *work, idle_after = windows
    assert [window.seconds for window in windows] == pytest.approx([1, 2, 2, 2, 2, 1])  # 8 runs of 0.25 s are 2 s
    assert idle_before.start_s == pytest.approx(101)
    starts = [window.start_s for window in work]
    assert starts[0] - idle_before.end_s == pytest.approx(1.5)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps == pytest.approx([3.5 + 0.02, 3.5 + 0.04, 3.5 + 0.06])  # quarters of the sensor's 0.08 s
    assert idle_after.start_s - work[-1].end_s == pytest.approx(1.0)
    begun = [moment for _, moment in bench.notes]
    assert len(begun) == 4 * (2 + 8)  # two runs to warm up
    assert begun[1] + 0.25 == pytest.approx(starts[0])  # without a pause
    assert sum(any(window.start_s - 1e-9 <= moment < window.end_s - 1e-9 for window in work) for moment in begun) == 32


def test_windows_last_until_both_seconds_and_runs_are_enough() -> None:
    for seconds, runs in ((0.3, 8), (0.051, 20), (0.0307, 33)):
        bench = Bench()
        assert measure(bench.work(90.0, seconds), bench.meter, TINY, bench.clock).repeats / 4 == runs


def test_presets_follow_the_good_practice() -> None:
    assert (FULL.window_s, FULL.runs, FULL.visits) == (5.0, 32, 8)
    assert SHORT.window_s < FULL.window_s and SHORT.name == "short" and FULL.name == "full"
    for visits in (0, 1, 3):
        with pytest.raises(ValueError, match="even number of visits"):
            replace(SHORT, visits=visits)


def test_several_works_go_there_and_back() -> None:
    bench = Bench()
    works = {name: bench.work(watts, 0.1, name) for name, watts in (("A", 100.0), ("B", 150.0), ("C", 250.0))}
    readings = measure_all(works, bench.meter, TINY, bench.clock)
    order = [bench.notes[0][0]] + [b for (a, at), (b, then) in pairwise(bench.notes) if then - at > 0.5]
    assert "".join(order) == "ABCCBA" * 2
    assert {name: reading.amount for name, reading in readings.items()} == pytest.approx(
        {"A": 10, "B": 15, "C": 25}, rel=2e-3
    )
    assert {len(reading.amounts) for reading in readings.values()} == {4}


def test_a_steady_drift_meets_all_works_alike() -> None:
    bench = Bench()
    began_s = bench.clock.now_s()
    warming = lambda moment_s: bench.power(moment_s) * (1 + 0.002 * (moment_s - began_s))  # noqa: E731
    bench.meter.watts = warming
    works = {name: bench.work(100.0, 0.1, name) for name in "AB"}
    settings = replace(TINY, target=0.1)
    readings = measure_all(works, bench.meter, settings, bench.clock)
    assert readings["A"].amount == pytest.approx(readings["B"].amount, rel=1e-3)
    assert readings["A"].spread > 0.01 * readings["A"].amount


def test_visits_go_on_until_the_target_or_the_limit() -> None:
    noisy = replace(EXACT, update_s=0.1, noise_watts=40.0)
    ends = {}
    for target in (0.5, 0.05, 0.001):
        bench = Bench(noisy, seed=5)
        began_s = bench.clock.now_s()
        settings = replace(TINY, target=target, limit_s=150.0)
        reading = measure(bench.work(150.0, 0.1), bench.meter, settings, bench.clock)
        half_width = (reading.interval[1] - reading.interval[0]) / 2
        assert (half_width <= target * reading.amount) == (reading.ended == "target")
        ends[target] = reading.ended, len(reading.amounts), bench.clock.now_s() - began_s
    assert ends[0.5][:2] == ("target", 4)
    assert ends[0.05][0] == "target" and ends[0.05][1] > 4
    assert ends[0.001][0] == "limit" and 150 < ends[0.001][2] < 160


def test_the_limit_does_not_cut_below_the_fewest_visits() -> None:
    bench = Bench(replace(EXACT, update_s=0.1, noise_watts=40.0))
    reading = measure(bench.work(150.0, 0.1), bench.meter, replace(TINY, target=1e-6, limit_s=1.0), bench.clock)
    assert (reading.ended, len(reading.amounts)) == ("limit", 4)


def test_each_work_says_for_itself_what_ended_it() -> None:
    bench = Bench(replace(EXACT, update_s=0.1, noise_watts=10.0))
    works = {"strong": bench.work(10_000.0, 0.1), "weak": bench.work(51.0, 0.1)}
    readings = measure_all(works, bench.meter, replace(TINY, target=0.005, limit_s=20.0), bench.clock)
    assert {name: reading.ended for name, reading in readings.items()} == {"strong": "target", "weak": "limit"}


def test_the_quantum_widens_the_interval_and_does_not_prolong_visits() -> None:
    bench = Bench(replace(EXACT, quantum_watts=20.0))
    reading = measure(bench.work(149.0, 0.1), bench.meter, TINY, bench.clock)
    assert reading.quantum == pytest.approx(2.0) and len(reading.amounts) == 4
    assert reading.interval == pytest.approx((reading.amount - 1, reading.amount + 1), rel=5e-3)
    assert reading.amount == pytest.approx(14.0, rel=5e-3) and reading.interval[0] < 14.9 < reading.interval[1]


def test_flags_of_all_windows_are_kept_and_drifting_idle_is_one() -> None:
    bench = Bench(replace(EXACT, drop_rate=0.01))
    assert measure(bench.work(150.0, 0.1), bench.meter, TINY, bench.clock).flags == (DROPPED,)
    for rest_watts, flags in ((54.0, ()), (56.0, (DRIFTED,)), (44.0, (DRIFTED,))):
        bench = Bench()
        work = bench.work(150.0, 0.1)

        def run(bench: Bench = bench, work: Callable[[], None] = work, rest_watts: float = rest_watts) -> None:
            work()
            bench.power.draw(rest_watts)

        reading = measure(run, bench.meter, TINY, bench.clock)
        assert reading.flags == flags and reading.idle_watts == pytest.approx((50, rest_watts), rel=2e-3)
        assert reading.idle_subtracted == pytest.approx(reading.amount - (50 + rest_watts) / 2 * 0.1)


def test_latency_is_the_median_of_single_runs() -> None:
    clock = SimulatedClock()
    lengths = iter([*[0.5] * 2, *([0.1] * 9 + [7.0]) * 99])  # one run in ten is interrupted

    meter = ClockMeter(clock)
    bench = Bench()
    windows = bench.watch(meter)
    settings = replace(TINY, warmup_s=1.0, runs=30)
    reading = measure(lambda: clock.sleep(next(lengths)), meter, settings, clock)
    assert reading.amount == reading.seconds == pytest.approx(0.1)
    assert reading.interval == pytest.approx((0.1, 0.1)) and reading.spread == pytest.approx(0)
    assert (reading.unit, reading.method, reading.scope) == ("s", "clock", "wall time")
    assert (reading.idle_subtracted, reading.idle_watts, reading.samples) == (None, None, 0)
    assert len(windows) == reading.repeats >= 4 * 30


def test_a_failing_run_ends_the_sampling_and_surfaces() -> None:
    bench = Bench()
    run, left = bench.work(150.0, 0.1), iter(range(9))

    def fail() -> None:
        if next(left) == 8:
            raise ZeroDivisionError("in the work")
        run()

    with pytest.raises(ZeroDivisionError, match="in the work"):
        measure(fail, bench.meter, TINY, bench.clock)
    asked = []
    bench.meter.read_watts = lambda: asked.append(1) or 1.0  # type: ignore[method-assign, func-returns-value]
    bench.clock.sleep(1.0)
    assert not asked


def test_a_sensor_that_is_lost_is_no_number() -> None:
    bench = Bench(replace(EXACT, lost_after_s=105.0))
    with pytest.raises(MeterError, match="GPU_IS_LOST"):
        measure(bench.work(150.0, 0.1), bench.meter, TINY, bench.clock)


@pytest.mark.parametrize("failing", [0, 1, 3, 5])  # idle before, two of the visits, idle after
@pytest.mark.parametrize("failures", [1, ATTEMPTS - 1, ATTEMPTS])
def test_a_window_that_the_sensor_fails_in_is_read_again(failing: int, failures: int) -> None:
    """Whatever is read in it: a sensor that failed once in the last rest must not take all visits along."""
    bench = Bench()
    stop, windows, left = bench.meter.stop, [], failures

    def stop_and_fail() -> Window:
        nonlocal left
        window = stop()
        if len(windows) == failing and left:
            left -= 1
            raise MeterError("an answer", "none", "again")
        windows.append(window)
        return window

    bench.meter.stop = stop_and_fail  # type: ignore[method-assign]
    work = bench.work(150.0, 0.02)
    if failures == ATTEMPTS:
        with pytest.raises(MeterError, match="expected an answer"):
            measure(work, bench.meter, TINY, bench.clock)
        return
    reading = measure(work, bench.meter, TINY, bench.clock)
    assert reading.flags == (REPEATED,) and len(reading.amounts) == 4 and len(windows) == 6
    assert reading.amount == pytest.approx(3.0, rel=2e-3) and reading.idle_watts == pytest.approx((50, 50))


@pytest.mark.parametrize("take", [np.mean, np.median])
@pytest.mark.parametrize("n", [5, 8, 40])
def test_the_interval_is_scipys_percentiles_widened(take: Callable[..., float], n: int) -> None:
    values = np.random.default_rng(n).gamma(3.0, size=n)
    theirs = stats.bootstrap(
        (values,), take, confidence_level=0.9, method="percentile", n_resamples=40_000, rng=np.random.default_rng(1)
    ).confidence_interval
    student, normal = stats.t.ppf(0.95, n - 1), stats.norm.ppf(0.95)
    expected = take(values) + (np.array(theirs) - take(values)) * student / normal / math.sqrt((n - 1) / n)
    ours = bootstrap_interval(values, take, confidence=0.9)
    assert ours == pytest.approx(tuple(expected), abs=0.03 * np.ptp(values))
    assert ours == bootstrap_interval(values, take, confidence=0.9)


def test_the_interval_of_an_even_sample_is_students() -> None:
    values = stats.norm.ppf((np.arange(30) + 0.5) / 30)
    half_width = stats.t.ppf(0.99, 29) * stats.sem(values)
    assert bootstrap_interval(values) == pytest.approx((-half_width, half_width), rel=0.04)


def test_intervals_of_two_values_and_of_equal_ones() -> None:
    assert bootstrap_interval([4.0, 4.0, 4.0]) == (4.0, 4.0)
    low, high = bootstrap_interval([1.0, 3.0])
    assert low < -10 and high > 14  # two values tell next to nothing


def test_intervals_of_eight_normal_values_hold_what_they_promise() -> None:
    rows = np.random.default_rng(0).normal(10.0, 2.0, (500, 8))
    held = sum(low <= 10.0 <= high for low, high in map(bootstrap_interval, rows))
    assert 0.96 < held / 500 < 0.995


SENSORS = {
    "slow and half blind": Sensor(update_s=0.100, averaged_s=0.025, rise_s=0.25, noise_watts=1.0),
    "dropping": Sensor(update_s=0.040, averaged_s=0.020, noise_watts=2.0, drop_rate=0.3),
    "coarse": Sensor(update_s=0.040, averaged_s=0.040, rise_s=0.2, quantum_watts=8.0),
}


@pytest.mark.parametrize("kind", SENSORS)
def test_stated_intervals_cover_the_true_joules(kind: str) -> None:
    """100 loads of random runs per sensor, warming up from visit to visit; the truth is the integral of true power."""
    settings = Settings("drawn", 8, 1.0, runs=4, warmup_s=0.6, cool_down_s=0.5, idle_s=0.5, target=0.05, limit_s=1.0)
    covered = 0
    for index in range(100):
        draw = np.random.default_rng([index, *map(ord, kind)])
        bench = Bench(SENSORS[kind], seed=index)
        period_s, duty = float(np.exp(draw.uniform(math.log(0.03), math.log(0.4)))), draw.uniform(0.2, 0.9)
        low, high = draw.uniform(60, 120), draw.uniform(130, 280)
        drift = draw.uniform(0, 1e-3)  # per second

        def run(
            bench: Bench = bench,
            lengths_s: tuple[float, float] = (period_s * duty, period_s * (1 - duty)),
            watts: tuple[float, float] = (high, low),
            drift: float = drift,
        ) -> None:
            for length_s, level in zip(lengths_s, watts, strict=True):
                bench.power.draw(level * (1 + drift * (bench.clock.now_s() - 100)))
                bench.clock.sleep(length_s)
            bench.power.draw(50.0)  # at rest between visits

        windows = bench.watch(bench.meter)
        reading = measure(run, bench.meter, settings, bench.clock)
        work = windows[1:-1]
        truth = sum(bench.power.joules(window.start_s, window.end_s) for window in work) / reading.repeats
        covered += reading.interval[0] <= truth <= reading.interval[1]
        assert reading.interval[1] - reading.interval[0] < 0.5 * truth  # and says something
    assert covered >= 95

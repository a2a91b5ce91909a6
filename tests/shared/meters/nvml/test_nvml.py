"""The NVML meter on a made-up board: joules of known traces from each source, flags, and every fault in words."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.meters import MeterError, probing
from shared.meters.nvml.devices import devices
from shared.meters.nvml.library import Library, NvmlFault
from shared.meters.nvml.meter import DIFFERENT, UNCHECKED, NvmlMeter
from shared.meters.nvml.sources import counted_joules, update_period_s
from shared.meters.signal import DROPPED, LATE
from tests.shared.meters.nvml.nvml_stub.fake import COUNTER, INSTANT, SAMPLES, USAGE, WALL_S, Board, FakeNvml
from tests.shared.meters.simulated import SimulatedClock

BEGIN_S = 20.0  # by then the trials are over
SOURCES = {  # what the board lacks, so that the named source is used
    "energy counter": (),
    "buffered power samples": (COUNTER,),
    "instant power": (COUNTER, SAMPLES),
    "power usage": (COUNTER, SAMPLES, INSTANT),
}
TRACES = {  # of the second from BEGIN_S on; before and after it the board idles
    "constant": [(0, 200), (1, 200)],
    "steps": [(0, 240), (0.35, 240), (0.35, 90), (0.6, 90), (0.6, 180), (1, 180)],
    "ramp": [(0, 100), (1, 240)],
    "peak": [(0, 200), (0.5, 260), (1, 200)],
}


def jitter(knots: list[tuple[float, float]], until_s: float = BEGIN_S) -> list[tuple[float, float]]:
    """An idle board's unrest of 2 W up to a moment, then the knots after it."""
    idle = [(0.013 * k, 60.0 + 2 * ((k * k) % 7) / 7) for k in range(int(until_s / 0.013))]
    return idle + [(until_s, 60.0)] + [(until_s + at, float(watts)) for at, watts in knots]


def quiet(*knots: tuple[float, float]) -> list[tuple[float, float]]:
    return [(0.0, 60.0), (BEGIN_S, 60.0)] + [(BEGIN_S + at, float(watts)) for at, watts in knots]


def on(board: Board) -> tuple[NvmlMeter, SimulatedClock]:
    clock = SimulatedClock(BEGIN_S - 8)
    bindings = FakeNvml(board, clock.now_s)
    return NvmlMeter(devices(Library(bindings))[0], clock=clock, wall_s=lambda: WALL_S + clock.now_s()), clock


def phase_average(board: Board, seconds: float, begin_s: float = BEGIN_S, phases: int = 10) -> float:
    """Mean joules of the window over the sensor's phases."""
    found = []
    for k in range(phases):
        board.phase_s = board.update_s * (k + 0.37) / phases
        meter, clock = on(board)
        clock.sleep(begin_s - clock.now_s())
        meter.start()
        clock.sleep(seconds)
        found.append(meter.stop().amount)
    return float(np.mean(found))


def measured(board: Board, seconds: float = 1.0):
    meter, clock = on(board)
    clock.sleep(BEGIN_S - clock.now_s())
    meter.start()
    clock.sleep(seconds)
    return meter.stop()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("trace", TRACES)
def test_joules_are_those_of_the_trace(source: str, trace: str) -> None:
    board = Board([*jitter(TRACES[trace]), (BEGIN_S + 1, 60.0)]).lacking(*SOURCES[source])
    truth = board.joules(BEGIN_S + 1) - board.joules(BEGIN_S)
    assert phase_average(board, 1.0) == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("source", SOURCES)
def test_a_constant_power_is_exact_and_needs_no_change(source: str) -> None:
    board = Board([(0.0, 200.0), (1.0, 200.0)]).lacking(*SOURCES[source])
    meter, clock = on(board)
    meter.start()
    clock.sleep(1.5)
    window = meter.stop()
    assert window.amount == pytest.approx(300, rel=5e-3 if source == "energy counter" else 1e-9)
    assert window.seconds == 1.5 and window.flags == ()
    assert meter.trials[-1].source == ("buffered power samples" if source == "energy counter" else source)
    period = meter.facts()["update_period_s"][source]
    if source in ("instant power", "power usage"):
        assert period == "unknown" and meter.poll_s == 0.010
    else:
        assert period == pytest.approx(0.020, abs=0.001)


@pytest.mark.parametrize("source", SOURCES)
def test_a_sensor_of_100_ms_follows_a_load_that_began_before_the_window(source: str) -> None:
    trace = [(0, 240), (1.7, 240), (1.7, 100), (3.2, 180), (5, 180)]
    board = Board([*jitter(TRACES["constant"], BEGIN_S - 1), *quiet(*trace)[2:]], update_s=0.1, average_s=0.1)
    board.lacking(*SOURCES[source])
    truth = board.joules(BEGIN_S + 5) - board.joules(BEGIN_S)
    assert phase_average(board, 5.0) == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("source", SOURCES)
def test_readings_are_dated_by_when_they_were_taken(source: str) -> None:
    board = Board([*jitter(TRACES["ramp"]), (BEGIN_S + 1.5, 310.0)], average_s=0.001).lacking(*SOURCES[source])
    truth = board.joules(BEGIN_S + 1) - board.joules(BEGIN_S)
    assert phase_average(board, 1.0) == pytest.approx(truth, rel=0.005)


knots = st.lists(st.tuples(st.floats(0.05, 1.95), st.floats(100, 250)), min_size=1, max_size=6)


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=8)
@given(steps=knots, update_ms=st.sampled_from([10, 20, 25]))
def test_joules_of_any_trace_of_steps(source: str, steps: list[tuple[float, float]], update_ms: int) -> None:
    level, trace = 170.0, [(0.0, 170.0), (BEGIN_S, 170.0)]
    for at, watts in sorted(steps):
        trace += [(BEGIN_S + at, level), (BEGIN_S + at, watts)]
        level = watts
    board = Board(trace, update_s=update_ms / 1e3).lacking(*SOURCES[source])
    truth = board.joules(BEGIN_S + 2) - board.joules(BEGIN_S)
    assert phase_average(board, 2.0, phases=5) == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("source", SOURCES)
def test_the_first_source_that_answers_is_used(source: str) -> None:
    meter, _ = on(Board(jitter([])).lacking(*SOURCES[source]))
    facts = meter.facts()
    assert facts["sources"][source] == "works"
    assert meter.method == ("counter" if source == "energy counter" else "integral")
    refused = {"nvmlDeviceGetTotalEnergyConsumption": "energy counter", "field186": "instant power"}
    for lacked in SOURCES[source]:
        assert "NOT_SUPPORTED" in facts["sources"][refused.get(lacked, "buffered power samples")]
    assert facts["update_period_s"][source] == pytest.approx(0.020, abs=0.0015) == meter.period_s
    assert (facts["driver"], facts["uuid"], facts["celsius"]) == ("580.95", "GPU-1080aaaa-0000", 61)
    assert (facts["sm_clock_mhz"], facts["memory_clock_mhz"], facts["power_limit_watts"]) == (1582, 5505, 250.0)


def test_facts_leave_out_what_the_gpu_does_not_tell() -> None:
    meter, _ = on(Board(jitter([])).lacking("nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons"))
    assert "celsius" not in meter.facts() and meter.facts()["clocks_event_reasons"] == []


def test_throttling_within_the_window_is_flagged_and_idling_or_the_past_is_not() -> None:
    board = Board(quiet((0, 200)))
    board.reasons = [(0x1, -1e9, 1e9), (0x40, 0, BEGIN_S - 1), (0x4, BEGIN_S + 0.3, BEGIN_S + 0.6)]
    assert measured(board).flags == ("throttled: software power cap",)
    board.reasons = [(0x3, -1e9, 1e9)]
    assert measured(board).flags == ()
    # drivers from before the new name
    board.reasons = [(0x20, -1e9, 1e9)]
    board.lacking("nvmlDeviceGetCurrentClocksEventReasons", code=13)
    assert measured(board).flags == ("throttled: software thermal slowdown",)


@pytest.mark.parametrize(("gain", "flags"), [(1.02, ()), (1.04, (DIFFERENT,)), (0.98, ()), (0.96, (DIFFERENT,))])
def test_the_integral_checks_the_counter(gain: float, flags: tuple[str, ...]) -> None:
    window = measured(Board([(0, 200), (1, 200)], gain=gain), 2.0)
    assert window.flags == flags and window.amount == pytest.approx(400, rel=5e-3)
    assert window.samples == 0 and window.quantum == pytest.approx(2.0, rel=0.01)  # 200 W over a poll at each end


def test_a_counter_without_samples_to_check_it_says_so() -> None:
    board = Board(quiet((0, 200)))
    board.faults = [(SAMPLES, 999, BEGIN_S, 1e9)]
    flags = measured(board).flags
    assert UNCHECKED in flags and DROPPED in flags


@pytest.mark.parametrize("source", list(SOURCES)[1:])
def test_drop_outs_are_bridged_and_flagged(source: str) -> None:
    board = Board(quiet((0, 200), (1, 200))).lacking(*SOURCES[source])
    function = SOURCES["power usage"][-1] if source == "instant power" else USAGE if source == "power usage" else ""
    if function:
        board.faults.append((function, 999, BEGIN_S + 0.4, BEGIN_S + 0.5))
    else:
        board.dropouts = [(BEGIN_S + 0.4, BEGIN_S + 0.5)]
    window = measured(board)
    assert window.amount == pytest.approx(200, rel=0.02)
    assert LATE in window.flags and (DROPPED in window.flags) == bool(function)
    assert measured(Board(quiet((0, 200))).lacking(*SOURCES[source])).flags == ()


@pytest.mark.parametrize("source", SOURCES)
def test_too_few_samples_are_an_error(source: str) -> None:
    meter, clock = on(Board(quiet((0, 200))).lacking(*SOURCES[source]))
    clock.sleep(BEGIN_S - clock.now_s())
    for seconds in (0.0, 0.015, 0.019):
        meter.start()
        clock.sleep(seconds)
        with pytest.raises(MeterError, match="try"):
            meter.stop()
    meter.start()  # and is ready again
    clock.sleep(1)
    assert meter.stop().amount == pytest.approx(200, rel=0.02)


def test_a_sensor_that_drops_out_for_the_whole_window_is_an_error() -> None:
    board = Board(quiet((0, 200))).lacking(COUNTER)
    board.dropouts = [(BEGIN_S - 0.1, 1e9)]
    with pytest.raises(MeterError, match="at least 2 samples"):
        measured(board)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4, "NO_PERMISSION"),
        (9, "DRIVER_NOT_LOADED.*modprobe"),
        (12, "LIBRARY_NOT_FOUND.*NVIDIA_DRIVER_CAPABILITIES"),
        (15, "GPU_IS_LOST.*Xid"),
        (16, "RESET_REQUIRED"),
        (18, "LIB_RM_VERSION_MISMATCH.*restart"),
        (999, "UNKNOWN"),
        (77, "error 77"),
    ],
)
def test_faults_are_told_in_words(code: int, words: str) -> None:
    clock = SimulatedClock()
    with pytest.raises(NvmlFault, match=words):
        Library(FakeNvml(Board([(0, 1)]).lacking("nvmlInit", code=code), clock.now_s))
    with pytest.raises(NvmlFault, match=words):  # found while the meter is made
        on(Board(quiet()).lacking(COUNTER).lacking(SAMPLES, INSTANT, USAGE, code=code))


@pytest.mark.parametrize("function", [COUNTER, SAMPLES, INSTANT, USAGE])
def test_a_gpu_lost_within_a_window_is_an_error_and_the_meter_stops(function: str) -> None:
    lacking = {COUNTER: (), SAMPLES: (COUNTER,), INSTANT: (COUNTER, SAMPLES), USAGE: (COUNTER, SAMPLES, INSTANT)}
    board = Board(quiet((0, 200))).lacking(*lacking[function])
    board.faults.append((function, 15, BEGIN_S + 0.5, 1e9))
    meter, clock = on(board)
    clock.sleep(BEGIN_S - clock.now_s())
    meter.start()
    with pytest.raises(NvmlFault, match="GPU_IS_LOST"):
        clock.sleep(1)
    with pytest.raises(NvmlFault, match="GPU_IS_LOST"):
        meter.stop()
    with pytest.raises(NvmlFault, match="GPU_IS_LOST"):
        meter.start()
    bindings, asked = meter.device.library.bindings, len(meter.device.library.bindings.calls)
    clock.sleep(1)
    assert len(bindings.calls) == asked


def test_a_board_that_answers_no_power_query_is_refused() -> None:
    with pytest.raises(MeterError, match="ina3221") as error:  # a Jetson: only the start succeeds
        on(Board(quiet()).lacking(COUNTER, SAMPLES, INSTANT, USAGE))
    assert str(error.value).count("NOT_SUPPORTED") == 4
    with pytest.raises(MeterError, match="0 W throughout"):
        on(Board([(0, 0), (1, 0)]).lacking(COUNTER, SAMPLES))


def test_a_counter_that_stands_still_is_not_trusted() -> None:
    with pytest.raises(MeterError, match="a counter that rises"):
        on(Board([(0, 0), (1, 0)]).lacking(SAMPLES, INSTANT, USAGE))


@pytest.mark.parametrize("late_s", [0.0, 1.0, 3600.0])
def test_stamps_since_the_machine_s_start_are_understood_and_those_of_another_time_refused(late_s: float) -> None:
    clock, board = SimulatedClock(WALL_S + 50), Board([(0, 200), (1, 200)]).lacking(COUNTER)
    bindings = FakeNvml(board, lambda: clock.now_s() - WALL_S - late_s)  # its stamps are WALL_S later
    meter = NvmlMeter(devices(Library(bindings))[0], clock=clock, wall_s=lambda: 5e9)
    assert (meter.facts()["sources"]["buffered power samples"] == "works") == (late_s < 2)


def test_windows_begin_before_they_end() -> None:
    meter, _ = on(Board(quiet()))
    with pytest.raises(MeterError, match="start"):
        meter.stop()
    meter.start()
    with pytest.raises(MeterError, match="stop"):
        meter.start()
    meter.close()
    meter.close()
    assert meter.device.library.bindings.calls.count("nvmlShutdown") == 1


def test_missing_bindings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    with pytest.raises(MeterError, match="nvidia-ml-py"):
        Library()
    old = SimpleNamespace(NVMLError=ValueError)  # bindings without a function
    with pytest.raises(NvmlFault, match="FUNCTION_NOT_FOUND"):
        Library(old)


@pytest.mark.parametrize(
    ("edges", "truth"),
    [((0.0, 1.0), 100.0), ((0.05, 0.95), 90.0), ((0.101, 0.299), 19.8)],
)
def test_a_counter_s_edges_are_even_stretches(edges: tuple[float, float], truth: float) -> None:
    times = np.arange(-0.2, 1.2, 0.001)
    joules = np.floor(times / 0.02) * 2.0  # 100 W
    found, open_joules = counted_joules(times, joules, *edges)
    assert found == pytest.approx(truth, rel=0.003)
    assert open_joules == pytest.approx(2 * 100 * 0.001)  # a reading every ms, at both ends
    with pytest.raises(ValueError, match="never falls"):
        counted_joules(times, -joules, *edges)
    with pytest.raises(ValueError, match="2 updates"):
        counted_joules(times, joules, 0.001, 0.039)


def test_a_counter_s_updates_lie_between_two_readings() -> None:
    found = []
    for phase_s in np.arange(0, 0.02, 0.0007):
        times = np.arange(0.0, 2.0, 0.01)
        updates = np.floor((times - phase_s) / 0.02) * 0.02 + phase_s
        found.append(counted_joules(times, 100 * (updates + 1) ** 2, 0.505, 1.505)[0])  # 200 W more each second
    assert np.mean(found) == pytest.approx(100 * (2.505**2 - 1.505**2), rel=0.0005)


def test_samples_that_came_while_the_buffer_was_asked_are_read_the_next_time() -> None:
    board = Board(quiet((0, 200))).lacking(COUNTER)
    board.faults.append((SAMPLES, 7, BEGIN_S + 0.2, BEGIN_S + 0.3))
    assert measured(board).flags == ()


def test_update_periods_see_through_hidden_updates() -> None:
    assert update_period_s([0.0, 0.02, 0.06, 0.08, 0.14, 0.16]) == pytest.approx(0.02)
    assert update_period_s([0.0, 0.02, 0.04]) is None


def test_probe_tells_what_each_trial_found() -> None:
    clock = SimulatedClock()
    board = Board(jitter([])).lacking(COUNTER)
    findings = probing.gpu_sources(FakeNvml(board, clock.now_s), clock=clock, wall_s=lambda: WALL_S + clock.now_s())
    told = {finding.what: (finding.found, finding.detail) for finding in findings}
    assert told["library"] == (True, "driver 580.95")
    assert not told["energy counter"][0] and "NOT_SUPPORTED" in told["energy counter"][1]
    for source in ("buffered power samples", "instant power", "power usage"):
        assert told[source][0] and told[source][1].startswith("update period 2")
    missing = probing.gpu_sources(FakeNvml(board.lacking("nvmlInit", code=12), clock.now_s), clock=clock)
    assert len(missing) == 1 and not missing[0].found and "LIBRARY_NOT_FOUND" in missing[0].detail
    board.faults = [("nvmlDeviceGetUUID", 15, -1e9, 1e9)]
    assert "GPU_IS_LOST" in probing.gpu_sources(FakeNvml(board, clock.now_s), clock=clock)[-1].detail
    board.faults, board.gpus = [], []
    assert not probing.gpu_sources(FakeNvml(board, clock.now_s), clock=clock)[-1].found

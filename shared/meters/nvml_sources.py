"""What an NVIDIA GPU can be asked about its power, each found by a trial read on that very device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from shared.meters.meter import MeterError
from shared.meters.nvml_devices import Device
from shared.meters.nvml_library import PASSING, NvmlFault
from shared.meters.timing import Clock

TOTAL_POWER_SAMPLES = 0  # nvmlSamplingType_t
POWER_INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT
VALUE_FIELDS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t

COUNTER, BUFFER, INSTANT, USAGE = "energy counter", "buffered power samples", "instant power", "power usage"
FAST_READ_S, TRIAL_S = 0.001, 1.5
ENOUGH_CHANGES, FEWEST_CHANGES = 9, 4
FRESH_S = 2.0

Sample = tuple[float, float]  # seconds on our clock, watts or joules


@dataclass(frozen=True)
class Trial:
    """One way of asking and what came of it. update_period_s: None when its reading stood still.

    problem: why it is of no use here; None when it works.
    """

    source: str
    update_period_s: float | None = None
    problem: MeterError | None = None


def counter_joules(device: Device) -> float:
    """Joules since the driver was loaded; Volta and newer. Raises NvmlFault."""
    return float(device.ask("the energy counter", "nvmlDeviceGetTotalEnergyConsumption")) / 1e3


def instant_watts(device: Device) -> float:
    """Board power of the newest update, by field; drivers from about 530 on. Raises NvmlFault."""
    field = device.ask("the instant power", "nvmlDeviceGetFieldValues", [POWER_INSTANT])[0]
    if field.nvmlReturn:
        raise NvmlFault(f"the instant power of {device.name}", field.nvmlReturn)
    return float(getattr(field.value, VALUE_FIELDS[field.valueType])) / 1e3


def usage_watts(device: Device) -> float:
    """Board power; on Ampere and newer (but GA100) the mean of the last second. Raises NvmlFault."""
    return float(device.ask("the power", "nvmlDeviceGetPowerUsage")) / 1e3


SCALARS: dict[str, Callable[[Device], float]] = {
    COUNTER: counter_joules,
    INSTANT: instant_watts,
    USAGE: usage_watts,
}


class SampleBuffer:
    """The driver's own buffer of time-stamped power samples.

    wall_s: the clock of day. The library calls its stamps microseconds of the CPU; whether they count from 1970 or from
    the machine's start is decided by which of the two clocks the newest stamp is close to.
    """

    def __init__(self, device: Device, clock: Clock, wall_s: Callable[[], float] = time.time) -> None:
        self.device, self.clock = device, clock
        self._clocks, self._last = (wall_s, clock.now_s), 0

    def read(self) -> list[Sample]:
        """Samples since the last call: seconds on `clock`, watts. Raises NvmlFault, MeterError for foreign stamps."""
        try:
            kind, found = self.device.ask("power samples", "nvmlDeviceGetSamples", TOTAL_POWER_SAMPLES, self._last)
        except NvmlFault as fault:
            if self._last and fault.fault in ("NOT_FOUND", "INSUFFICIENT_SIZE"):  # none newer; some while it was asked
                return []
            raise
        stamped = {int(sample.timeStamp): getattr(sample.sampleValue, VALUE_FIELDS[kind]) for sample in found}
        new = sorted(stamp for stamp in stamped if stamp > self._last)
        if not new:
            return []
        near = [now_s for now_s in self._clocks if abs(now_s() - new[-1] * 1e-6) < FRESH_S]
        if not near:
            raise MeterError("power samples of this moment", "stamps of another time", "polling the power instead")
        self._last = new[-1]
        offset_s = self.clock.now_s() - near[0]()  # anew each time: the clock of day is set and slewed
        return [(stamp * 1e-6 + offset_s, float(stamped[stamp]) / 1e3) for stamp in new]


def try_scalar(source: str, device: Device, clock: Clock) -> Trial:
    """Reads one of SCALARS fast until it has changed often enough to tell its update period."""
    try:
        first, changed_s = _changes(lambda: SCALARS[source](device), clock)
    except MeterError as error:
        return Trial(source, problem=error)
    if source == COUNTER and not changed_s:
        return Trial(source, problem=MeterError("a counter that rises", f"{first} J throughout", "power samples"))
    if first == 0 and not changed_s:
        return Trial(source, problem=MeterError("a power above 0 W", "0 W throughout", "another meter"))
    return Trial(source, update_period_s(changed_s))


def try_buffer(buffer: SampleBuffer) -> Trial:
    """Reads the driver's buffer and waits for a sample to be added."""
    try:
        samples, end_s = buffer.read(), buffer.clock.now_s() + TRIAL_S
        fresh: list[Sample] = []
        while not fresh and buffer.clock.now_s() < end_s:
            buffer.clock.sleep(FAST_READ_S)
            fresh = buffer.read()
    except MeterError as error:
        return Trial(BUFFER, problem=error)
    if not fresh or len(samples) < FEWEST_CHANGES:
        problem = MeterError("power samples that keep coming", f"{len(samples)} and then none", "polling the power")
        return Trial(BUFFER, problem=problem)
    return Trial(BUFFER, float(np.median(np.diff([moment for moment, _ in samples + fresh]))))


def update_period_s(changed_s: Sequence[float]) -> float | None:
    """A sensor's update period from the moments at which its reading changed; None for too few of them.

    An update that repeats the last value hides, so gaps are whole multiples of the period: their lower quartile.
    """
    if len(changed_s) < FEWEST_CHANGES:
        return None
    return float(np.quantile(np.diff(changed_s), 0.25))


def counted_joules(times_s: ArrayLike, joules: ArrayLike, start_s: float, end_s: float) -> tuple[float, float]:
    """Energy over exactly [start_s, end_s] by a counter that stands still between updates, and what that leaves open.

    times_s, joules (n,): readings. An update happened between the reading that shows it and the one before. Up to the
    first update in the window and after the last one, power is that of the nearest stretch between two updates within
    it, so nothing need be known of the time around the window. Open is when, between two readings, the first and the
    last update happened. Raises ValueError for a counter that falls, and for
    fewer than two updates in the window.
    """
    times, total = np.asarray(times_s, dtype=np.float64), np.asarray(joules, dtype=np.float64)
    if (np.diff(total) < 0).any():
        raise ValueError("expected a counter that never falls, got one that did; try again, the driver was reloaded")
    changed = np.flatnonzero(np.diff(total)) + 1
    updates_s, readings = (times[changed] + times[changed - 1]) / 2, total[changed]
    inside = (updates_s >= start_s) & (updates_s <= end_s)
    updates_s, readings, gaps_s = updates_s[inside], readings[inside], np.diff(times)[changed - 1][inside]
    if len(updates_s) < 2:
        raise ValueError(f"expected 2 updates of the counter in the window, got {len(updates_s)}; try a longer one")
    steps = np.diff(readings)
    watts = steps / np.diff(updates_s)
    edges = (updates_s[0] - start_s) * watts[0] + (end_s - updates_s[-1]) * watts[-1]
    return float(steps.sum() + edges), float(watts[0] * gaps_s[0] + watts[-1] * gaps_s[-1])


def _changes(read: Callable[[], float], clock: Clock) -> tuple[float, list[float]]:
    first = last = read()
    end_s, changed_s = clock.now_s() + TRIAL_S, list[float]()
    while len(changed_s) < ENOUGH_CHANGES and clock.now_s() < end_s:
        clock.sleep(FAST_READ_S)
        try:
            value = read()
        except NvmlFault as fault:
            if fault.fault not in PASSING:
                raise
            continue
        if value != last:
            changed_s.append(clock.now_s())
            last = value
    return first, changed_s

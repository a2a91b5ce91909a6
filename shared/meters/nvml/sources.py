"""The power and energy sources of an NVIDIA GPU, and trial reads that show which of them work on a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from shared.meters.meter import MeterError
from shared.meters.nvml.devices import Device
from shared.meters.nvml.library import PASSING, NvmlFault
from shared.meters.timing import Clock

TOTAL_POWER_SAMPLES = 0  # nvmlSamplingType_t
POWER_INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT
VALUE_FIELDS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t

COUNTER, BUFFER, INSTANT, USAGE = "energy counter", "buffered power samples", "instant power", "power usage"
FAST_READ_S, TRIAL_S = 0.001, 1.5  # period and longest duration of a trial read
ENOUGH_CHANGES, FEWEST_CHANGES = 9, 4  # after so many a trial read ends; so many give an update period
FRESH_S = 2.0  # a new sample's time stamp is at most this far from the clock that it was taken by

Sample = tuple[float, float]  # seconds on the meter's clock, watts or joules


@dataclass(frozen=True)
class Trial:
    """The outcome of a trial read. update_period_s: None where the value changed too rarely to tell.

    problem: why the source can't be used on this device; None where it works.
    """

    source: str
    update_period_s: float | None = None
    problem: MeterError | None = None


def counter_joules(device: Device) -> float:
    """Joules since the driver was loaded; GPUs from Volta on. Raises NvmlFault."""
    return float(device.ask("the energy counter", "nvmlDeviceGetTotalEnergyConsumption")) / 1e3


def instant_watts(device: Device) -> float:
    """Board power at the latest update (NVML_FI_DEV_POWER_INSTANT); drivers from about 530 on. Raises NvmlFault."""
    field = device.ask("the instant power", "nvmlDeviceGetFieldValues", [POWER_INSTANT])[0]
    if field.nvmlReturn:
        raise NvmlFault(f"the instant power of {device.name}", field.nvmlReturn)
    return float(getattr(field.value, VALUE_FIELDS[field.valueType])) / 1e3


def usage_watts(device: Device) -> float:
    """Board power; the mean of the last second on Ampere and newer, except GA100. Raises NvmlFault."""
    return float(device.ask("the power", "nvmlDeviceGetPowerUsage")) / 1e3


SCALARS: dict[str, Callable[[Device], float]] = {
    COUNTER: counter_joules,
    INSTANT: instant_watts,
    USAGE: usage_watts,
}


class SampleBuffer:
    """The driver's buffer of time-stamped power samples.

    NVML documents the stamps as "CPU timestamp in microseconds" and not their origin, 1970 or the start of the machine.
    So the newest stamp is compared with both clocks: its clock is the one that shows nearly the same time.
    wall_s: the time of day in seconds.
    """

    def __init__(self, device: Device, clock: Clock, wall_s: Callable[[], float] = time.time) -> None:
        self.device, self.clock = device, clock
        self._clocks, self._last = (wall_s, clock.now_s), 0

    def read(self) -> list[Sample]:
        """Samples since the last call, timed on `clock`. Raises NvmlFault, MeterError for stamps of neither clock."""
        try:
            kind, samples = self.device.ask("power samples", "nvmlDeviceGetSamples", TOTAL_POWER_SAMPLES, self._last)
        except NvmlFault as fault:
            # NOT_FOUND: no newer samples. INSUFFICIENT_SIZE: new ones arrived during the call; the next read has them.
            if self._last and fault.fault in ("NOT_FOUND", "INSUFFICIENT_SIZE"):
                return []
            raise
        stamped = {int(sample.timeStamp): getattr(sample.sampleValue, VALUE_FIELDS[kind]) for sample in samples}
        new = sorted(stamp for stamp in stamped if stamp > self._last)
        if not new:
            return []
        near = [now_s for now_s in self._clocks if abs(now_s() - new[-1] * 1e-6) < FRESH_S]
        if not near:
            raise MeterError("power samples stamped with the present time", "another time", "polled power instead")
        self._last = new[-1]
        offset_s = self.clock.now_s() - near[0]()  # each time, since the time of day may be adjusted
        return [(stamp * 1e-6 + offset_s, float(stamped[stamp]) / 1e3) for stamp in new]


def try_scalar(source: str, device: Device, clock: Clock) -> Trial:
    """Trial read of one of SCALARS, until its value has changed often enough to give an update period."""
    try:
        first, changed_s = _value_changes(lambda: SCALARS[source](device), clock)
    except MeterError as error:
        return Trial(source, problem=error)
    if source == COUNTER and not changed_s:
        return Trial(source, problem=MeterError("a counter that rises", f"{first} J throughout", "power samples"))
    if first == 0 and not changed_s:
        return Trial(source, problem=MeterError("a power above 0 W", "0 W throughout", "another meter"))
    return Trial(source, update_period_s(changed_s))


def try_buffer(buffer: SampleBuffer) -> Trial:
    """Trial read of the driver's buffer, until it has a new sample."""
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
    """The update period of a sensor from the moments at which its value changed; None for too few changes.

    An update that repeats the last value can't be seen, so some gaps are multiples of the period. The lower quartile of
    the gaps is robust against these. Example: gaps of 20, 40, 20, 20 and 60 ms give 20 ms.
    """
    if len(changed_s) < FEWEST_CHANGES:
        return None
    return float(np.quantile(np.diff(changed_s), 0.25))


def counted_joules(times_s: ArrayLike, joules: ArrayLike, start_s: float, end_s: float) -> tuple[float, float]:
    """Energy over exactly [start_s, end_s] from a counter that is constant between its updates, and its quantum.

    times_s, joules (n,): reads of the counter. An update is dated half-way between the read that shows it and the read
    before. Before the first and after the last update in the window, power is extrapolated from the nearest pair of
    updates, so no reads from outside the window are needed. The quantum in joules comes from the uncertain dates of
    the first and the last update: the gap between two reads times the power. Raises ValueError for a counter that
    falls, and for fewer than two updates in the window.
    """
    times, total = np.asarray(times_s, dtype=np.float64), np.asarray(joules, dtype=np.float64)
    if (np.diff(total) < 0).any():
        raise ValueError("expected a counter that never falls, got a lower value; try again, the driver was reloaded")
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


def _value_changes(read: Callable[[], float], clock: Clock) -> tuple[float, list[float]]:
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

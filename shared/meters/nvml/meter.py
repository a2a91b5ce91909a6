"""Joules of an NVIDIA GPU: from its energy counter where it has one, else from integrated power samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from shared.cache import content_key
from shared.meters.meter import Meter, MeterError, Window
from shared.meters.nvml.devices import Device
from shared.meters.nvml.facts import THROTTLES, bit_names, event_reasons, state
from shared.meters.nvml.library import ABSENT, PASSING, NvmlFault
from shared.meters.nvml.sources import (
    BUFFER,
    COUNTER,
    INSTANT,
    SCALARS,
    USAGE,
    Sample,
    SampleBuffer,
    Trial,
    counted_joules,
    try_buffer,
    try_scalar,
)
from shared.meters.signal import DROPPED, PowerTrace
from shared.meters.timing import Clock

DEFAULT_UPDATE_S = 0.020  # of a GTX 1080 Ti; assumed where the trial read saw too few changes
SLOWEST_POLL_S = 0.010  # sampling period at most
WATCH_S = 0.25  # between two reads of the driver's buffer, which holds a second or more
LARGEST_DIFFERENCE = 0.03  # relative, between counter and integral
DIFFERENT, UNCHECKED = "counter and integral differ by more than 3 %", "counter not checked by power samples"


class NvmlMeter(Meter):
    """The power sensor of a GPU board, read through NVML.

    A trial read on this device picks the source, in this order: energy counter, buffered power samples, instant power,
    power usage. Where both a counter and a power source work, the counter gives the joules and the integral of the
    power checks them. A polled power is on average half an update period old, so its time stamp is moved back by that.
    Beyond the first and the last sample of a window, the nearest sample is used.

    device: from devices.cuda_device; close() also closes its library. wall_s: the time of day in seconds. Raises
    MeterError where no source works, as on Jetsons.

    Flags: "throttled: …" with the reasons, "dropped samples", "late samples", and a counter that the power samples do
    not confirm or could not check.
    """

    name = "nvml"
    scope = "GPU board"

    def __init__(self, device: Device, *, clock: Clock | None = None, wall_s: Callable[[], float] = time.time) -> None:
        self.device, self.clock = device, clock or Clock()
        self._buffer = SampleBuffer(device, self.clock, wall_s)
        self._counter, self._power = try_scalar(COUNTER, device, self.clock), try_buffer(self._buffer)
        self.trials = [self._counter, self._power]
        # polled power only where the buffer fails: its samples carry the driver's own times and none is missed
        for source in (INSTANT, USAGE):
            if self._power.problem:
                self._power = try_scalar(source, device, self.clock)
                self.trials.append(self._power)
        if self._counter.problem and self._power.problem:
            raise _nothing_works(device, self.trials)
        self.method = "integral" if self._counter.problem else "counter"
        source_used = self._power if self._counter.problem else self._counter
        self.period_s = source_used.update_period_s or DEFAULT_UPDATE_S
        # at least two reads per update of either source
        self.poll_s = min(SLOWEST_POLL_S, self.period_s / 2, (self._power.update_period_s or DEFAULT_UPDATE_S) / 2)
        self._loops: ExitStack | None = None  # of the open window

    def start(self) -> None:
        """See Meter."""
        if self._loops:
            raise MeterError("no open window at start()", "an open one", "stop() before start()")
        self._counts: list[Sample] = []
        self._watts: list[Sample] = []
        self._reasons = self._dropped = 0
        with ExitStack() as loops:
            for period_s, work in ((WATCH_S, self._watch), (self.poll_s, self._poll)):
                loops.callback(self.clock.every(period_s, work))
            self._loops = loops.pop_all()
        self._start_s = self.clock.now_s()

    def stop(self) -> Window:
        """See Meter."""
        if not self._loops:
            raise MeterError("an open window at stop()", "none", "start() before stop()")
        start_s, end_s = self._start_s, self.clock.now_s()
        loops, self._loops = self._loops, None
        loops.close()
        # a last read at the end, since the loops' last reads may be a whole period old
        self._poll()
        self._watch()
        throttles = bit_names(self._reasons, THROTTLES)
        flags = [f"throttled: {', '.join(throttles)}"] * bool(throttles) + [DROPPED] * (self._dropped > 0)
        try:
            if self._counter.problem:
                window = self._integral(start_s, end_s)
            else:
                times_s, counts = np.reshape(self._counts, (-1, 2)).T
                joules, quantum = counted_joules(times_s, counts, start_s, end_s)
                window = Window(joules, start_s, end_s, quantum=quantum)
        except ValueError as error:
            raise MeterError(f"joules by {self.method} from {self.name}", error, "a longer window") from error
        flags += window.flags
        if not (self._counter.problem or self._power.problem):
            try:
                check = self._integral(start_s, end_s)
                flags += [*check.flags, *[DIFFERENT] * (abs(check.amount / window.amount - 1) > LARGEST_DIFFERENCE)]
            except ValueError:  # too few power samples in a short window say nothing against the counter
                flags.append(UNCHECKED)
        return replace(window, flags=tuple(flags))

    def facts(self) -> dict[str, object]:
        """See Meter. sources: the outcome of each trial read. Raises NvmlFault when the GPU is lost."""
        return {
            "device": self.device.name,
            "uuid": self.device.uuid,
            "sources": {trial.source: str(trial.problem or "works") for trial in self.trials},
            "update_period_s": {
                trial.source: trial.update_period_s or "unknown" for trial in self.trials if not trial.problem
            },
            "poll_period_s": self.poll_s,
            **state(self.device),
        }

    def identity(self) -> str:
        """See Meter. Depends on the board, its driver and its power limit."""
        values = state(self.device)
        return content_key(self.device.uuid, *(str(values.get(key)) for key in ("driver", "power_limit_watts")))

    def close(self) -> None:
        """See Meter."""
        if self._loops:
            self._loops.close()
        self.device.library.close()

    def _poll(self) -> None:
        if not self._counter.problem:
            self._read(COUNTER, self._counts, age_s=0.0)
        if self._power.source in SCALARS and not self._power.problem:
            self._read(self._power.source, self._watts, (self._power.update_period_s or DEFAULT_UPDATE_S) / 2)

    def _read(self, source: str, into: list[Sample], age_s: float) -> None:
        before_s = self.clock.now_s()
        try:
            value = SCALARS[source](self.device)
        except NvmlFault as fault:
            self._count_drop(fault)
            return
        moment_s = (before_s + self.clock.now_s()) / 2 - age_s  # a call may take milliseconds
        # the integral needs rising times; a coarse clock may repeat one
        if not into or moment_s > into[-1][0]:
            into.append((moment_s, value))

    def _watch(self) -> None:
        try:
            if self._power.source == BUFFER:
                self._watts += self._buffer.read()
            self._reasons |= event_reasons(self.device)
        except NvmlFault as fault:
            self._count_drop(fault)

    def _count_drop(self, fault: NvmlFault) -> None:
        if fault.fault not in PASSING:
            raise fault
        self._dropped += 1

    def _integral(self, start_s: float, end_s: float) -> Window:
        period_s = self._power.update_period_s or DEFAULT_UPDATE_S
        if end_s - start_s < 2 * period_s:
            raise ValueError(f"expected two updates of the power, {2 * period_s:.3g} s, got {end_s - start_s:.3g} s")
        times_s, watts = np.reshape(self._watts, (-1, 2)).T
        return PowerTrace(times_s, watts, max(period_s, self.poll_s)).window(start_s, end_s)


def _nothing_works(device: Device, trials: list[Trial]) -> MeterError:
    """A fault with a cause to fix, such as a missing permission, if there is one; else a list of all trial reads."""
    for trial in trials:
        if isinstance(trial.problem, NvmlFault) and trial.problem.fault not in ABSENT | {"NOT_FOUND"}:
            return trial.problem
    got = "; ".join(f"{trial.source}: {getattr(trial.problem, 'fault', trial.problem)}" for trial in trials)
    return MeterError(f"power or energy of {device.name}", got, "`--meter ina3221` on a Jetson, or another meter")

"""Probes which sensors this machine has, by trial reads, and says how to get those that are missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from shared.board.runner import Rail, find_rails
from shared.meters import rapl
from shared.meters.jetson.rails import scope
from shared.meters.meter import MeterError
from shared.meters.nvml.devices import devices
from shared.meters.nvml.library import Library
from shared.meters.nvml.sources import COUNTER, INSTANT, USAGE, SampleBuffer, try_buffer, try_scalar
from shared.meters.timing import Clock


class ProbeResult(NamedTuple):
    """What a probe says about one sensor: whether a trial read of it succeeded.

    where: kind of sensor, or device. what: the rail, source or domain that was read. detail: the trial reading, or how
    to make the sensor available.
    """

    where: str
    what: str
    found: bool
    detail: str


def probe(root: Path = Path("/"), nvml: Any = None) -> list[ProbeResult]:
    """One result per sensor, missing ones included. Raises nothing: an error becomes a result.

    root: of the file system. nvml: bindings of NVML, by default the module pynvml.
    """
    return [
        *gpu_sources(nvml),
        *rails(str(root / "sys")),
        *(_result("RAPL", domain, _zone_names, domain, root) for domain in rapl.DOMAINS),
        ProbeResult("clock", "wall time", True, "monotonic"),
    ]


def gpu_sources(
    bindings: Any = None, *, clock: Clock | None = None, wall_s: Callable[[], float] = time.time
) -> list[ProbeResult]:
    """One result per source of power or energy of each NVIDIA GPU; a few seconds per GPU."""
    clock = clock or Clock()
    try:
        library = Library(bindings)
    except MeterError as error:
        return [ProbeResult("NVML", "library", False, str(error))]
    results = []
    try:
        driver = library.ask("the driver's version", "nvmlSystemGetDriverVersion")
        results.append(ProbeResult("NVML", "library", True, f"driver {driver}"))
        gpus = devices(library)
        if not gpus:
            results.append(ProbeResult("NVML", "GPUs", False, "the driver lists none; try `nvidia-smi -L`"))
        for device in gpus:
            trials = [
                try_scalar(COUNTER, device, clock),
                try_buffer(SampleBuffer(device, clock, wall_s)),
                try_scalar(INSTANT, device, clock),
                try_scalar(USAGE, device, clock),
            ]
            for trial in trials:
                period = f"{trial.update_period_s * 1e3:.0f} ms" if trial.update_period_s else "unknown, few changes"
                detail = str(trial.problem or f"update period {period}")
                results.append(ProbeResult(f"{device.name} {device.uuid}", trial.source, trial.problem is None, detail))
    except MeterError as error:
        results.append(ProbeResult("NVML", "GPUs", False, str(error)))
    finally:
        library.close()
    return results


def rails(root: str = "/sys") -> list[ProbeResult]:
    """One result per rail of a Jetson's INA3221 chips in the sysfs at `root`."""
    try:
        channels = find_rails(root)
        if not channels:
            hint = "a Jetson with its own kernel (L4T), or a kernel with the driver ina3221"
            raise MeterError(f"an INA3221 in {root}/bus/i2c/drivers", "none", hint)
    except MeterError as error:
        return [ProbeResult("INA3221", "rails", False, str(error))]
    return [_result("INA3221", channel.label, _rail_watts, channel) for channel in channels]


def _result(where: str, what: str, read: Callable[..., str], *arguments: object) -> ProbeResult:
    try:
        return ProbeResult(where, what, True, read(*arguments))
    except MeterError as error:
        return ProbeResult(where, what, False, str(error))


def _rail_watts(channel: Rail) -> str:
    return f"{channel.watts():.3f} W, {scope(channel.label)} in {channel.folder}"


def _zone_names(domain: str, root: Path) -> str:
    meter = rapl.RaplMeter(domain, root=root / rapl.ROOT.relative_to("/"), machine=root)
    return ", ".join(zone.name for zone in meter.zones)

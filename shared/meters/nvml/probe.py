"""Probes the power and energy sources of this machine's NVIDIA GPUs by trial reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from shared.meters.meter import MeterError, ProbeResult
from shared.meters.nvml.devices import devices
from shared.meters.nvml.library import Library
from shared.meters.nvml.sources import COUNTER, INSTANT, USAGE, SampleBuffer, try_buffer, try_scalar
from shared.meters.timing import Clock, MachineClock


def probe(
    bindings: Any = None, *, clock: Clock | None = None, wall_s: Callable[[], float] = time.time
) -> tuple[ProbeResult, ...]:
    """One result per source of each GPU; a few seconds per GPU. Raises nothing: an error becomes a result."""
    clock = clock or MachineClock()
    try:
        library = Library(bindings)
    except MeterError as error:
        return (ProbeResult("NVML", "library", False, str(error)),)
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
    return tuple(results)

"""Probes which sensors this machine has, by trial reads, and says how to get those that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.meters import rapl
from shared.meters.jetson import ina3221
from shared.meters.meter import MeterError, ProbeResult
from shared.meters.nvml import probe as nvml_probe


def probe(root: Path = Path("/"), nvml: Any = None) -> list[ProbeResult]:
    """One result per sensor, missing ones included. Raises nothing: an error becomes a result.

    root: of the file system. nvml: bindings of NVML, by default the module pynvml.
    """
    return [
        *nvml_probe.probe(nvml),
        *ina3221.probe(str(root / "sys")),
        *_rapl_results(root),
        ProbeResult("clock", "wall time", True, "monotonic"),
    ]


def _rapl_results(root: Path) -> list[ProbeResult]:
    results = []
    for domain in ("package", "dram"):
        try:
            meter = rapl.RaplMeter(domain, root=root / rapl.ROOT.relative_to("/"))
        except MeterError as error:
            results.append(ProbeResult("RAPL", domain, False, str(error)))
        else:
            results.append(ProbeResult("RAPL", domain, True, ", ".join(zone.name for zone in meter.zones)))
    return results

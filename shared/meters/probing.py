"""Which sensors this machine has, each found by a trial read, and how to get those that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.meters import ina3221, nvml_probe, rapl
from shared.meters.meter import Finding, MeterError


def probe(root: Path = Path("/"), nvml: Any = None) -> list[Finding]:
    """A finding per sensor, missing ones included. root: of the file system; nvml: bindings, by default NVIDIA's own.

    Raises nothing: a fault is a finding.
    """
    return [
        *nvml_probe.probe(nvml),
        *ina3221.probe(str(root / "sys")),
        *_zones(root),
        Finding("clock", "wall time", True, "monotonic"),
    ]


def _zones(root: Path) -> list[Finding]:
    findings = []
    for domain in ("package", "dram"):
        try:
            meter = rapl.RaplMeter(domain, root=root / rapl.ROOT.relative_to("/"))
        except MeterError as error:
            findings.append(Finding("RAPL", domain, False, str(error)))
        else:
            findings.append(Finding("RAPL", domain, True, ", ".join(zone.name for zone in meter.zones)))
    return findings

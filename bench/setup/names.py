"""Names of folders and pages."""

from __future__ import annotations

import re

from bench.setup import protocols
from shared.protocol import Protocol

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")  # valid as a file name on every system


def slug(*parts: str) -> str:
    """The non-empty parts as one file name, joined by hyphens; characters that it can't hold become hyphens."""
    return "-".join(re.sub(r"[^A-Za-z0-9._+]+", "-", part).strip("-") for part in parts if part)


def unusual(unit: str, energy_model: str, protocol: Protocol, network: str) -> tuple[str, str, str]:
    """Parts of a name for the metric, the inference batch that was asked for, and the energy model.

    Each is "" for what a protocol has by itself: joules, no batch, its own model.
    """
    own_batch = protocols.get(protocol.name, network).inference_batch if protocol.name in protocols.names() else None
    batch, own_model = protocol.inference_batch, protocols.energy_model(protocol.name)
    return (
        {"s": "latency", "MAC": "macs", "B": "size"}.get(unit, ""),
        "" if batch in (None, own_batch) else f"batch{batch}",
        "" if energy_model == own_model else energy_model,
    )

"""Names of folders and pages."""

from __future__ import annotations

import re

from bench.setup import protocols

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")  # valid as a file name on every system


def slug(*parts: str) -> str:
    """The non-empty parts as one file name, joined by hyphens; characters that it can't hold become hyphens."""
    return "-".join(re.sub(r"[^A-Za-z0-9._+]+", "-", part).strip("-") for part in parts if part)


def unusual(unit: str, energy_model: str, protocol: str) -> tuple[str, str]:
    """Parts of a name for the metric and the energy model; "" for joules, and for the protocol's own model."""
    usual = energy_model == protocols.energy_model(protocol)
    return {"s": "latency", "MAC": "macs"}.get(unit, ""), "" if usual else energy_model

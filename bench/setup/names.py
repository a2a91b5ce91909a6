"""What folders and pages are called."""

from __future__ import annotations

import re

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")  # what can be a file's name on any system


def slug(*parts: str) -> str:
    """The parts that are not empty as one file name: what can't stand in one becomes a hyphen."""
    return "-".join(re.sub(r"[^A-Za-z0-9._+]+", "-", part).strip("-") for part in parts if part)


def unusual(unit: str, energy_model: str) -> tuple[str, str]:
    """Parts of a name for what is not the default: seconds instead of joules, another energy model than bilinear."""
    return "latency" if unit == "s" else "", "" if energy_model == "bilinear" else energy_model

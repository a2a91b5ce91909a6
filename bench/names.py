"""What a plan's folder and page are called."""

from __future__ import annotations


def slug(network: str, dataset: str, device: str, source: str, protocol: str, unit: str, energy_model: str) -> str:
    """The name of a plan's page; what is not the default (joules, the bilinear model) stands in it."""
    what = "latency" if unit == "s" else None
    model = None if energy_model == "bilinear" else energy_model
    return "-".join(part for part in (network, dataset, device, source, what, model, protocol) if part)

"""Loads the network of a finished run."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load as tensors_of  # of bytes: its readers of files refuse paths that are no UTF-8
from torch import nn

from bench.record.model import NETWORK_FILE, read
from bench.record.store import network_intact
from shared import networks
from shared.errors import BadInput
from shared.networks.masks import load_state


def load(record_folder: Path | str) -> nn.Module:
    """See bench.load_compressed."""
    folder = Path(record_folder)
    record = read(folder)
    if record.network_sha256 is None:
        raise BadInput(f"a run with a network in {folder}", f"a miss ({record.reason})", "another run")
    if not network_intact(folder, record):
        raise BadInput(f"{folder / NETWORK_FILE} as its record hashes it", "other bytes or no file", "running it again")
    model = networks.build(**{name: value for name, value in record.network.items() if name != "label"})
    load_state(model, tensors_of((folder / NETWORK_FILE).read_bytes()))
    return model.eval()

"""The benchmark as a person runs it: `python -m bench`, and `bench.load_compressed` for its results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def load_compressed(record_folder: Path | str) -> nn.Module:
    """The compressed network of a finished run as a plain module in evaluation mode.

    `record_folder` holds `record.json` and `network.safetensors`. Raises shared.errors.BadInput when the run is a
    miss without a network, or its file is not the one that the record hashes.
    """
    from bench.loading import load  # torch only when it is needed: `python -m bench --help` must answer at once

    return load(record_folder)

"""Writes a lookup table to a JSON file that names what its amounts are of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from methods.netadapt.table import LookupTable
from shared.cache import atomic_write

SCHEMA = 2


def save(table: LookupTable, path: Path) -> None:
    """Write `table` to `path`, whole or not at all, with all digits.

    The file holds the fields of `LookupTable` and of its entries by name. An entry's `energy` is nested once per
    position: energy[i][k] belongs to the i-th width of its first grid and the k-th width of its second.
    """
    values = {"schema_version": SCHEMA, **asdict(table)}
    text = json.dumps(values, indent=1, allow_nan=False, default=np.ndarray.tolist)
    atomic_write(path, (text + "\n").encode())

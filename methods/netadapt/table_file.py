"""A lookup table as a JSON file that names what its amounts are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from methods.netadapt.table import Entry, LookupTable
from shared.cache import atomic_write
from shared.errors import BadInput

SCHEMA = 1

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Entry(_Strict):
    operations: tuple[str, ...]
    positions: tuple[int, ...]
    grids: tuple[tuple[Finite, ...], ...]  # widths along each of the positions
    energy: tuple[Finite, ...]  # at every grid point, the last position's widths vary fastest


class _File(_Strict):
    schema_version: int
    source: str
    platform: str | None
    batch: int | None
    unit: str
    position_bounds: tuple[int, ...]
    entries: tuple[_Entry, ...]


def save(table: LookupTable, path: Path) -> None:
    """Write `table` to `path`, whole or not at all; `load` gives the same numbers back, to the bit."""
    file = _File(
        schema_version=SCHEMA,
        source=table.source,
        platform=table.platform,
        batch=table.batch,
        unit=table.unit,
        position_bounds=table.position_bounds,
        entries=tuple(
            _Entry(
                operations=entry.operations,
                positions=entry.positions,
                grids=tuple(tuple(grid.tolist()) for grid in entry.grids),
                energy=tuple(entry.energy.ravel().tolist()),
            )
            for entry in table.entries
        ),
    )
    atomic_write(path, (json.dumps(file.model_dump(mode="json"), indent=1, allow_nan=False) + "\n").encode())


def load(path: Path) -> LookupTable:
    """The table in the file `path`. Raises BadInput when there is none, it is damaged, or of another version."""
    what, again = f"a lookup table in {path}", "making the table anew"
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(what, error.strerror or str(error), again) from None
    except ValueError as error:  # neither JSON nor text
        raise BadInput(what, f"no JSON ({error})", again) from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA:
        raise BadInput(f"schema version {SCHEMA} of {what}", f"version {version}", again)
    try:
        file = _File.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(what, f"{first['msg']} at {'.'.join(map(str, first['loc']))}", again) from None
    for number, entry in enumerate(file.entries):
        if wrong := _wrong(entry, file.position_bounds):
            raise BadInput(what, f"{wrong} in entry {number}", again)
    return LookupTable(
        tuple(
            Entry(
                entry.positions,
                tuple(np.array(grid) for grid in entry.grids),
                np.array(entry.energy).reshape([len(grid) for grid in entry.grids]),
                entry.operations,
            )
            for entry in file.entries
        ),
        file.position_bounds,
        file.source,
        file.platform,
        file.batch,
        file.unit,
    )


def _wrong(entry: _Entry, position_bounds: tuple[int, ...]) -> str | None:
    """What would make lookups fail or lie; None when all is well."""
    if not all(0 < position < len(position_bounds) - 1 for position in entry.positions):
        return f"positions {entry.positions} for {len(position_bounds) - 2} units"
    if len(entry.grids) != len(entry.positions):
        return f"{len(entry.grids)} grids for {len(entry.positions)} positions"
    for position, grid in zip(entry.positions, entry.grids, strict=True):
        bound = position_bounds[position]
        if not grid or (grid[0], grid[-1]) != (1, bound) or bool((np.diff(grid) <= 0).any()):
            return f"a grid {grid} that does not rise from 1 to {bound}"
    points = int(np.prod([len(grid) for grid in entry.grids]))
    return None if points == len(entry.energy) else f"{len(entry.energy)} values for {points} grid points"

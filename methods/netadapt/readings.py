"""A lookup table from readings of single operations, as NetAdapt's published code builds one for a device.

Departures from that code: all operations are read, also batch norm, ReLU and pooling, since they cost joules; values
between grid points are interpolated linearly along each axis, which can neither dip below nor rise above the readings.

What the table says is not what the platform says of the whole network. An operation on its own is launched and waited
for on its own, so that the idle power of its launch and of its end, hidden behind other operations or paid once in the
whole network, is paid for each; a runtime that fuses operations saves traffic that no single reading shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from methods.netadapt.table import POINTS, Entry, Floats, LookupTable, term_grid
from shared.cache import content_key
from shared.networks import Operation, Structure
from shared.networks.operations import priced
from shared.platforms import SimulatedPlatform

# One operation whose channels are position 0 (inputs) and position 1 (outputs), widths (n, 2) -> amounts per image (n,)
Readings = Callable[[Operation, Floats], Floats]


def table_from_platform(
    platform: SimulatedPlatform, structure: Structure, batch: int | None = None, points: int = POINTS
) -> LookupTable:
    """The table of `platform` for a network: `table_file.save` keeps it. Each reading is counted in its `queries`.

    batch: images at once, by default what the platform infers the network at.
    """
    images = batch or platform.inference_batch(structure.operations, structure.position_bounds)

    def readings(operation: Operation, widths: Floats) -> Floats:
        return platform.measure([operation], widths, images)

    entries = read_entries(structure, readings, points)
    return LookupTable(entries, structure.position_bounds, platform.source, platform.name, images, platform.unit)


def read_entries(structure: Structure, readings: Readings, points: int = POINTS) -> tuple[Entry, ...]:
    """Entries of a table, one for all operations on the same positions: their readings add up.

    Operations that the platform prices alike are read once. Depthwise convolutions, and all that hands channels on, are
    read on the diagonal, where input and output width are equal.
    """
    known: dict[str, Floats] = {}
    entries: dict[tuple[int, ...], Entry] = {}
    for operation in structure.operations:
        term = (operation.inputs.position, operation.outputs.position)
        counts = (operation.inputs.count, operation.outputs.count)
        positions, grids, widths = term_grid(term, counts, structure.position_bounds, points)
        alone = replace(
            operation,
            name="",
            module=None,
            inputs=replace(operation.inputs, position=0),
            outputs=replace(operation.outputs, position=1),
        )
        key = content_key(priced(alone), widths.tobytes())
        if key not in known:
            known[key] = readings(alone, widths.reshape(-1, 2)).reshape(widths.shape[:-1])
        before = entries.get(positions, Entry(positions, grids, np.zeros(widths.shape[:-1])))
        names = (*before.operations, operation.name)
        entries[positions] = replace(before, energy=before.energy + known[key], operations=names)
    return tuple(entries.values())

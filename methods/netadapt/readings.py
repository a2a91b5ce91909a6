"""A lookup table from readings of single operations, as NetAdapt's published code builds one for a device.

Departures from that code: batch norm, ReLU and pooling are read as well, since they cost joules; values between grid
points are interpolated linearly along each axis, which stays within the neighbouring readings.

The table's sum differs from a reading of the whole network. An operation that is read alone also pays the idle power
while it is launched and while its end is awaited. In a whole network that time overlaps with other operations, or is
paid once. And a runtime that fuses operations saves memory traffic that no single reading shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from methods.netadapt.table import POINTS, Entry, Floats, LookupTable, term_grid
from shared.cache import content_key
from shared.errors import BadInput
from shared.networks import Operation, Structure
from shared.networks.operations import priced
from shared.platforms import SimulatedPlatform

# One operation whose channels are position 0 (inputs) and position 1 (outputs), widths (n, 2) -> amounts per image (n,)
ReadOperation = Callable[[Operation, Floats], Floats]


def table_from_platform(
    platform: SimulatedPlatform, structure: Structure, batch: int | None = None, points: int = POINTS
) -> LookupTable:
    """A table of readings of `platform` for a network. The platform counts each reading in its `queries`.

    batch: images at once; by default the batch at which the platform runs the network.
    """
    images = batch or platform.inference_batch(structure.operations, structure.position_bounds)

    def read(operation: Operation, widths: Floats) -> Floats:
        return platform.measure([operation], widths, images)

    entries = read_entries(structure, read, points)
    return LookupTable(entries, structure.position_bounds, platform.source, platform.name, images, platform.unit)


def read_entries(structure: Structure, read: ReadOperation, points: int = POINTS) -> tuple[Entry, ...]:
    """Entries of a table. Operations with the same positions share an entry, the sum of their readings.

    Operations that differ in nothing that the platform prices are read once. Operations whose input and output channels
    are the same unit, such as depthwise convolutions, are read at equal widths only.

    Raises BadInput for a network with an operation on channels of several units, whose table would have an axis for
    each.
    """
    cache: dict[str, Floats] = {}
    entries: dict[tuple[int, ...], Entry] = {}
    for operation in structure.operations:
        if operation.inputs.others or operation.outputs.others:
            got = f"several behind a concatenation at '{operation.name}'"
            raise BadInput("layers that read one unit, for a table", got, "--network mobilenet")
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
        if key not in cache:
            cache[key] = read(alone, widths.reshape(-1, 2)).reshape(widths.shape[:-1])
        entry = entries.get(positions, Entry(positions, grids, np.zeros(widths.shape[:-1])))
        names = (*entry.operations, operation.name)
        entries[positions] = replace(entry, energy=entry.energy + cache[key], operations=names)
    return tuple(entries.values())

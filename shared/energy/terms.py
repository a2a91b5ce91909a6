"""The products of widths that an energy model is a weighted sum of."""

from __future__ import annotations

from shared.errors import BadInput
from shared.networks.units import Structure

KINDS = ("bilinear", "bilinear+linear")
CORRECTED = ("bilinear+linear",)  # kinds that a local profile corrects near each budget, see shared.energy.local


def terms(structure: Structure, kind: str) -> tuple[tuple[int, int], ...]:
    """Pairs of positions, each a term of the model of `kind`.

    "bilinear": the chain (0, 1), (1, 2), … of Yang, Zhu, Liu, CVPR 2019, section 3.2, even where the network's layers
    are not a chain.
    "bilinear+linear": a linear term per unit, for batch norm, depthwise layers and layers with one fixed side, and a
    product per layer that reads one unit and writes another. Position 0 never changes, so (0, u) is linear in u. The
    intercept stands for all operations without a unit.

    Example: a plain chain of two units has positions 0 (image channels) to 3 (outputs). "bilinear" gives (0, 1),
    (1, 2), (2, 3); "bilinear+linear" gives (0, 1), (0, 2), (1, 2).

    Raises BadInput for another kind.
    """
    last = len(structure.position_bounds) - 1
    if kind == "bilinear":
        return tuple((i, i + 1) for i in range(last))
    if kind != "bilinear+linear":
        raise BadInput("a kind of energy model", repr(kind), " or ".join(KINDS))
    units = range(1, last)
    inner = [(i, j) for i, j, _ in structure.edges if i is not None and j is not None and i in units and j in units]
    pairs = {(min(pair), max(pair)) for pair in inner}
    return tuple(sorted({(0, unit) for unit in units} | pairs))

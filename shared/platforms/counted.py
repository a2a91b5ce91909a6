"""Multiply-adds or bytes in place of joules: exact counts behind the interface of a platform."""

from __future__ import annotations

import numpy as np

from shared.errors import BadInput
from shared.platforms.platform import Amounts, Breakdown, ExactPlatform, Rows, Subject

BITS, USUAL_BITS = range(1, 65), 32


class MacsPlatform(ExactPlatform):
    """Counts a network's multiply-adds: what energy would be if nothing else cost any."""

    name, source, unit = "any", "counted", "MAC"
    meter, host, calibration = "exact count", None, "exact"

    def breakdown(self, subject: Subject, rows: Rows, batch: int) -> Breakdown:
        """Multiply-adds by layer."""
        positions = subject.structure.positions(rows).numpy()
        counts = [(operation.name, operation.macs(positions)) for operation in subject.structure.operations]
        return _by_layer(counts, "multiply-adds")


class SizePlatform(ExactPlatform):
    """Counts the bytes of a network's parameters at `bits` each; batch norm's running statistics are not among them.

    Raises BadInput for bits out of 1 to 64.
    """

    name, source, unit = "any", "counted", "B"
    meter, host = "exact count", None

    def __init__(self, bits: int | None = None) -> None:
        self.bits = USUAL_BITS if bits is None else bits
        if self.bits not in BITS:
            raise BadInput(f"--bits from {BITS[0]} to {BITS[-1]} for a size", bits, f"{USUAL_BITS}, as in training")
        self.name += "" if self.bits == USUAL_BITS else f"-{self.bits}bit"
        self.calibration = f"{self.bits} bits"

    def breakdown(self, subject: Subject, rows: Rows, batch: int) -> Breakdown:
        """Bytes by layer."""
        positions = subject.structure.positions(rows).numpy()
        operations = subject.structure.operations
        counts = [(operation.name, self.bits / 8 * operation.parameters(positions)) for operation in operations]
        return _by_layer(counts, "parameters")


def _by_layer(counts: list[tuple[str, Amounts]], cause: str) -> Breakdown:
    """The layers that count anything at all."""
    names, amounts = zip(*((name, amounts) for name, amounts in counts if amounts.any()), strict=True)
    return Breakdown(names, (cause,), np.stack(amounts, axis=1)[:, :, None])

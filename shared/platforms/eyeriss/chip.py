"""What both models of the chip share: its constants, a layer's sizes, the density of its tensors, what is counted."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.networks.operations import CONVOLUTIONS, GROUPED, TRANSPOSED, Operation
from shared.platforms import parameters

Array = NDArray[np.float64]
Accesses = dict[tuple[str, str], Array]  # (level, datum) -> how often, per image; compute counts multiply-adds

LEVELS = ("compute", "register file", "array", "buffer", "DRAM")
LAYERS = (*CONVOLUTIONS, "linear")  # kinds of operations that cost anything


@dataclass(frozen=True)
class Chip:
    """The constants, see eyeriss.toml; energies are in multiply-adds of 16 bits."""

    compute: float
    register_file: float  # per access of 16 bits, as the next three
    array: float
    buffer: float
    dram: float
    mac_j: float
    rows: int
    columns: int
    buffer_bytes: int
    filter_words: int
    input_words: int
    sum_words: int
    code_bits: int
    run_bits: int
    images: int
    bits: int

    def joules(self, accesses: Accesses, bits: int) -> Accesses:
        """Joules for each cause; what moves costs in proportion to its bits, a product to their square.

        Yang, Chen, Emer, Sze, "Designing Energy-Efficient CNNs using Energy-Aware Pruning" (CVPR 2017) and their slides
        scale the number of bits that move; both operands of a product shrink here.
        """
        costs = dict(zip(LEVELS, (self.compute, self.register_file, self.array, self.buffer, self.dram), strict=True))
        share = bits / 16
        return {
            cause: self.mac_j * costs[cause[0]] * (share**2 if cause[0] == "compute" else share) * count
            for cause, count in accesses.items()
        }

    def coded(self, nonzero: float | Array, bits: int) -> Array:
        """Size of a tensor as it is stored, over its size without a code; what the code would enlarge has none."""
        return np.minimum(1.0, self.enlarged(bits) * np.asarray(nonzero))

    def enlarged(self, bits: int) -> float:
        """Size of a non-zero value in the run-length code, over its size without.

        A word of the code holds as many non-zero values as fit beside the lengths of the runs of zeros before them.
        """
        return self.code_bits / (bits * (self.code_bits // (bits + self.run_bits)))


@cache
def chip() -> Chip:
    """The constants of the data file."""
    kinds: dict[str, Any] = {field.name: int if field.type == "int" else float for field in fields(Chip)}
    entries = parameters.read(Path(__file__).with_name("eyeriss.toml"), set(kinds))
    return Chip(**{name: kind(entries[name].value) for name, kind in kinds.items()})


class Layer(NamedTuple):
    """A layer's sizes at n widths; counts of channels are arrays (n,), sizes are (height, width) in pixels."""

    channels: Array  # that a filter reads
    maps: Array  # that the layer reads: as many, or more with groups
    filters: Array
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padded: tuple[int, int]  # the input with its padding
    output: tuple[int, int]
    multiply_adds: Array
    weights: Array


class Density(NamedTuple):
    """Shares of a layer's values that are not zero; 1 is a dense tensor."""

    weights: float = 1.0
    inputs: float = 1.0  # padding included
    outputs: float = 1.0


def layer(operation: Operation, positions: Array) -> Layer:
    """The sizes of a layer at each row of positions (n, p); `operation` has a kind out of LAYERS."""
    maps, filters = operation.inputs.at(positions), operation.outputs.at(positions)
    weights = operation.parameters(positions) - operation.bias * filters
    # a transposed convolution reads its input without padding: its padding cuts the output
    pad = (0, 0) if operation.kind in TRANSPOSED else operation.padding
    height, width = (size + 2 * margin for size, margin in zip(operation.input_size, pad, strict=True))
    return Layer(
        np.full_like(maps, operation.depth) if operation.kind in GROUPED else maps,
        maps,
        filters,
        operation.kernel,
        operation.stride,
        (height, width),
        operation.output_size,
        operation.macs(positions),
        weights,
    )

"""What the kernels of one inference cost on a GPU of the Pascal kind, for thousands of width vectors at once.

Operations expand to kernels as PyTorch 1.0 launched them in eager mode: a convolution with bias is two kernels, nothing
is fused. Every formula works on arrays (n,), one entry per width vector; a batch multiplies the pixels. Tensors are
float32. The constants below describe the kernel libraries of 2018 and are assumptions; what differs between chips is
in their data files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.networks.operations import CONVOLUTIONS, TRANSPOSED, Operation
from shared.platforms.parameters import Parameters

Array = NDArray[np.float64]

FLOAT_BYTES = 4.0
# Output tiles of the matrix kernels: pixels, channels, efficiency relative to the largest, and the blocks each
# multiprocessor needs before its pipelines are full.
_TILES = np.array([[128, 128, 1.0, 1.5], [128, 64, 0.93, 2], [64, 64, 0.85, 4], [128, 32, 0.80, 3], [64, 32, 0.68, 6]])
TILE_PIXELS, TILE_CHANNELS, TILE_EFFICIENCY, TILE_BLOCKS_TO_FILL = _TILES.T[:, :, None]  # (tiles, 1) each
DEPTH_STEP = 8  # the matrix kernels' inner dimension runs in steps of this many
UNALIGNED_EFFICIENCY = 0.92  # inner dimension not divisible by 4: no vector loads
PADDED_LANE_ENERGY = 0.5  # of a lane that does useful work
THREADS_TO_FILL_SM = 1024  # elementwise kernels hide latency from this many threads per multiprocessor on
INPUT_REREAD = 0.5  # of a non-resident input, per column of tiles: the other half is caught by concurrent blocks


class Cost(NamedTuple):
    """One kernel on its own: arrays (n,) or scalars for a whole batch."""

    seconds: Array
    flops: Array  # multiply and add count one each; padded lanes by their share of energy
    l2_bytes: Array
    dram_bytes: Array
    sm_fraction: Array  # of the multiprocessors that have work


@dataclass(frozen=True)
class Kernel:
    """One launch: its cost function, its weight in host time, and how many kernel gaps it pays."""

    operation: Operation
    cost: Callable[[Operation, Array, int, Parameters], Cost]
    host_calls: float
    gaps: int = 1


def expand(operations: tuple[Operation, ...]) -> tuple[Kernel, ...]:
    """The kernels of `operations` in launch order."""
    return tuple(kernel for operation in operations for kernel in _kernels(operation))


def _kernels(operation: Operation) -> Iterator[Kernel]:
    match operation.kind:
        case "conv" | "transposed_conv":
            yield Kernel(operation, convolution, 1.6, gaps=2)  # the library launches a helper kernel of its own
        case "depthwise":
            yield Kernel(operation, depthwise, 1.6)
        case "linear":
            yield Kernel(operation, linear, 1.3)  # its bias rides along
        case "batch_norm":
            yield Kernel(operation, batch_norm, 1.4)
        case "grouped_conv" | "grouped_transposed_conv":
            yield Kernel(operation, grouped, 1.6, gaps=2)
        case "relu" | "activation":
            yield Kernel(operation, elementwise, 0.55)
        case "norm":
            yield Kernel(operation, norm, 1.4)
        case "max_pool" | "avg_pool" | "upsample":
            yield Kernel(operation, pool, 0.8)
        case "add":
            yield Kernel(operation, add, 0.8)
        case "cat" | "copy" | "broadcast":
            yield Kernel(operation, elementwise, 0.8)
        case _:
            raise ValueError(f"expected a known kind of operation, got {operation.kind!r}; try adding its kernel here")
    if operation.bias and operation.kind in CONVOLUTIONS:
        yield Kernel(operation, bias_add, 0.4)  # launched inside the convolution's call: no Python on the way


def missing_share(activation_bytes: Array, chip: Parameters) -> Array:
    """Share of an activation that doesn't stay in the L2 cache until it is read, and goes through DRAM both ways."""
    return np.clip(activation_bytes / chip.l2_bytes - 0.5, 0.0, 1.0)


def matrix_product(
    chip: Parameters,
    *,
    pixels: float | Array,
    columns: Array,
    depth: Array,
    input_bytes: Array,
    overlap: float = 1.0,
) -> Cost:
    """Implicit matrix product, `pixels` x `depth` times `depth` x `columns`, by whichever tile is fastest.

    A tile is a run of pixels along image rows, so `overlap` of its horizontal taps share one load. Whole tiles run in
    waves over the multiprocessors: a tile that is started costs its full time, and its padded lanes part of the energy.
    """
    column_blocks = np.ceil(columns / TILE_CHANNELS)  # (tiles, n), as all below until the choice
    row_blocks = np.ceil(pixels / TILE_PIXELS)
    blocks = row_blocks * column_blocks
    padded_depth = DEPTH_STEP * np.ceil(depth / DEPTH_STEP)
    tile_flops = 2 * TILE_PIXELS * TILE_CHANNELS * padded_depth
    efficiency = chip.gemm_efficiency * np.where(depth % 4 == 0, 1.0, UNALIGNED_EFFICIENCY)
    sm_flops_per_s = 2 * chip.lanes_per_sm * chip.clock_hz * TILE_EFFICIENCY * efficiency
    blocks_per_sm = np.maximum(np.ceil(blocks / chip.sm_count), TILE_BLOCKS_TO_FILL)
    output_bytes = FLOAT_BYTES * pixels * columns
    weight_bytes = FLOAT_BYTES * columns * depth
    l2_bytes = FLOAT_BYTES * pixels * depth / overlap * column_blocks + weight_bytes * row_blocks + output_bytes
    reads = np.maximum(1.0, INPUT_REREAD * column_blocks)
    dram_bytes = (
        weight_bytes
        + missing_share(input_bytes, chip) * input_bytes * reads
        + missing_share(output_bytes, chip) * output_bytes
    )
    compute_seconds = blocks_per_sm * tile_flops / sm_flops_per_s
    seconds = np.maximum(compute_seconds, _memory_seconds(l2_bytes, dram_bytes, chip.dram_efficiency, chip))
    useful = 2 * pixels * columns * depth
    flops = useful + PADDED_LANE_ENERGY * (blocks * tile_flops - useful)
    choice = np.argmin(seconds + 1e-6 * compute_seconds, axis=0)[None]  # memory-bound ties go to the least padded
    by_tile = (seconds, flops, l2_bytes, dram_bytes, np.minimum(1.0, blocks / chip.sm_count))
    return Cost(*(np.take_along_axis(values, choice, axis=0)[0] for values in by_tile))


def convolution(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """Convolution or transposed convolution. Dilation changes neither the counts nor, in this model, the traffic."""
    return _products(operation, positions, batch, chip, np.asarray(1.0))


def grouped(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """Convolution with groups: a product for each, all in one launch (assumed), so that tiles fill it together.

    Of the weights only one group's come from DRAM; all of them are few.
    """
    return _products(operation, positions, batch, chip, operation.inputs.at(positions) / operation.depth)


def _products(operation: Operation, positions: Array, batch: int, chip: Parameters, groups: Array) -> Cost:
    """One matrix product for each group of a convolution."""
    inputs, outputs = operation.inputs.at(positions), operation.outputs.at(positions)
    (kh, kw), (sh, sw) = operation.kernel, operation.stride
    # An output pixel of a transposed convolution gathers only the taps of its own stride phase.
    taps = kh * kw / (sh * sw) if operation.kind in TRANSPOSED else kh * kw
    if kh * kw == 1:
        chip = replace(chip, gemm_efficiency=chip.gemm_efficiency * chip.pointwise_efficiency)
    return matrix_product(
        chip,
        pixels=batch * _area(operation.output_size) * groups,
        columns=outputs / groups,
        depth=inputs / groups * taps,
        input_bytes=_traffic(operation, positions, batch)[0],
        overlap=max(1.0, kw / sw),
    )


def linear(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """Fully connected: the faster of one matrix product and `batch` matrix-vector products, which memory bounds."""
    inputs, outputs = operation.inputs.at(positions), operation.outputs.at(positions)
    weight_bytes = FLOAT_BYTES * inputs * outputs
    traffic = weight_bytes + FLOAT_BYTES * (inputs + outputs)
    # A row of the matrix is one block's work: few rows leave multiprocessors, and so bandwidth, unused.
    efficiency = chip.gemv_efficiency * outputs / (outputs + 2 * chip.sm_count)
    seconds = _memory_seconds(traffic, weight_bytes, efficiency, chip)
    vector = Cost(seconds, 2 * inputs * outputs, traffic, weight_bytes, np.minimum(1.0, outputs / chip.sm_count))
    if batch == 1:
        return vector
    matrix = matrix_product(chip, pixels=batch, columns=outputs, depth=inputs, input_bytes=FLOAT_BYTES * batch * inputs)
    repeats = (batch, batch, batch, batch, 1)  # all but the fraction of busy multiprocessors add up
    faster = matrix.seconds <= batch * vector.seconds
    return Cost(*(np.where(faster, a, k * b) for a, b, k in zip(matrix, vector, repeats, strict=True)))


def streaming(chip: Parameters, read_bytes: Array, write_bytes: Array, *, instructions: float, flops: float) -> Cost:
    """A kernel with one thread per output element, `instructions` and `flops` each: bound by memory or by issue."""
    elements = write_bytes / FLOAT_BYTES
    traffic = read_bytes + write_bytes
    dram_bytes = missing_share(read_bytes, chip) * read_bytes + missing_share(write_bytes, chip) * write_bytes
    occupancy = np.minimum(1.0, elements / (THREADS_TO_FILL_SM * chip.sm_count))
    issue = elements * instructions / (chip.sm_count * chip.lanes_per_sm * chip.clock_hz * occupancy)
    seconds = np.maximum(issue, _memory_seconds(traffic, dram_bytes, chip.dram_efficiency, chip))
    return Cost(seconds, elements * flops, traffic, dram_bytes, occupancy)


def depthwise(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """Depthwise convolution by the framework's own kernel: slow per tap, its few weights neglected."""
    taps = _area(operation.kernel)
    read, write = _traffic(operation, positions, batch)
    return streaming(chip, read, write, instructions=taps * chip.depthwise_instructions_per_tap, flops=2 * taps)


def batch_norm(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """A scale and a shift per element."""
    return streaming(chip, *_traffic(operation, positions, batch), instructions=14, flops=2)


def norm(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """Statistics of the map itself (assumed): it is read for them, then again, and written."""
    read, write = _traffic(operation, positions, batch)
    return streaming(chip, 2 * read, write, instructions=24, flops=5)


def elementwise(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """A function of single values, copies, or a combination with one value per channel, whose traffic is neglected."""
    return streaming(chip, *_traffic(operation, positions, batch), instructions=8, flops=1)


def pool(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """Pooling and upsampling, one load and one comparison or addition per tap."""
    taps = _area(operation.kernel)
    return streaming(chip, *_traffic(operation, positions, batch), instructions=8 + 6 * taps, flops=taps)


def add(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """Sum of two operands as large as the output."""
    read, write = _traffic(operation, positions, batch)
    return streaming(chip, 2 * read, write, instructions=8, flops=1)


def bias_add(operation: Operation, positions: Array, batch: int, chip: Parameters) -> Cost:
    """In place on the convolution's output."""
    _, write = _traffic(operation, positions, batch)
    return streaming(chip, write, write, instructions=8, flops=1)


def _traffic(operation: Operation, positions: Array, batch: int) -> tuple[Array, Array]:
    """Bytes of the operation's input (of one operand) and of its output."""
    read = FLOAT_BYTES * batch * _area(operation.input_size) * operation.inputs.at(positions)
    return read, FLOAT_BYTES * batch * _area(operation.output_size) * operation.outputs.at(positions)


def _memory_seconds(l2_bytes: Array, dram_bytes: Array, dram_efficiency: float | Array, chip: Parameters) -> Array:
    return np.maximum(l2_bytes / chip.l2_bytes_per_s, dram_bytes / (chip.dram_bytes_per_s * dram_efficiency))


def _area(size: tuple[int, int]) -> float:
    return float(size[0] * size[1])

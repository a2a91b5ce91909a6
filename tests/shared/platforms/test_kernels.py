"""Kernel costs against slow scalar re-implementations that place every tile, and against limits in closed form."""

from __future__ import annotations

import dataclasses
import itertools
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.networks import Channels, Operation
from shared.platforms import kernels
from shared.platforms.parameters import Parameters

# pixels, channels, relative efficiency, blocks that fill one multiprocessor
TILES = [(128, 128, 1.0, 1.5), (128, 64, 0.93, 2), (64, 64, 0.85, 4), (128, 32, 0.80, 3), (64, 32, 0.68, 6)]


def convolution(inputs: int, outputs: int, size: int, kernel: int, stride: int, kind: str = "conv") -> Operation:
    out = size * stride if kind == "transposed_conv" else ceil(size / stride)
    return Operation(
        "conv",
        kind,  # type: ignore[arg-type]
        Channels(0, inputs),
        Channels(1, outputs),
        (size, size),
        (out, out),
        (kernel, kernel),
        (stride, stride),
    )


def missing(size: float, chip: Parameters) -> float:
    return 1.0 - min(1.0, max(0.0, 1.5 - size / chip.l2_bytes))


def slow_tile(operation: Operation, inputs: int, outputs: int, batch: int, chip: Parameters, tile: tuple) -> tuple:
    """One tile shape, scalar: every block is placed on a multiprocessor in turn and its lanes are counted."""
    tile_pixels, tile_channels, relative, fill = tile
    (kh, kw), (sh, sw) = operation.kernel, operation.stride
    pixels = batch * operation.output_size[0] * operation.output_size[1]
    depth = inputs * kh * kw / (sh * sw if operation.kind == "transposed_conv" else 1)
    steps = 8 * ceil(depth / 8)
    starts = itertools.product(range(0, pixels, tile_pixels), range(0, outputs, tile_channels))
    load, useful_lanes, all_lanes = [0.0] * int(chip.sm_count), 0.0, 0.0
    l2_bytes = 4.0 * pixels * outputs
    for block, (row, column) in enumerate(starts):
        load[block % len(load)] += 1
        rows, columns = min(tile_pixels, pixels - row), min(tile_channels, outputs - column)
        useful_lanes += rows * columns * depth
        all_lanes += tile_pixels * tile_channels * steps
        l2_bytes += 4.0 * rows * depth / max(1.0, kw / sw) + 4.0 * columns * depth
    efficiency = chip.gemm_efficiency * relative
    efficiency *= chip.pointwise_efficiency if kh * kw == 1 else 1.0
    efficiency *= 1.0 if depth % 4 == 0 else 0.92
    one_tile_s = tile_pixels * tile_channels * steps / (chip.lanes_per_sm * chip.clock_hz * efficiency)
    compute_s = max(*load, fill) * one_tile_s
    read = 4.0 * batch * operation.input_size[0] * operation.input_size[1] * inputs
    written = 4.0 * pixels * outputs
    columns_of_tiles = ceil(outputs / tile_channels)
    dram_bytes = 4.0 * outputs * depth + missing(read, chip) * read * max(1.0, columns_of_tiles / 2)
    dram_bytes += missing(written, chip) * written
    memory_s = max(l2_bytes / chip.l2_bytes_per_s, dram_bytes / (chip.dram_bytes_per_s * chip.dram_efficiency))
    flops = 2 * (useful_lanes + 0.5 * (all_lanes - useful_lanes))
    busy = sum(count > 0 for count in load) / len(load)
    return max(compute_s, memory_s), compute_s, flops, l2_bytes, dram_bytes, busy


@pytest.mark.parametrize("kind", ["conv", "transposed_conv"])
@pytest.mark.parametrize("slow_memory", ["dram", "l2", None])
def test_convolution_equals_blocks_placed_one_by_one(kind: str, slow_memory: str | None, chip: Parameters) -> None:
    generator = np.random.default_rng(0)
    if slow_memory:
        chip = dataclasses.replace(chip, **{f"{slow_memory}_bytes_per_s": 4e9})
    memory_bound = 0
    for _ in range(80):
        inputs, outputs = int(generator.integers(1, 300)), int(generator.integers(1, 300))
        size, kernel, stride = int(generator.integers(1, 24)), *generator.choice([1, 2, 3, 5], 2).tolist()
        batch = int(generator.choice([1, 3]))
        operation = convolution(inputs, outputs, size, kernel, stride, kind)
        slow = [slow_tile(operation, inputs, outputs, batch, chip, tile) for tile in TILES]
        best = min(slow, key=lambda tile: (tile[0], tile[1]))  # memory-bound ties: least computing
        fast = kernels.convolution(operation, np.array([[inputs, outputs]], dtype=float), batch, chip)
        expected = (best[0], *best[2:])
        np.testing.assert_allclose([values[0] for values in fast], expected, rtol=1e-9)
        memory_bound += best[0] > best[1]
    assert memory_bound > 8 if slow_memory else memory_bound < 8  # both sides of the roofline are visited


@settings(deadline=None, max_examples=50)
@given(channels=st.integers(1, 400), size=st.integers(1, 40), kernel=st.sampled_from([1, 3, 5]))
def test_depthwise_equals_scalar_roofline(channels: int, size: int, kernel: int, chip: Parameters) -> None:
    conv = Operation("dw", "depthwise", *[Channels(0, channels)] * 2, *[(size, size)] * 2, (kernel, kernel))
    fast = kernels.depthwise(conv, np.array([[channels]], dtype=float), 1, chip)
    elements = channels * size * size
    threads = min(elements, 1024 * 6)  # below that the chip is not full and takes as long as if it were
    issue_s = elements / threads * 40 * kernel * kernel * 1024 / (64 * 1e9)
    dram_bytes = 2 * missing(4 * elements, chip) * 4 * elements
    seconds = max(issue_s, 8 * elements / 2e11, dram_bytes / (5e10 * 0.8))
    expected = (seconds, 2 * kernel * kernel * elements, 8 * elements, dram_bytes, threads / (1024 * 6))
    np.testing.assert_allclose([values[0] for values in fast], expected, rtol=1e-12)


def test_linear_is_memory_bound_alone_and_never_slower_per_image_in_a_batch(chip: Parameters) -> None:
    layer = Operation("fc", "linear", Channels(0, 1000), Channels(1, 500), (1, 1), (1, 1))
    rows = np.array([[1000.0, 500.0], [7.0, 3.0], [1000.0, 1.0]])
    one = kernels.linear(layer, rows, 1, chip)
    weight_bytes = 4 * rows[:, 0] * rows[:, 1]
    np.testing.assert_allclose(one.seconds * 5e10 * 0.7 * rows[:, 1] / (rows[:, 1] + 12), weight_bytes, rtol=1e-12)
    np.testing.assert_array_equal(one.dram_bytes, weight_bytes)
    for batch in (2, 16, 1024):
        several = kernels.linear(layer, rows, batch, chip)
        assert (several.seconds <= batch * one.seconds * (1 + 1e-12)).all()
    assert several.seconds[0] < 0.1 * 1024 * one.seconds[0]  # a large batch reads the weights once


def test_arithmetic_of_aligned_shapes_is_the_multiply_adds(chip: Parameters) -> None:
    """Nothing is padded when pixels, channels and depth fill their tiles."""
    conv = convolution(16, 128, 16, 3, 1)
    cost = kernels.convolution(conv, np.array([[16.0, 128.0]]), 1, chip)
    assert cost.flops[0] == 2 * 16 * 16 * 128 * 16 * 9


def test_transposed_convolution_does_its_inputs_work(chip: Parameters) -> None:
    """Each input pixel meets each tap once, whatever the stride: a quarter of the taps per output pixel at stride 2."""
    up = convolution(64, 128, 16, 2, 2, "transposed_conv")
    cost = kernels.convolution(up, np.array([[64.0, 128.0]]), 1, chip)
    assert cost.flops[0] == 2 * (16 * 16) * 4 * 64 * 128


@pytest.mark.parametrize(("size", "share"), [(10, 0.0), (50_000, 0.0), (100_000, 0.5), (150_000, 1.0), (1e9, 1.0)])
def test_cache_keeps_half_its_size_and_loses_all_from_one_and_a_half(
    size: float, share: float, chip: Parameters
) -> None:
    assert kernels.missing_share(np.array(size), chip) == pytest.approx(share)


def test_addition_reads_two_operands(chip: Parameters) -> None:
    both = Operation("add", "add", *[Channels(0, 8)] * 2, (5, 5), (5, 5))
    relu = dataclasses.replace(both, kind="relu")
    rows = np.array([[8.0]])
    added, single = kernels.add(both, rows, 1, chip), kernels.elementwise(relu, rows, 1, chip)
    assert added.l2_bytes[0] == 1.5 * single.l2_bytes[0]


def test_expansion_is_what_eager_mode_launches(operations: tuple[Operation, ...]) -> None:
    """A convolution's bias is a kernel of its own, a linear layer's is not."""
    names = [kernel.operation.name for kernel in kernels.expand(operations)]
    assert names == ["conv", *(operation.name for operation in operations)]
    unknown = dataclasses.replace(operations[0], kind="softmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="softmax"):
        kernels.expand((unknown,))


def test_batch_multiplies_pixels(chip: Parameters) -> None:
    """Two images cost what one twice as tall costs."""
    one = convolution(24, 40, 12, 3, 1)
    tall = dataclasses.replace(one, input_size=(24, 12), output_size=(24, 12))
    rows = np.array([[24.0, 40.0], [5.0, 33.0]])
    for a, b in zip(kernels.convolution(one, rows, 2, chip), kernels.convolution(tall, rows, 1, chip), strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 6),
    depth=st.integers(1, 12),
    made=st.integers(1, 12),
    size=st.integers(1, 20),
    kernel=st.sampled_from([1, 3]),
    kind=st.sampled_from(["conv", "transposed_conv"]),
)
def test_groups_cost_what_so_many_images_cost_without(
    groups: int, depth: int, made: int, size: int, kernel: int, kind: str, chip: Parameters
) -> None:
    one = convolution(depth, made, size, kernel, 1, kind)
    whole = dataclasses.replace(
        one, kind=f"grouped_{kind}", inputs=Channels(0, 1, depth), outputs=Channels(0, 1, made), depth=depth
    )
    got = kernels.grouped(whole, np.array([[groups]]), 4, chip)
    expected = kernels.convolution(one, np.array([[depth, made]]), 4 * groups, chip)
    np.testing.assert_allclose(np.array(got), np.array(expected), rtol=1e-12)
    assert [each.cost for each in kernels.expand((whole,))] == [kernels.grouped]


def test_functions_of_values_cost_what_relu_does_and_norms_read_twice(chip: Parameters) -> None:
    relu = Operation("a", "relu", Channels(0, 64), Channels(0, 64), (32, 32), (32, 32))
    rows = np.array([[64]])

    def price(kind: str) -> kernels.Cost:
        (kernel,) = kernels.expand((dataclasses.replace(relu, kind=kind),))  # type: ignore[arg-type]
        return kernel.cost(kernel.operation, rows, 256, chip)

    for kind in ("activation", "copy", "broadcast"):
        assert price(kind) == price("relu")
    tensor = 4.0 * 256 * 64 * 32 * 32
    assert price("norm").l2_bytes == 3 * tensor
    assert price("relu").l2_bytes == 2 * tensor

"""A chip with round numbers and a small network of every kind of operation."""

from __future__ import annotations

import pytest

from shared.networks import Channels, Operation
from shared.platforms.parameters import Parameters

CHIP = Parameters(
    sm_count=6,
    lanes_per_sm=64,
    clock_hz=1e9,
    l2_bytes=100_000,
    l2_bytes_per_s=2e11,
    dram_bytes_per_s=5e10,
    power_cap_w=100,
    idle_w=10,
    busy_w=20,
    busy_floor=0.4,
    flop_j=1e-11,
    l2_byte_j=3e-11,
    dram_byte_j=1e-10,
    gemm_efficiency=0.6,
    pointwise_efficiency=0.5,
    dram_efficiency=0.8,
    gemv_efficiency=0.7,
    depthwise_instructions_per_tap=40,
    host_call_s=1e-5,
    kernel_gap_s=2e-6,
    sync_s=5e-5,
    reading_noise=0.02,
)

IMAGE, FIRST, SECOND, OUTPUTS = (Channels(i, count) for i, count in enumerate((3, 48, 96, 10)))
OPERATIONS = (
    Operation("conv", "conv", IMAGE, FIRST, (32, 32), (16, 16), (3, 3), (2, 2), bias=True),
    Operation("norm", "batch_norm", FIRST, FIRST, (16, 16), (16, 16)),
    Operation("relu", "relu", FIRST, FIRST, (16, 16), (16, 16)),
    Operation("depthwise", "depthwise", FIRST, FIRST, (16, 16), (16, 16), (3, 3)),
    Operation("pointwise", "conv", FIRST, SECOND, (16, 16), (16, 16)),
    Operation("max", "max_pool", SECOND, SECOND, (16, 16), (8, 8), (2, 2), (2, 2)),
    Operation("up", "transposed_conv", SECOND, SECOND, (8, 8), (16, 16), (3, 3), (2, 2)),
    Operation("add", "add", SECOND, SECOND, (16, 16), (16, 16)),
    Operation("cat", "cat", SECOND, SECOND, (16, 16), (16, 16)),
    Operation("resize", "upsample", SECOND, SECOND, (16, 16), (32, 32)),
    Operation("mean", "avg_pool", SECOND, SECOND, (32, 32), (1, 1), (32, 32)),
    Operation("fc", "linear", SECOND, OUTPUTS, (1, 1), (1, 1), bias=True),
)


@pytest.fixture(scope="session")
def chip() -> Parameters:
    """Round numbers, no calibration: what depends on it changes only with the formulas."""
    return CHIP


@pytest.fixture(scope="session")
def operations() -> tuple[Operation, ...]:
    """One operation of each kind; positions are (3, first, second, 10)."""
    return OPERATIONS

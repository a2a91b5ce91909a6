"""From kernel costs to seconds and joules: launches, idle power, and the power cap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shared.networks.operations import Operation
from shared.platforms.kernels import Array, Cost, Kernel, expand
from shared.platforms.parameters import Parameters

CAUSES = ("busy", "arithmetic", "l2", "dram", "idle")
DVFS_EXPONENT = 2.5  # power ~ clock^2.5: a clock scaled by x takes 1/x the time at x^1.5 the energy


@dataclass(frozen=True)
class Simulation:
    """Noise-free outcome per image for each width vector: arrays (n,). The causes add up to `joules`."""

    joules: Array
    seconds: Array
    joules_by_cause: dict[str, Array]  # idle, busy, arithmetic, l2, dram


def simulate(operations: tuple[Operation, ...], positions: Array, batch: int, chip: Parameters) -> Simulation:
    """One inference of `batch` images for each row of `positions` (n, p); results are per image.

    The host enqueues kernels without waiting; the GPU runs them in order, each no sooner than it is enqueued. So time
    is a max-plus recursion, and a network of small kernels takes as long as the host needs to launch it.
    """
    count = positions.shape[0]
    end_s = np.zeros(count)
    causes = {name: np.zeros(count) for name in CAUSES[:-1]}
    for _, gpu_s, energies in _launches(operations, positions, batch, chip):
        end_s = gpu_s
        for name, energy in energies.items():
            causes[name] += energy
    seconds = end_s + chip.sync_s
    causes["idle"] = chip.idle_w * seconds
    per_image = {name: energy / batch for name, energy in causes.items()}
    return Simulation(sum(per_image.values(), start=np.zeros(count)), seconds / batch, per_image)


def by_operation(
    operations: tuple[Operation, ...], positions: Array, batch: int, chip: Parameters
) -> tuple[Array, Array]:
    """Joules per image (n, operations, CAUSES) and seconds (n, operations).

    An operation's seconds run from the end of the one before it, so a wait, and its idle power, belong to the operation
    that is waited for.
    """
    seconds = np.zeros((positions.shape[0], len(operations)))
    joules = np.zeros((*seconds.shape, len(CAUSES)))
    indices = {id(operation): index for index, operation in enumerate(operations)}
    before = np.zeros(positions.shape[0])
    for kernel, gpu_s, energies in _launches(operations, positions, batch, chip):
        index = indices[id(kernel.operation)]
        for cause, name in enumerate(CAUSES[:-1]):
            joules[:, index, cause] += energies[name]
        seconds[:, index] += gpu_s - before
        before = gpu_s
    seconds[:, -1] += chip.sync_s
    joules[:, :, -1] = chip.idle_w * seconds
    return joules / batch, seconds / batch


def _launches(
    operations: tuple[Operation, ...], positions: Array, batch: int, chip: Parameters
) -> Iterator[tuple[Kernel, Array, dict[str, Array]]]:
    """Each kernel with the time at which it ends and its dynamic joules by cause, for a whole batch."""
    host_s = 0.0  # the host's clock doesn't depend on the widths
    gpu_s = np.zeros(positions.shape[0])
    for kernel in expand(operations):
        cost = kernel.cost(kernel.operation, positions, batch, chip)
        seconds, energies = run_kernel(cost, chip)
        host_s += chip.host_call_s * kernel.host_calls
        gpu_s = np.maximum(gpu_s, host_s) + seconds + chip.kernel_gap_s * kernel.gaps
        yield kernel, gpu_s, energies


def run_kernel(cost: Cost, chip: Parameters) -> tuple[Array, dict[str, Array]]:
    """Seconds and dynamic joules by cause of one kernel; past the power cap the clock falls until the cap is met."""
    busy_w = chip.busy_w * (chip.busy_floor + (1 - chip.busy_floor) * cost.sm_fraction)
    energies = {
        "busy": busy_w * cost.seconds,
        "arithmetic": chip.flop_j * cost.flops,
        "l2": chip.l2_byte_j * cost.l2_bytes,
        "dram": chip.dram_byte_j * cost.dram_bytes,
    }
    dynamic_w = sum(energies.values(), start=np.zeros_like(cost.seconds)) / cost.seconds
    clock = np.minimum(1.0, (chip.power_cap_w - chip.idle_w) / dynamic_w) ** (1 / DVFS_EXPONENT)
    return cost.seconds / clock, {name: energy * clock ** (DVFS_EXPONENT - 1) for name, energy in energies.items()}

"""Launches, energy balance, power cap and the shape of joules over widths."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from shared.networks import Operation
from shared.platforms import kernels
from shared.platforms.parameters import MODEL_REVISION, Parameters
from shared.platforms.simulator import run_kernel, simulate

ROWS = np.array([[3, 48, 96, 10], [3, 1, 1, 10], [3, 17, 96, 10], [3, 48, 5, 10]], dtype=float)


@pytest.mark.parametrize("host_call_s", [0.0, 1e-6, 1e-5, 1e-3])
def test_time_is_the_longest_chain_through_launches_and_kernels(
    host_call_s: float, chip: Parameters, operations: tuple[Operation, ...]
) -> None:
    """Max-plus in closed form: some kernel starts when it is launched, and from there on the GPU never waits."""
    chip = dataclasses.replace(chip, host_call_s=host_call_s)
    found = simulate(operations, ROWS, 2, chip).seconds
    for row, seconds in zip(ROWS, found, strict=True):
        launched, busy, now = [], [], 0.0
        for kernel in kernels.expand(operations):
            now += host_call_s * kernel.host_calls
            launched.append(now)
            duration, _ = run_kernel(kernel.cost(kernel.operation, row[None], 2, chip), chip)
            busy.append(float(duration[0]) + 2e-6 * kernel.gaps)
        longest = max(start + sum(busy[index:]) for index, start in enumerate(launched))
        assert seconds * 2 == pytest.approx(longest + 5e-5, rel=1e-12)


def test_host_bound_and_gpu_bound_limits(chip: Parameters, operations: tuple[Operation, ...]) -> None:
    """A slow host leaves only the last kernel to wait for; an immediate one leaves the sum of the kernels."""
    slow = dataclasses.replace(chip, host_call_s=1.0)
    calls = sum(kernel.host_calls for kernel in kernels.expand(operations))
    np.testing.assert_allclose(simulate(operations, ROWS, 1, slow).seconds, calls, rtol=1e-3)
    # conv with its bias and two gaps, bn, relu, depthwise, pointwise, pools, up, add, cat, resize, linear
    assert calls == pytest.approx(1.6 + 0.4 + 1.4 + 0.55 + 1.6 + 1.6 + 0.8 + 1.6 + 0.8 + 0.8 + 0.8 + 0.8 + 1.3)
    alone = [simulate((operation,), ROWS, 1, chip).seconds for operation in operations]
    waits = 1e-5 * 1.6 + 5e-5  # every operation alone waits for its first launch and for the host to notice its end
    immediate = dataclasses.replace(chip, host_call_s=0.0)
    together = simulate(operations, ROWS, 1, immediate).seconds
    assert (together <= sum(alone)).all() and (together >= sum(alone) - len(operations) * waits).all()


def test_causes_add_up_to_joules(chip: Parameters, operations: tuple[Operation, ...]) -> None:
    outcome = simulate(operations, ROWS, 4, chip)
    assert outcome.joules_by_cause.keys() == {"idle", "busy", "arithmetic", "l2", "dram"}
    np.testing.assert_allclose(sum(outcome.joules_by_cause.values()), outcome.joules, rtol=1e-14)
    np.testing.assert_allclose(outcome.joules_by_cause["idle"], 10 * outcome.seconds, rtol=1e-14)
    costs = [kernel.cost(kernel.operation, ROWS, 4, chip) for kernel in kernels.expand(operations)]
    np.testing.assert_allclose(outcome.joules_by_cause["dram"] * 4, 1e-10 * sum(c.dram_bytes for c in costs))
    np.testing.assert_allclose(outcome.joules_by_cause["arithmetic"] * 4, 1e-11 * sum(c.flops for c in costs))


def test_power_cap_slows_kernels_down_to_the_cap(chip: Parameters, operations: tuple[Operation, ...]) -> None:
    costs = [kernel.cost(kernel.operation, ROWS, 64, chip) for kernel in kernels.expand(operations)]
    capped = dataclasses.replace(chip, power_cap_w=16)
    for cost in costs:
        free_s, free = run_kernel(cost, chip)
        seconds, energies = run_kernel(cost, capped)
        free_w, watts = sum(free.values()) / free_s, sum(energies.values()) / seconds
        hot = free_w > 6  # above idle
        np.testing.assert_allclose(watts[hot], 6, rtol=1e-12)
        np.testing.assert_array_equal(seconds[~hot], free_s[~hot])
        clock = free_s / seconds
        np.testing.assert_allclose(sum(energies.values()), sum(free.values()) * clock**1.5, rtol=1e-12)
        assert (clock[hot] < 1).all()
    assert any((sum(run_kernel(c, chip)[1].values()) / run_kernel(c, chip)[0] > 6).any() for c in costs)


def test_rows_don_t_touch_each_other(chip: Parameters, operations: tuple[Operation, ...]) -> None:
    together = simulate(operations, ROWS, 3, chip).joules
    alone = [simulate(operations, row[None], 3, chip).joules[0] for row in ROWS]
    np.testing.assert_array_equal(together, alone)


def test_larger_batches_cost_less_per_image(chip: Parameters, operations: tuple[Operation, ...]) -> None:
    """Launches and idle time are shared; a row of tiny layers saves nearly all of it."""
    joules = np.array([simulate(operations, ROWS, batch, chip).joules for batch in (1, 2, 4, 8, 16)])
    assert (np.diff(joules, axis=0) < 0).all()
    assert joules[1, 1] < 0.52 * joules[0, 1]


PINNED = [0.00521903390506, 0.00202667667727, 0.00461485404894, 0.00274469512857]  # joules per image at batch 2


def test_formulas_are_those_of_this_revision(chip: Parameters, operations: tuple[Operation, ...]) -> None:
    """Cached profiles and records carry the revision: who changes a formula raises MODEL_REVISION and pins anew."""
    assert MODEL_REVISION == 1
    np.testing.assert_allclose(simulate(operations, ROWS, 2, chip).joules, PINNED, rtol=1e-9)

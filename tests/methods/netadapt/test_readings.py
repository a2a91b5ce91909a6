"""A table from readings of single operations, and what it says against the whole network."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.netadapt.readings import read_entries, table_from_platform
from methods.netadapt.table import Floats, LookupTable
from shared import platforms
from shared.networks import Operation, Structure, build, structure
from shared.platforms.kernels import expand

NETWORKS = {
    "mobilenet": {"width_multiplier": 0.25, "input_size": 32},
    "alexnet": {"width_multiplier": 0.25},  # flattens a map
    "erfnet": {"width_multiplier": 0.5, "input_size": 64},  # channels that never change, sums, concatenations
}
BATCHES = {"mobilenet": 64, "alexnet": 4, "erfnet": 1}


@pytest.fixture(scope="module")
def structures() -> dict[str, Structure]:
    with torch.device("meta"):
        return {name: structure(build(name, **arguments)) for name, arguments in NETWORKS.items()}


def random_positions(table: Structure, count: int, seed: int) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    return table.positions(draw.integers(1, np.array(table.upper_bounds) + 1, size=(count, len(table.units))))


def of_readings(anatomy: Structure, readings: Callable[[Operation, Floats], Floats], points: int) -> LookupTable:
    return LookupTable(read_entries(anatomy, readings, points), anatomy.position_bounds, "test")


@given(name=st.sampled_from(sorted(NETWORKS)), points=st.integers(2, 9), seed=st.integers(0, 1000))
def test_a_bilinear_reading_is_met_at_any_widths(structures: dict, name: str, points: int, seed: int) -> None:
    """Oracle: multiply-adds, which the structure sums over its own positions; parameters have one-sided terms too."""
    anatomy = structures[name]
    rows = random_positions(anatomy, 20, seed)
    for count in ("macs", "parameters"):
        table = of_readings(anatomy, lambda op, widths, count=count: getattr(op, count)(widths), points)  # type: ignore[misc]
        expected = getattr(anatomy, count)(rows[:, 1:-1]).double()
        torch.testing.assert_close(table(rows), expected, rtol=1e-9, atol=0)


def test_equal_operations_are_read_once_and_diagonals_only_on_the_diagonal(structures: dict) -> None:
    anatomy, asked = structures["mobilenet"], []

    def readings(operation: Operation, widths: Floats) -> Floats:
        assert (operation.inputs.position, operation.outputs.position) == (0, 1) and operation.name == ""
        if operation.kind in ("depthwise", "batch_norm", "relu", "avg_pool"):
            assert len(widths) <= 9 and np.array_equal(widths[:, 0], widths[:, 1])
        assert widths.min() >= 1 and (widths <= [operation.inputs.count, operation.outputs.count]).all()
        asked.append(operation)
        return np.ones(len(widths))

    table = of_readings(anatomy, readings, 9)
    assert len(asked) == len(set(asked)) < len(anatomy.operations)
    names = [name for entry in table.entries for name in entry.operations]
    assert sorted(names) == sorted(operation.name for operation in anatomy.operations)
    assert len({entry.positions for entry in table.entries}) == len(table.entries)
    whole = table(anatomy.positions(anatomy.upper_bounds))
    assert float(whole) == pytest.approx(len(anatomy.operations))  # each counts, read or reused


def test_dilations_which_the_simulator_does_not_price_are_read_once(structures: dict) -> None:
    """ERFNet's readings are as many as those of the same network undilated."""
    dilated = structures["erfnet"]
    undilated = replace(
        dilated, operations=tuple(replace(op, padding=(0, 0), dilation=(1, 1)) for op in dilated.operations)
    )
    assert len({op.dilation for op in dilated.operations}) > 1

    def asked(anatomy: Structure) -> list[bytes]:
        seen: list[bytes] = []

        def readings(operation: Operation, widths: Floats) -> Floats:
            seen.append(widths.tobytes())
            return np.ones(len(widths))

        read_entries(anatomy, readings, 2)
        return seen

    assert asked(dilated) == asked(undilated)


@pytest.mark.parametrize("device", platforms.names())
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_platform_fills_a_table_and_counts_its_readings(structures: dict, name: str, device: str) -> None:
    platform, anatomy = platforms.get(device), structures[name]
    table = table_from_platform(platform, anatomy, BATCHES[name])
    assert (table.source, table.platform, table.batch, table.unit) == ("simulated", device, BATCHES[name], "J")
    grid_points = sum(entry.energy.size * len(entry.operations) for entry in table.entries)
    assert 0 < platform.queries < grid_points
    # on its grid the table is the sum of the single readings, noise aside: here the dense network and all ones
    rows = anatomy.positions([anatomy.upper_bounds, [1] * len(anatomy.units)])
    alone = [platform.true_joules([operation], rows.numpy(), BATCHES[name]) for operation in anatomy.operations]
    np.testing.assert_allclose(table(rows).numpy(), sum(alone), rtol=3 * platform.parameters.reading_noise)


def test_the_batch_is_the_platform_s_own_unless_told(structures: dict) -> None:
    anatomy, platform = structures["mobilenet"], platforms.get("tx2")
    expected = platform.inference_batch(anatomy.operations, anatomy.position_bounds)
    assert table_from_platform(platform, anatomy, points=2).batch == expected


@pytest.mark.parametrize("device", platforms.names())
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_why_the_sum_of_readings_is_not_the_whole_network(structures: dict, name: str, device: str) -> None:
    """All that it is too high by is idle power: of launches that hide behind other operations, and of waiting for the
    end once per operation. The simulator fuses nothing, so what kernels do themselves adds up; on a runtime that fuses,
    the sum would be off by that traffic too.
    """
    platform, anatomy, batch = platforms.get(device), structures[name], BATCHES[name]
    rows = np.vstack([anatomy.position_bounds, random_positions(anatomy, 30, 0).numpy()])
    whole = platform.simulate(anatomy.operations, rows, batch)
    alone = [platform.simulate([operation], rows, batch) for operation in anatomy.operations]
    for cause in ("busy", "arithmetic", "l2", "dram"):
        np.testing.assert_allclose(
            sum(one.joules_by_cause[cause] for one in alone), whole.joules_by_cause[cause], rtol=1e-9
        )
    assert sum((expand((operation,)) for operation in anatomy.operations), ()) == expand(anatomy.operations)

    chip, count = platform.parameters, len(anatomy.operations)
    surplus = sum(one.joules for one in alone) - whole.joules
    idle_s = sum(one.seconds for one in alone) - whole.seconds
    np.testing.assert_allclose(surplus, chip.idle_w * idle_s, rtol=1e-9)
    assert (surplus >= chip.idle_w * chip.sync_s * (count - 1) / batch * (1 - 1e-9)).all()

    # without launches and waits there is nothing to hide, and the sum is the whole
    platform.parameters = replace(chip, host_call_s=0.0, sync_s=0.0)
    without = sum(platform.true_joules([operation], rows, batch) for operation in anatomy.operations)
    np.testing.assert_allclose(without, platform.true_joules(anatomy.operations, rows, batch), rtol=1e-9)
    # and waits alone are worth exactly one for each operation but the last
    platform.parameters = replace(chip, host_call_s=0.0)
    waited = sum(platform.true_joules([operation], rows, batch) for operation in anatomy.operations)
    expected = chip.idle_w * chip.sync_s * (count - 1) / batch
    np.testing.assert_allclose(waited - platform.true_joules(anatomy.operations, rows, batch), expected, rtol=1e-6)

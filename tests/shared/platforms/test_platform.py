"""The shipped platforms: published figures, readings and their noise, the inference batch, data files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from shared import networks, platforms
from shared.errors import BadInput
from shared.networks import Channels, Operation, Structure
from shared.platforms import SimulatedPlatform, parameters

PUBLISHED_DENSE_JOULES = [  # Yang, Zhu, Liu, CVPR 2019, section 4.2: batch 1
    ("1080ti", "mobilenet", 1001, 0.2877),
    ("1080ti", "alexnet", 1000, 0.2339),
    ("1080ti", "erfnet", 20, 1.9708),
    ("tx2", "mobilenet", 1001, 0.0487),
    ("tx2", "alexnet", 1000, 0.0498),
    ("tx2", "erfnet", 20, 1.3213),
]


@cache
def structure(name: str, classes: int) -> Structure:
    with torch.device("meta"):
        return networks.structure(networks.build(name, num_classes=classes))


@cache
def small_mobilenet() -> Structure:
    with torch.device("meta"):
        options = {"num_classes": 10, "in_channels": 1, "width_multiplier": 0.5, "input_size": 28}
        return networks.structure(networks.build("mobilenet", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("device", "network", "classes", "joules"), PUBLISHED_DENSE_JOULES)
def test_dense_joules_are_within_one_percent_of_the_published(
    device: str, network: str, classes: int, joules: float
) -> None:
    table = structure(network, classes)
    found = platforms.get(device).true_joules(table.operations, [table.position_bounds], 1)[0]
    assert found == pytest.approx(joules, rel=0.01)


def test_an_operation_costs_the_1080_ti_no_less_than_the_tx2() -> None:
    assert platforms.get("1080ti").parameters.flop_j >= platforms.get("tx2").parameters.flop_j


@pytest.mark.parametrize("device", ["1080ti", "tx2"])
def test_joules_rise_with_64_more_channels_but_not_with_every_single_one(device: str) -> None:
    """Whole tiles are what counts: a wider layer that fills its tiles better can cost less."""
    table, platform = structure("mobilenet", 1001), platforms.get(device)
    bounds = np.array(table.position_bounds)
    falls = []
    for unit in range(3, len(bounds) - 1):  # the first units have fewer than 128 channels
        rows = np.tile(bounds, (bounds[unit], 1))
        rows[:, unit] = np.arange(1, bounds[unit] + 1)
        joules = platform.true_joules(table.operations, rows, 1)
        assert (np.diff(joules[63::64]) > 0).all()
        falls.append((np.diff(joules) < 0).any())
    assert sum(falls) > len(falls) / 2


@pytest.mark.parametrize("batch", [1, 32])
def test_any_container_of_widths_and_any_company_give_the_same_joules(batch: int) -> None:
    table, platform = small_mobilenet(), platforms.get("tx2")
    widths = np.random.default_rng(0).integers(1, np.array(table.upper_bounds) + 1, size=(5, len(table.units)))
    positions = table.positions(widths)
    together = platform.true_joules(table.operations, positions, batch)
    for row, joules in zip(positions.numpy(), together, strict=True):
        assert platform.true_joules(list(table.operations), [row.tolist()], batch)[0] == joules


def many_rows(table: Structure, count: int) -> np.ndarray:
    widths = np.random.default_rng(1).integers(1, np.array(table.upper_bounds) + 1, size=(count, len(table.units)))
    return table.positions(widths).numpy()


def test_readings_repeat_within_a_trial_and_differ_between_trials() -> None:
    table = small_mobilenet()
    rows = many_rows(table, 50)
    first, again = platforms.get("tx2"), platforms.get("tx2")
    reading = first.measure(table.operations, rows, 4)
    assert first.source == "simulated"
    np.testing.assert_array_equal(again.measure(table.operations, rows[::-1], 4)[::-1], reading)
    others = [
        again.measure(table.operations, rows, 4, trial=1),
        platforms.get("1080ti").measure(table.operations, rows, 4),
        again.measure(table.operations, rows, 8),
        again.measure(table.operations[:-1], rows, 4),
    ]
    truths = [
        first.true_joules(table.operations, rows, 4),
        platforms.get("1080ti").true_joules(table.operations, rows, 4),
        first.true_joules(table.operations, rows, 8),
        first.true_joules(table.operations[:-1], rows, 4),
    ]
    noise = reading / truths[0]
    for joules, truth in zip(others, [truths[0], *truths[1:]], strict=True):
        assert (joules / truth != noise).all()


@pytest.mark.parametrize("device", ["1080ti", "tx2"])
def test_noise_is_normal_with_the_sigma_of_the_data_file(device: str) -> None:
    table, platform = small_mobilenet(), platforms.get(device)
    rows = many_rows(table, 2000)
    truth = platform.true_joules(table.operations, rows, 64)
    errors = np.array([platform.measure(table.operations, rows, 64, trial=t) / truth - 1 for t in range(4)])
    sigma = platform.parameters.reading_noise
    assert 0.005 < sigma < 0.05
    assert scipy.stats.kstest(errors.ravel() / sigma, "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(errors) - np.eye(4)).max() < 4 / np.sqrt(len(rows))  # trials are independent


def test_readings_are_counted_and_the_truth_is_not() -> None:
    table, platform = small_mobilenet(), platforms.get("1080ti")
    rows = many_rows(table, 7)
    platform.true_joules(table.operations, rows, 2)
    assert platform.queries == 0
    platform.measure(table.operations, rows, 2)
    platform.measure(table.operations, rows[:1], 2, trial=3)
    assert platform.queries == 8
    assert platforms.get("1080ti").queries == 0


def test_amounts_are_in_the_platform_s_unit() -> None:
    """Seconds with the same relative noise as joules, and the same batch to infer at."""
    table, rows = small_mobilenet(), many_rows(small_mobilenet(), 7)
    joules, seconds = platforms.get("tx2"), platforms.get("tx2", "s")
    assert (joules.unit, seconds.unit) == ("J", "s")
    truth = joules.simulate(table.operations, rows, 2)
    np.testing.assert_array_equal(joules.true(table.operations, rows, 2), truth.joules)
    np.testing.assert_array_equal(seconds.true(table.operations, rows, 2), truth.seconds)
    read = seconds.measure(table.operations, rows, 2) / truth.seconds - 1
    np.testing.assert_allclose(read, joules.measure(table.operations, rows, 2) / truth.joules - 1, rtol=1e-9)
    assert (np.abs(read) > 0).all()
    sizes = [one.inference_batch(table.operations, table.position_bounds) for one in (joules, seconds)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("device", ["1080ti", "tx2"])
def test_inference_batch_is_the_first_after_which_the_share_stays(device: str) -> None:
    table, platform = small_mobilenet(), platforms.get(device)
    chosen = platform.inference_batch(table.operations, table.position_bounds)

    def share(batch: int) -> float:
        dense, ones = table.positions(table.upper_bounds), table.positions((1,) * len(table.units))
        joules = [platform.true_joules(table.operations, row[None].numpy(), batch)[0] for row in (ones, dense)]
        return joules[0] / joules[1]

    assert chosen & (chosen - 1) == 0
    assert share(chosen) <= 0.9 * share(chosen // 2)
    for later in (chosen, 2 * chosen, 4 * chosen, 8 * chosen):
        assert share(2 * later) > 0.9 * share(later)
    assert share(chosen) < 0.05  # the launches of a network of ones no longer hide what the dense one does


def test_a_network_that_fills_the_chip_infers_one_image_at_a_time() -> None:
    size = (512, 512)
    conv = Operation("conv", "conv", Channels(0, 64), Channels(1, 64), size, size, (3, 3), (1, 1))
    assert platforms.get("tx2").inference_batch((conv,), (64, 64)) == 1


@pytest.mark.parametrize("host_call_s", [0.02, 1000.0])  # the share still falls at the limit; it hasn't begun to
def test_a_network_that_stays_launch_bound_is_refused(host_call_s: float, tmp_path: Path) -> None:
    text = (parameters.FOLDER / "tx2.toml").read_text()
    host = parameters.load(parameters.FOLDER / "tx2.toml")[0].host_call_s
    path = tmp_path / "asleep.toml"
    path.write_text(text.replace(f"value = {host:.5g}", f"value = {host_call_s}"))
    table, asleep = small_mobilenet(), SimulatedPlatform(path)
    assert (asleep.name, asleep.parameters.host_call_s) == ("asleep", host_call_s)
    with pytest.raises(BadInput, match="stop counting by batch 65536"):
        asleep.inference_batch(table.operations, table.position_bounds)


@pytest.mark.parametrize(
    ("positions", "batch", "message"),
    [
        ([1, 2, 10], 1, r"shape \(n, p\), got \(3,\)"),
        ([[1, 0, 10]], 1, "1 or more, got 0"),
        ([[1, 2.5, 10]], 1, "whole numbers of channels, 1 or more, got 2.5"),
        ([[1, float("nan"), 10]], 1, "got nan"),
        ([[1, 2, 10]], 0, "batch of 1 or more images, got 0"),
    ],
)
def test_bad_requests_are_named(positions: list, batch: int, message: str) -> None:
    operation = Operation("fc", "linear", Channels(1, 8), Channels(2, 10), (1, 1), (1, 1))
    platform = platforms.get("tx2")
    for ask in (platform.true_joules, platform.measure):
        with pytest.raises(BadInput, match=message):
            ask((operation,), positions, batch)  # type: ignore[operator]
    assert platform.queries == 0


def test_platforms_are_found_by_name() -> None:
    assert platforms.names() == ("1080ti", "tx2")
    for name in platforms.names():
        platform = platforms.get(name)
        assert (platform.name, platform.source) == (name, "simulated")
        kinds = {entry.kind for entry in platform.entries.values()}
        assert kinds == {"specification", "fitted", "assumed"}
        assert all(entry.unit and entry.source for entry in platform.entries.values())
    with pytest.raises(BadInput, match="'k80'; try 1080ti or tx2"):
        platforms.get("k80")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[idle_w]", "[idle_watts]"), r"idle_w', 'idle_watts"),
        (('unit = "Hz"', 'units = "Hz"'), "platform file"),
        (('kind = "fitted"', 'kind = "guessed"'), "platform file"),
        (("[sm_count]", "[sm_count"), "platform file"),
        (("value = 128", "value = -128"), "lanes_per_sm within 0..inf"),
        (("value = 0.4\n", "value = 1.4\n"), "busy_floor within 0..1"),
        (("value = 0.015", "value = 0.15"), "reading_noise within 0..0.1"),
    ],
)
def test_damaged_platform_files_are_named(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    text = (parameters.FOLDER / "tx2.toml").read_text()
    assert change[0] in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(*change))
    with pytest.raises(BadInput, match=message):
        parameters.load(path)


def test_calibration_version_follows_values_not_words(tmp_path: Path) -> None:
    text = (parameters.FOLDER / "tx2.toml").read_text()
    path = tmp_path / "tx2.toml"
    path.write_text("# a remark\n" + text.replace("data sheet", "leaflet"))
    assert SimulatedPlatform(path).calibration == platforms.get("tx2").calibration
    path.write_text(text.replace("value = 0.015", "value = 0.016"))
    assert SimulatedPlatform(path).calibration != platforms.get("tx2").calibration

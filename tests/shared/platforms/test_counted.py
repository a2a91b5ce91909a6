"""Multiply-adds and bytes as platforms: counts against torch's own, and a model that explains them exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from shared import energy, networks, platforms
from shared.errors import BadInput
from shared.platforms import ExactPlatform, MacsPlatform, SizePlatform, Subject

OPTIONS = {"num_classes": 10, "in_channels": 1, "width_multiplier": 0.25, "input_size": 28}


def build(widths: tuple[int, ...] | None = None) -> torch.nn.Module:
    return networks.build("mobilenet", widths=widths, **OPTIONS)  # type: ignore[arg-type]


SUBJECT = Subject(networks.structure(build()), build)


def counted(widths: tuple[int, ...]) -> float:
    network = build(widths).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 28, 28))
    return counter.get_total_flops() / 2  # a multiply-add is two operations to it


def test_readings_are_what_torch_counts() -> None:
    platform, dense = MacsPlatform(), SUBJECT.structure.upper_bounds
    rows = [dense, tuple(max(1, width // 2) for width in dense), (1,) * len(dense)]
    readings = platform.read_beside(SUBJECT, rows, 1, reference=dense, standard=7.0)
    assert [reading.amount for reading in readings] == [counted(row) for row in rows]
    assert all(reading.interval == (reading.amount,) * 2 and reading.reference is None for reading in readings)


def test_the_energy_model_explains_them_exactly_and_needs_no_correction() -> None:
    platform = MacsPlatform()
    profile = platform.profile(SUBJECT, samples=300, test_samples=60)
    assert profile.unit == "MAC" and profile.dense_reading == counted(SUBJECT.structure.upper_bounds)
    fit = energy.fit(profile, SUBJECT.structure, "bilinear+linear")
    assert fit.relative_error < 1e-9 and fit.model.unit == "MAC"
    rows = energy.rows_near(SUBJECT.structure, fit.model, 0.4 * profile.dense_reading, 60)
    near = platform.local_profile(SUBJECT, rows, np.ones(60), batch=1, standard=profile.dense_reading)
    local = energy.local_fit(fit.model, near, SUBJECT.structure, corrected=True)
    assert local.factor == pytest.approx(1.0, abs=1e-9) and local.error < 1e-9
    # products of neighbours alone have no term for depthwise layers and for the fixed sides of the first and last one
    assert energy.fit(profile, SUBJECT.structure, "bilinear").relative_error > 0.005


def test_they_are_chosen_by_the_metric_whatever_the_device() -> None:
    assert isinstance(platforms.choose("tx2", "macs"), MacsPlatform)
    with pytest.raises(BadInput, match="expected --meter auto for --metric macs, which is computed, got 'nvml'"):
        platforms.choose("1080ti", "macs", "nvml")
    with pytest.raises(BadInput, match="expected --metric energy or latency or macs or size, got 'watts'"):
        platforms.choose("1080ti", "watts")


@pytest.mark.parametrize("bits", [32, 8])
def test_sizes_are_bytes_of_all_trainable_parameters(bits: int) -> None:
    platform, dense = SizePlatform(bits), SUBJECT.structure.upper_bounds
    half = tuple(max(1, width // 2) for width in dense)
    readings = platform.read_beside(SUBJECT, [dense, half], 1, reference=dense, standard=7.0)
    counts = [sum(parameter.numel() for parameter in build(row).parameters()) for row in (dense, half)]
    assert [reading.amount for reading in readings] == [count * bits / 8 for count in counts]
    profile = platform.profile(SUBJECT, samples=300, test_samples=60)
    assert profile.unit == "B" and energy.fit(profile, SUBJECT.structure, "bilinear+linear").relative_error < 1e-9


def test_sizes_are_chosen_by_the_metric_with_their_bits() -> None:
    chosen = platforms.choose("tx2", "size", bits=8)
    assert isinstance(chosen, SizePlatform) and (chosen.bits, chosen.name) == (8, "any-8bit")
    assert platforms.choose("tx2", "size").name == "any"
    with pytest.raises(BadInput, match="expected --bits from 1 to 64 for a size, got 0"):
        platforms.choose("tx2", "size", bits=0)


@pytest.mark.parametrize(
    ("device", "metric"),
    [
        ("1080ti", "energy"),
        ("tx2", "energy"),
        ("tx2", "latency"),
        ("eyeriss", "energy"),
        ("tx2", "macs"),
        ("tx2", "size"),
    ],
)
def test_the_parts_of_an_amount_add_up_to_it(device: str, metric: str) -> None:
    platform = platforms.choose(device, metric, "sim")
    assert isinstance(platform, ExactPlatform)
    dense = SUBJECT.structure.upper_bounds
    rows = np.array([dense, [max(1, width // 2) for width in dense]])
    parts = platform.breakdown(SUBJECT, rows, 64)
    assert parts.amounts.shape == (2, len(parts.layers), len(parts.causes)) and (parts.amounts >= 0).all()
    assert parts.amounts.sum((1, 2)) == pytest.approx(platform.amounts(SUBJECT, rows, 64), rel=1e-12)

"""Multiply-adds as a platform: counts against torch's own counter, and a model that explains them exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from shared import energy, networks, platforms
from shared.errors import BadInput
from shared.platforms import CountedPlatform, Subject

OPTIONS = {"num_classes": 10, "in_channels": 1, "width_multiplier": 0.25, "input_size": 28}


def build(widths: tuple[int, ...] | None = None) -> torch.nn.Module:
    return networks.build("mobilenet", widths=widths, **OPTIONS)  # type: ignore[arg-type]


SUBJECT = Subject(networks.structure(build()), build)


def counted(widths: tuple[int, ...]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(widths).eval()(torch.zeros(1, 1, 28, 28))
    return counter.get_total_flops() / 2  # a multiply-add is two operations to it


def test_readings_are_what_torch_counts() -> None:
    platform, dense = CountedPlatform(), SUBJECT.structure.upper_bounds
    rows = [dense, tuple(max(1, width // 2) for width in dense), (1,) * len(dense)]
    readings = platform.read_beside(SUBJECT, rows, 1, reference=dense, standard=7.0)
    assert [reading.amount for reading in readings] == [counted(row) for row in rows]
    assert all(reading.interval == (reading.amount,) * 2 and reading.reference is None for reading in readings)


def test_the_energy_model_explains_them_exactly_and_needs_no_correction() -> None:
    platform = CountedPlatform()
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
    assert isinstance(platforms.choose("tx2", "macs"), CountedPlatform)
    with pytest.raises(BadInput, match="expected --meter auto for --metric macs, which are counted, got 'nvml'"):
        platforms.choose("1080ti", "macs", "nvml")
    with pytest.raises(BadInput, match="expected --metric energy or latency or macs, got 'watts'"):
        platforms.choose("1080ti", "watts")

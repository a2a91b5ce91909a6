"""Widths that additions tie, through platform and energy models: ResNet-18 on the simulated chips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shared import networks, platforms
from shared.energy import BilinearModel
from shared.energy.terms import KINDS, terms


@pytest.mark.parametrize("device", ["1080ti", "tx2"])
def test_both_energy_models_explain_resnet18_and_its_true_edges_do_it_better(device: str) -> None:
    with torch.device("meta"):
        table = networks.structure(networks.build("resnet18"))
    widths = np.random.default_rng(0).integers(1, np.array(table.upper_bounds) + 1, size=(1_000, len(table.units)))
    positions = table.positions(widths)
    joules = torch.as_tensor(platforms.get(device).true_joules(table.operations, positions.numpy(), 1))
    assert bool((joules > 0).all())
    errors = []
    for kind in KINDS:
        model = BilinearModel.fit(
            positions[:700], joules[:700], upper_bounds=table.position_bounds, terms=terms(table, kind)
        )
        errors.append(float(((model(positions[700:]) - joules[700:]).abs() / joules[700:]).median()))
    assert errors[1] < errors[0] < 0.05

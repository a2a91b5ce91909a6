"""What zeros save: the platform's own formula, dense and pruned networks, and codes that don't pay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shared import networks
from shared.energy.zeros import LayerZeros
from shared.networks import active_widths, compact, structure, zero_channels
from shared.networks.masks import mask_inputs, masks_of
from shared.platforms import EyerissPlatform, Subject, get
from shared.platforms.eyeriss.chip import Density

OPTIONS: dict[str, Any] = {"num_classes": 10, "in_channels": 1, "width_multiplier": 0.25, "input_size": 28}


def subject(name: str = "mobilenet") -> tuple[nn.Module, Subject]:
    network = networks.build(name, **OPTIONS)
    return network, Subject(structure(network), lambda widths: networks.build(name, widths=widths, **OPTIONS))


def thinned(network: nn.Module, share: float, seed: int = 0) -> None:
    """Zero a share of the weights of every layer, but none of its first output: so all channels are read."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                mask = torch.rand(module.weight.shape, generator=draw) < share
                mask[0] = False
                module.weight[mask] = 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("bits", [16, 8])
def test_savings_are_the_platforms_joules_at_these_densities(share: float, bits: int) -> None:
    network, of = subject()
    thinned(network, share)
    platform = EyerissPlatform(bits)
    savings = platform.zeros(of, 16)
    modules = dict(network.named_modules())
    density = {
        operation.name: Density(weights=float((modules[operation.module].weight != 0).float().mean()))
        for operation in of.structure.operations
        if operation.kind in ("conv", "depthwise", "linear") and operation.module is not None
    }
    dense = np.array([of.structure.upper_bounds])
    full, sparse = (one.amounts(of, dense, 16)[0] for one in (platform, EyerissPlatform(bits, density)))
    assert savings.of(network, of.structure) == pytest.approx(float(full - sparse), rel=1e-5)


def test_where_only_channels_went_nothing_more_is_saved() -> None:
    network, of = subject()
    savings = EyerissPlatform().zeros(of, 16)
    assert savings.of(network, of.structure) == 0
    dead = torch.zeros(len(of.structure.units), max(of.structure.upper_bounds), dtype=torch.bool)
    dead[:, 1:4] = True
    zero_channels(network, of.structure, dead)
    assert savings.of(network, of.structure) == 0
    assert active_widths(network) == tuple(bound - 3 for bound in of.structure.upper_bounds)


def test_a_cut_network_saves_what_the_full_one_does() -> None:
    network, of = subject()
    thinned(network, 0.5)
    dead = torch.zeros(len(of.structure.units), max(of.structure.upper_bounds), dtype=torch.bool)
    dead[2, 4:9] = True
    zero_channels(network, of.structure, dead)
    small = compact(network)
    savings = EyerissPlatform().zeros(of, 16)
    assert savings.of(small, structure(small)) == pytest.approx(savings.of(network, of.structure), rel=1e-12)
    assert savings.of(small, structure(small)) > 0


@given(st.integers(1, 1000), st.floats(0, 1))
def test_a_tensor_is_stored_in_whichever_way_is_smaller(entries: int, share: float) -> None:
    _, of = subject()
    plain: dict[str, Any] = {"product": {"w": 0.0}, "fetch": {"w": 1.0}, "shown": {"w": 1}, "input_fetch": {"w": 0.0}}
    savings = replace(EyerissPlatform().zeros(of, 1), **plain)
    kept = round(share * entries)
    stored = entries - float(savings.saved("w", LayerZeros(torch.tensor(kept), entries, 1)))
    assert stored == pytest.approx(min(entries, 4 / 3 * kept))


@torch.no_grad()
def test_the_most_is_saved_where_one_weight_reads_each_channel() -> None:
    network, of = subject()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            pointwise = module.weight.shape[1] > 1  # the first layer and the depthwise ones read one channel each
            module.weight[1 if pointwise else 0 :] = 0
    assert active_widths(network) == of.structure.upper_bounds
    savings = EyerissPlatform().zeros(of, 16)
    assert savings.most(of.structure) == pytest.approx(savings.of(network, of.structure), rel=1e-12)


def test_layers_are_found_by_the_names_of_their_weights() -> None:
    network, of = subject()
    savings = EyerissPlatform().zeros(of, 16)
    found = savings.found(network, of.structure)
    assert {name: zeros.entries for name, zeros in found.items()} == dict(savings.entries)


def test_masks_of_channels_that_are_gone_are_not_counted() -> None:
    """The table was made before there were masks, as that of a method's task is."""
    network, of = subject()
    sizes = {str(o.module): (o.inputs.count, *o.input_size) for o in of.structure.operations if o.kind == "conv"}
    draw = torch.Generator().manual_seed(5)
    mask_inputs(network, {name: (torch.rand(size, generator=draw) > 0.4).float() for name, size in sizes.items()})
    dead = torch.zeros(len(of.structure.units), max(of.structure.upper_bounds), dtype=torch.bool)
    dead[2, ::2] = dead[5, :7] = True
    zero_channels(network, of.structure, dead)
    savings, small = EyerissPlatform().zeros(of, 16), compact(network)
    masked = {name: zeros.masked for name, zeros in savings.found(network, of.structure).items()}
    assert masked == {name: zeros.masked for name, zeros in savings.found(small, structure(small)).items()}
    left = {f"{name}.weight": int((mask == 0).sum()) for name, mask in masks_of(small.state_dict()).items()}
    assert masked == dict.fromkeys(masked, 0) | left


def test_a_network_without_any_channel_in_a_unit_saves_a_finite_amount() -> None:
    network, of = subject()
    dead = torch.zeros(len(of.structure.units), max(of.structure.upper_bounds), dtype=torch.bool)
    dead[2] = True
    zero_channels(network, of.structure, dead)
    assert EyerissPlatform().zeros(of, 16).of(network, of.structure) == 0


def test_other_platforms_save_nothing_by_zeros() -> None:
    _, of = subject()
    assert get("1080ti").zeros(of, 64) is None


@pytest.mark.parametrize("hidden", [0.2, 0.6])
def test_masked_inputs_save_what_the_platform_saves_at_these_densities(hidden: float) -> None:
    network, of = subject()
    thinned(network, 0.5)
    draw = torch.Generator().manual_seed(3)
    sizes = {operation.module: operation for operation in of.structure.operations if operation.kind == "conv"}
    masks = {
        str(name): (torch.rand(operation.inputs.count, *operation.input_size, generator=draw) > hidden).float()
        for name, operation in sizes.items()
    }
    mask_inputs(network, masks)
    modules = dict(network.named_modules())
    density = {}
    for operation in of.structure.operations:
        if operation.kind in ("conv", "depthwise", "linear"):
            nonzero = float((modules[str(operation.module)].weight != 0).float().mean())
            mask = masks.get(str(operation.module))
            height, width = (size + 2 * pad for size, pad in zip(operation.input_size, operation.padding, strict=True))
            shown = (
                1 - float((mask == 0).sum()) / (operation.inputs.count * height * width) if mask is not None else 1.0
            )
            density[operation.name] = Density(weights=nonzero, inputs=shown)
    platform, dense = EyerissPlatform(), np.array([of.structure.upper_bounds])
    full, sparse = (one.amounts(of, dense, 16)[0] for one in (platform, EyerissPlatform(density=density)))
    table = structure(network)
    assert table.fingerprint == of.structure.fingerprint
    assert platform.zeros(of, 16).of(network, table) == pytest.approx(float(full - sparse), rel=1e-5)
    # a mask is cut with its channels, and saves the same beside them
    dead = torch.zeros(len(table.units), max(table.upper_bounds), dtype=torch.bool)
    dead[1, 3:7] = True
    zero_channels(network, table, dead)
    small = compact(network, table)
    assert small.get_submodule("pw2").input_mask.shape == (12, 14, 14)
    saved = platform.zeros(of, 16).of(small, structure(small))
    assert saved == pytest.approx(platform.zeros(of, 16).of(network, table), rel=1e-12)
    images = torch.rand(2, 1, 28, 28, generator=draw)
    torch.testing.assert_close(small.eval()(images), network.eval()(images), rtol=1e-4, atol=1e-5)

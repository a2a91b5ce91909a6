"""The zoo and what `build` accepts, refuses and records."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shared.errors import BadInput
from shared.networks import build, names, structure
from shared.networks.zoo.mobilenet import SMALLEST_MAP, strides_for


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_the_zoo_is_found():
    assert names() == ("alexnet", "erfnet", "mobilenet", "resnet18")


def test_listing_networks_needs_no_torch():
    code = "import sys, shared.networks as n; n.names(); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lazy_names_are_the_real_ones():
    import shared.networks as package
    from shared.networks import trace

    assert package.structure is trace.structure
    assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'layers'"):
        _ = package.layers


@pytest.mark.parametrize("name", names())
def test_the_default_arguments_are_the_papers(name):
    with torch.device("meta"):
        model = build(name)
    assert model.input_shape == {"erfnet": (3, 512, 1024)}.get(name, (3, 224, 224))
    assert structure(model).outputs == {"mobilenet": 1001, "erfnet": 20}.get(name, 1000)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "mobilenet", "width_multiplier": 0.25, "input_size": 28, "in_channels": 1, "num_classes": 10},
        {"name": "mobilenet", "width_multiplier": 0.25, "widths": np.full(14, 5)},
        {"name": "alexnet", "width_multiplier": 0.125, "widths": (1, 2, 3, 4, 5, 6, 7), "input_size": (64, 96)},
        {"name": "erfnet", "width_multiplier": 0.5, "widths": list(range(1, 9)) * 6 + [1, 2, 3], "input_size": 64},
        {"name": "resnet18", "width_multiplier": 0.5, "widths": tuple(range(1, 13)), "input_size": (40, 64)},
    ],
)
def test_config_rebuilds_the_same_network(arguments):
    model = build(**arguments)
    assert set(model.config) == {"name", "widths", "num_classes", "in_channels", "width_multiplier", "input_size"}
    again = build(**json.loads(json.dumps(model.config)))
    assert shapes(again) == shapes(model)
    assert again.config == model.config
    assert again.input_shape == model.input_shape
    if "widths" in arguments:
        assert structure(model).upper_bounds == tuple(arguments["widths"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "lenet"}, "got 'lenet'; try alexnet or erfnet or mobilenet or resnet18"),
        ({"name": "mobilenet", "widths": [1] * 13}, "expected 14 widths for mobilenet, got 13"),
        ({"name": "mobilenet", "widths": [33] + [1] * 13}, "from 1 to 32 as width 0 of mobilenet, got 33"),
        ({"name": "mobilenet", "widths": [1] * 13 + [0]}, "from 1 to 1024 as width 13 of mobilenet, got 0"),
        ({"name": "mobilenet", "widths": [1] * 13 + [2.5]}, "got 2.5"),
        ({"name": "mobilenet", "width_multiplier": 0.25, "widths": [9] * 14}, "from 1 to 8 as width 0"),
        ({"name": "mobilenet", "width_multiplier": 0}, "a width multiplier above 0, got 0"),
        ({"name": "mobilenet", "width_multiplier": float("nan")}, "a width multiplier"),
        ({"name": "mobilenet", "num_classes": 0}, "at least 1 of classes, got 0"),
        ({"name": "mobilenet", "in_channels": True}, "input channels, got True"),
        ({"name": "mobilenet", "input_size": (28, 28, 3)}, "an input size in pixels"),
        ({"name": "mobilenet", "input_size": 0}, "an input size in pixels, got 0"),
        ({"name": "alexnet", "input_size": 28}, "at least 63 pixels for alexnet"),
        ({"name": "erfnet", "input_size": 60}, "sides divisible by 8"),
        ({"name": "erfnet", "width_multiplier": 0.1}, "a larger width multiplier"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, words):
    with pytest.raises(BadInput) as caught:
        build(**arguments)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_torchvision_s_networks_are_theirs(name):
    theirs = getattr(torchvision.models, name)(num_classes=7).eval()
    ours = build(name, num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict())
    batch = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        assert torch.equal(ours(batch), theirs(batch))
    layers = [[type(module) for module in model.modules() if not list(module.children())] for model in (ours, theirs)]
    assert layers[0] == layers[1]
    theirs.input_shape = ours.input_shape
    assert structure(ours) == structure(theirs)


def test_erfnet_dilates_drops_out_and_keeps_its_size():
    model = build("erfnet", width_multiplier=0.25, num_classes=4, input_size=(16, 24))
    dilated = [module.dilation[0] for name, module in model.named_modules() if name.endswith("conv3x1_2")]
    assert dilated == [1] * 5 + [2, 4, 8, 16] * 2 + [1] * 4
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout2d)] == [0.03] * 5 + [0.3] * 8
    assert model(torch.zeros(2, 3, 16, 24)).shape == (2, 4, 16, 24)


def test_mobilenet_strides_are_imagenet_s_at_224():
    assert strides_for((224, 224)) == (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


@given(st.integers(1, 600), st.integers(1, 600))
def test_mobilenet_s_last_map_stays_large_enough(height, width):
    """The map is at least SMALLEST_MAP where the image is, and no further halving would have kept that."""
    chosen, side = strides_for((height, width)), min(height, width)
    halvings = sum(stride == 2 for stride in chosen)
    assert set(chosen) <= {1, 2}
    assert halvings <= 5
    last = -(-side // 2**halvings)
    assert last >= min(SMALLEST_MAP, side)
    assert halvings == 5 or -(-last // 2) < SMALLEST_MAP


def test_mobilenet_s_strides_are_those_of_the_rule():
    model = build("mobilenet", width_multiplier=0.25, in_channels=1, input_size=28)
    halved = [operation.name for operation in structure(model).operations if operation.stride == (2, 2)]
    assert halved == ["dw2", "dw4", "dw6"]
    assert structure(model).operations[-2].input_size == (4, 4)


def test_width_multipliers_round_to_eights():
    assert structure(build("mobilenet", width_multiplier=0.3)).upper_bounds[:3] == (8, 16, 40)
    for module in build("mobilenet", width_multiplier=0.25).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 0.1)

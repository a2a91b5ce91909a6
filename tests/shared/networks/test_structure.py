"""The derived table against the published ones, and its counts against the modules and torch's own counter."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

from shared.errors import BadInput
from shared.networks import Channels, Operation, build, names, structure
from shared.networks.operations import priced

ZOO = names()
TOYS = ("residual", "hourglass", "joined")
FOREIGN = "mobilenet_v2"  # torchvision's


def slices(unit):
    return {(part.tensor, part.dim, part.repeat, part.role) for part in unit.slices}


def norm(name):
    return {(f"{name}.{tensor}", 0, 1, "norm") for tensor in ("weight", "bias", "running_mean", "running_var")}


# --- published tables (Yang et al., CVPR 2019, and the networks' own papers)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("alexnet", (3, 64, 192, 384, 256, 256, 4096, 4096, 1000)),
        ("mobilenet", (3, 32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024, 1001)),
        ("erfnet", (3, *[64] * 15, *[128] * 24, *[64] * 6, *[16] * 6, 20)),
        # a stage is one residual group and the inner widths of its two blocks
        ("resnet18", (3, *[64] * 3, *[128] * 3, *[256] * 3, *[512] * 3, 1000)),
    ],
)
def test_position_bounds_are_the_published_widths(name, bounds):
    with torch.device("meta"):
        table = structure(build(name))
    assert table.position_bounds == bounds
    assert table.upper_bounds == bounds[1:-1]


def test_alexnet_units_own_what_the_paper_removes():
    with torch.device("meta"):
        units = structure(build("alexnet")).units
    assert slices(units[3]) == {
        ("features.8.weight", 0, 1, "producer"),
        ("features.8.bias", 0, 1, "bias"),
        ("features.10.weight", 1, 1, "consumer"),
    }
    # each channel of conv5 feeds the 36 columns of its 6 x 6 map, which live and die together
    assert slices(units[4]) == {
        ("features.10.weight", 0, 1, "producer"),
        ("features.10.bias", 0, 1, "bias"),
        ("classifier.1.weight", 1, 36, "consumer"),
    }
    assert [unit.index for unit in units] == list(range(7))


def test_mobilenet_units_carry_the_depthwise_layer_along():
    units = structure(build("mobilenet", width_multiplier=0.25)).units
    assert slices(units[2]) == (
        {("pw2.weight", 0, 1, "producer"), ("dw3.weight", 0, 1, "depthwise"), ("pw3.weight", 1, 1, "consumer")}
        | norm("pw2_norm")
        | norm("dw3_norm")
    )
    assert slices(units[13]) == (
        {("pw13.weight", 0, 1, "producer"), ("fc.weight", 1, 1, "consumer")} | norm("pw13_norm")
    )
    assert [unit.name for unit in units] == ["conv1", *(f"pw{pair}" for pair in range(1, 14))]


def test_erfnet_units_are_the_inner_widths_in_module_order():
    model = build("erfnet")
    inner = ("conv3x1_1", "conv1x3_1", "conv3x1_2")
    expected = [name for name, _ in model.named_modules() if name.endswith(inner)]
    units = structure(model).units
    assert [unit.name for unit in units] == expected
    block = "encoder.layers.1"
    assert slices(units[1]) == (
        {
            (f"{block}.conv1x3_1.weight", 0, 1, "producer"),
            (f"{block}.conv1x3_1.bias", 0, 1, "bias"),
            (f"{block}.conv3x1_2.weight", 1, 1, "consumer"),
        }
        | norm(f"{block}.bn1")
    )
    assert not any(part.role == "norm" for part in units[2].slices)


def test_resnet_s_stages_join_what_is_added_to_them():
    units = structure(build("resnet18", width_multiplier=0.125)).units
    assert slices(units[4]) == (
        {
            *(("layer2.0.conv2.weight", 0, 1, "producer"), ("layer2.0.downsample.0.weight", 0, 1, "producer")),
            *(("layer2.1.conv2.weight", 0, 1, "producer"), ("layer2.1.conv1.weight", 1, 1, "consumer")),
            *(("layer3.0.conv1.weight", 1, 1, "consumer"), ("layer3.0.downsample.0.weight", 1, 1, "consumer")),
        }
        | norm("layer2.0.bn2")
        | norm("layer2.0.downsample.1")
        | norm("layer2.1.bn2")
    )
    assert slices(units[5]) == (
        {("layer2.1.conv1.weight", 0, 1, "producer"), ("layer2.1.conv2.weight", 1, 1, "consumer")}
        | norm("layer2.1.bn1")
    )
    assert ("fc.weight", 1, 1, "consumer") in slices(units[10])
    own = [(part.tensor, part.dim) for unit in units for part in unit.slices]
    assert len(set(own)) == len(own)  # no slice belongs to two units


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [("mobilenet", 569e6, 4.2e6), ("resnet18", 1.814e9, 11.69e6), ("alexnet", 714e6, 61.1e6)],
)
def test_networks_cost_what_is_published(name, macs, parameters):
    """MobileNet by its paper, the others by torchvision's tables, rounded."""
    with torch.device("meta"):
        table = structure(build(name, num_classes=1000))
    assert table.macs(table.upper_bounds).item() == pytest.approx(macs, rel=1e-3)
    assert table.parameters(table.upper_bounds).item() == pytest.approx(parameters, rel=1e-2)


def test_energy_edges_follow_the_network():
    with torch.device("meta"):
        alexnet, erfnet, resnet18 = (structure(build(name)) for name in ("alexnet", "erfnet", "resnet18"))
    assert [edge[:2] for edge in alexnet.edges] == [(j, j + 1) for j in range(8)]
    assert alexnet.edges[0][2] == 55 * 55 * 11 * 11
    assert alexnet.edges[5][2] == 36
    # a residual block reads and writes its trunk, which never changes: no product across blocks
    inner = [edge[:2] for edge in erfnet.edges if edge[0] not in (0, None) or edge[1] not in (52, None)]
    assert inner == [edge for j in range(1, 52, 3) for edge in ((None, j), (j, j + 1), (j + 1, j + 2), (j + 2, None))]
    first = next(edge for edge in erfnet.edges if edge[:2] == (None, 1))
    assert first[2] == 64 * 3 * 128 * 256
    # trunk -> inner -> trunk, and where a stage begins from trunk to trunk beside it
    assert [edge[:2] for edge in resnet18.edges] == [
        *((0, 1), (1, 2), (2, 1), (1, 3), (3, 1)),
        *(pair for trunk in (1, 5, 8) for pair in _stage(trunk, 5 if trunk == 1 else trunk + 3)),
        (11, 13),
    ]


def _stage(before, trunk):
    """Edges of a stage of ResNet-18 whose trunk is position `trunk`, behind the stage with trunk `before`."""
    return (before, trunk - 1), (trunk - 1, trunk), (before, trunk), (trunk, trunk + 1), (trunk + 1, trunk)


# --- counts


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_counts_equal_those_of_the_built_module(name, data, small_network):
    dense = small_network(name)
    table = structure(dense)
    widths = data.draw(st.tuples(*(st.integers(1, bound) for bound in table.upper_bounds)))
    model = build(**{**dense.config, "widths": widths}).eval()

    assert table.parameters(widths).item() == sum(parameter.numel() for parameter in model.parameters())
    assert table.macs(widths).item() == counted_macs(model)
    assert structure(model).upper_bounds == widths  # also where a depthwise layer has one channel
    through_edges = sum(
        constant * (1 if i is None else table.positions(widths)[i]) * (1 if o is None else table.positions(widths)[o])
        for i, o, constant in table.edges
    )
    depthwise = [operation for operation in table.operations if operation.kind == "depthwise"]
    own_filters = sum(operation.macs(table.positions(widths)) for operation in depthwise)
    assert through_edges + own_filters == table.macs(widths)


@pytest.mark.parametrize("name", (*TOYS, FOREIGN))
def test_counts_equal_those_of_other_modules(name, small_network):
    model = small_network(name).eval()
    table = structure(model)
    assert table.parameters(table.upper_bounds).item() == sum(parameter.numel() for parameter in model.parameters())
    assert table.macs(table.upper_bounds).item() == counted_macs(model)


def counted_macs(model):
    """Multiply-adds by torch's flop counter, which knows nothing of ours."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *model.input_shape))
    return counter.get_total_flops() // 2


def test_widths_may_come_as_rows_of_any_kind(small_network):
    table = structure(small_network("mobilenet"))
    rows = np.random.default_rng(0).integers(1, np.array(table.upper_bounds) + 1, size=(2, 3, 14))
    for batch in (rows, torch.as_tensor(rows), rows.tolist()):
        positions, macs, parameters = table.positions(batch), table.macs(batch), table.parameters(batch)
        assert positions.dtype == torch.float64
        assert positions.shape == (2, 3, 16)
        assert macs.dtype == parameters.dtype == torch.int64
        for index in np.ndindex(2, 3):
            assert positions[index].tolist() == [1, *rows[index], 5]
            assert macs[index] == table.macs(tuple(rows[index]))
            assert parameters[index] == table.parameters(tuple(rows[index]))


def test_positions_are_differentiable():
    table = structure(build("mobilenet", width_multiplier=0.25))
    widths = torch.ones(14, dtype=torch.float64, requires_grad=True)
    (table.positions(widths) * torch.arange(16)).sum().backward()
    assert widths.grad.tolist() == list(range(1, 15))


def test_a_wrong_number_of_widths_is_an_error(small_network):
    with pytest.raises(ValueError, match="expected 14 widths"):
        structure(small_network("mobilenet")).positions([1] * 16)


# --- derivation


def test_an_addition_unites_its_operands(small_network):
    table = structure(small_network("residual"))
    assert table.upper_bounds == (8, 5, 7)
    assert {part.tensor for part in table.units[0].slices if part.role == "producer"} == {
        "stem.weight",
        "second.weight",
        "fourth.weight",
    }
    assert {part.tensor for part in table.units[0].slices if part.role == "consumer"} == {
        "first.weight",
        "third.weight",
        "head.weight",
    }
    assert table.units[0].name == "stem"


def test_torchvision_s_mobilenet_v2_falls_into_its_units(small_network):
    # an inverted residual expands the trunk sixfold into channels that are filtered one by one
    assert structure(small_network("mobilenet_v2")).upper_bounds[:5] == (16, 8, 48, 8, 48)


def test_a_kept_trunk_leaves_the_inner_widths(small_network):
    model = small_network("residual")
    model.keeps_residual_trunk = True
    assert structure(model).upper_bounds == (5, 7)


def test_transposed_weights_have_their_inputs_first_and_flatten_repeats(small_network):
    table = structure(small_network("hourglass"))
    assert table.upper_bounds == (6, 5, 7, 9, 6)
    assert slices(table.units[1]) == (
        {
            ("body.3.weight", 1, 1, "producer"),
            ("body.3.bias", 0, 1, "bias"),
            ("body.6.weight", 0, 1, "consumer"),
        }
        | norm("body.4")
    )
    assert ("head.0.weight", 1, 8, "consumer") in slices(table.units[3])
    assert table.operations[-3].inputs == Channels(position=4, count=9, repeat=8)


def test_a_concatenation_lines_its_operands_up(small_network):
    table = structure(small_network("joined"))
    assert table.upper_bounds == (4, 3, 5)
    (cat,) = (operation for operation in table.operations if operation.kind == "cat")
    # the image's two channels lie between those of left and right, and never change
    assert cat.inputs == cat.outputs == Channels(1, 4, others=(Channels(None, 2), Channels(2, 3)))
    assert ("after.weight", 1, 0) in offsets(table.units[0])
    assert ("after.weight", 1, 4 + 2) in offsets(table.units[1])
    smaller = table.at((1, 2, 3))
    assert ("after.weight", 1, 1 + 2) in offsets(smaller.units[1])
    assert [edge[:2] for edge in table.edges] == [(0, 1), (0, 2), (1, 3), (None, 3), (2, 3), (1, 3), (3, 4)]


def offsets(unit):
    return {(part.tensor, part.dim, part.offset) for part in unit.slices}


def test_the_outputs_are_fixed_even_where_a_layer_reads_them():
    class Refined(nn.Module):
        input_shape = (3, 4, 4)

        def __init__(self):
            super().__init__()
            self.first, self.inner, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, images):
            draft = self.first(images)
            return draft + self.last(self.inner(draft))

    table = structure(Refined())
    assert table.position_bounds == (3, 6, 4)
    assert table.operations[-1].outputs == Channels(position=2, count=4)


def test_operations_come_in_execution_order_with_their_geometry(small_network):
    operations = structure(build("mobilenet", width_multiplier=0.25)).operations
    assert [operation.kind for operation in operations[:9]] == [
        *("conv", "batch_norm", "relu"),
        *("depthwise", "batch_norm", "relu"),
        *("conv", "batch_norm", "relu"),
    ]
    assert operations[0] == Operation(
        name="conv1",
        kind="conv",
        inputs=Channels(0, 3),
        outputs=Channels(1, 8),
        input_size=(224, 224),
        output_size=(112, 112),
        kernel=(3, 3),
        stride=(2, 2),
        module="conv1",
        padding=(1, 1),
    )
    assert operations[-2] == Operation(
        *("pool", "avg_pool", Channels(14, 256), Channels(14, 256), (7, 7), (1, 1)),
        kernel=(7, 7),
        stride=(7, 7),
        variant="adaptive",
    )
    assert operations[-1].bias
    json.dumps([dataclasses.asdict(operation) for operation in operations])


def test_pooling_and_upsampling_keep_their_geometry(small_network):
    operations = structure(small_network("hourglass")).operations
    resizing = [operation for operation in operations if operation.kind in ("upsample", "avg_pool", "max_pool")]
    assert [(each.kind, each.kernel, each.stride, each.input_size, each.output_size) for each in resizing] == [
        ("upsample", (1, 1), (1, 1), (16, 8), (32, 16)),
        ("avg_pool", (4, 4), (4, 4), (32, 16), (8, 4)),
        ("max_pool", (3, 3), (2, 2), (8, 4), (4, 2)),
    ]


@pytest.mark.parametrize("name", (*ZOO, *TOYS))
def test_the_model_is_left_alone(name, small_network):
    model = small_network(name).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    structure(model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_the_fingerprint_tells_costs_apart_and_nothing_else():
    def fingerprint(**options):
        return structure(build("mobilenet", width_multiplier=0.25, **options)).fingerprint

    assert fingerprint(input_size=28) == fingerprint(input_size=(28, 28))
    others = ({}, {"input_size": 28}, {"num_classes": 10}, {"widths": [8] * 14})
    assert len({fingerprint(**options) for options in others}) == 4


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("mobilenet", {"width_multiplier": 0.25, "input_size": 28, "in_channels": 1}, "f42a5c39fe8278bf"),
        ("alexnet", {"width_multiplier": 0.25, "input_size": 64, "in_channels": 1}, "b6b8ccd774436b2e"),
        ("erfnet", {"width_multiplier": 0.5, "input_size": (32, 64), "num_classes": 11}, "5a8db9edf05d643f"),
        ("resnet18", {"width_multiplier": 0.25, "input_size": (40, 56)}, "da25b4bd84b34365"),
    ],
)
def test_fingerprints_stay_as_shipped_weights_and_caches_know_them(name, options, expected):
    """Taken before operations told paddings, dilation and variants. What simulated readings hang on is left alone."""
    assert structure(build(name, **{"num_classes": 10} | options)).fingerprint == expected


def test_what_only_hardware_prices_is_in_the_exact_fingerprint_alone():
    """Two convolutions of one size, kernel and stride: undilated, and dilated with as much more padding."""

    def traced(dilation, activation):
        conv = nn.Conv2d(3, 4, 3, padding=dilation, dilation=dilation)
        model = nn.Sequential(conv, activation, nn.Conv2d(4, 2, 1))
        model.input_shape = (3, 16, 16)
        return structure(model)

    tables = [traced(1, nn.ReLU()), traced(2, nn.ReLU()), traced(1, nn.ReLU6())]
    assert len({table.fingerprint for table in tables}) == 1
    assert len({table.exact_fingerprint for table in tables}) == 3
    assert traced(2, nn.ReLU()).exact_fingerprint == tables[1].exact_fingerprint
    operation = tables[0].operations[0]
    changed = {"padding": (3, 3), "dilation": (2, 2), "output_padding": (1, 1), "variant": "other"}
    assert priced(dataclasses.replace(operation, **changed)) == priced(operation)
    for field in ("kernel", "stride", "output_size"):
        assert priced(dataclasses.replace(operation, **{field: (9, 9)})) != priced(operation)


def test_padding_and_dilation_are_the_layers_own(small_network):
    """All convolutions of ERFNet, dilated ones among them, straight from the modules."""
    model = small_network("erfnet")
    seen = set()
    for operation in structure(model).operations:
        if operation.kind in ("conv", "transposed_conv"):
            layer = model.get_submodule(operation.module)
            stated = (operation.padding, operation.dilation, operation.output_padding)
            assert stated == (layer.padding, layer.dilation, layer.output_padding)
            seen.add(operation.dilation)
    assert len(seen) == 1 + 2 * 4  # undilated, and 2, 4, 8, 16 along either side


# --- what it can't follow


class Around(nn.Module):
    """A function of images in the middle of two layers."""

    input_shape = (4, 6, 6)

    def __init__(self, function, first=None):
        super().__init__()
        self.first, self.last, self.function = first or nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1), function

    def forward(self, images):
        return self.last(self.function(self.first(images)))


class Standardised(nn.Conv2d):
    """A convolution with a forward pass of its own."""

    def forward(self, maps):
        return nn.functional.conv2d(maps, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (torch.erf, "erf at"),
        (lambda maps: torch.cumsum(maps.erf(), 1), "erf at 'erf', cumsum at"),  # all of them at once
        (nn.LocalResponseNorm(2), "LocalResponseNorm at 'function'"),
        (lambda maps: maps.mean(), "mean over"),
        (lambda maps: torch.flip(maps, (2, 3)), "flip of the image"),
        (nn.Linear(6, 6), "flat input"),
        (nn.Conv2d(5, 6, 1), r"runs on \(4, 6, 6\), at 'function'"),
        (lambda maps: maps if maps.sum() > 0 else -maps, "control flow.*in test_structure.py, line"),
        (lambda maps: maps if maps.shape[2] > 3 else -maps, "control flow.*in test_structure.py, line"),
        (lambda maps: maps[: len(maps)], "len.*in test_structure.py, line"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 1)), "'function.weight', computed anew"),
        (nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 6, 1)), "'function.weight', computed anew"),
        (prune.l1_unstructured(nn.Conv2d(6, 6, 1), "weight", 0.5), "'function.weight', computed anew"),
        (nn.LazyConv2d(6, 1), "'function.weight' of a lazy layer"),
        (Standardised(6, 6, 1), "computed ones, or buffers, at 'function'"),
    ],
)
def test_what_it_cannot_follow_is_named(function, words):
    with pytest.raises(BadInput, match=words) as caught:
        structure(Around(function))
    assert "\n" not in str(caught.value)


def test_a_flip_of_channels_is_refused():
    class Swapped(Around):
        def forward(self, images):
            return self.first(torch.flip(images, (1, 2)))

    with pytest.raises(BadInput, match="flip of the image"):
        structure(Swapped(None))


def test_a_parameter_of_two_layers_is_refused():
    first, second = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 1)
    second.bias = first.bias
    with pytest.raises(BadInput, match=r"'first.bias' and 'function.bias' in one"):
        structure(Around(second, first=first))


def test_a_layer_under_two_names_is_one_layer():
    network = Around(nn.Conv2d(6, 6, 1))
    network.other_name = network.function
    assert structure(network).upper_bounds == (6, 6)


def test_a_layer_called_twice_is_refused():
    twice = nn.Conv2d(6, 6, 1)
    with pytest.raises(BadInput, match="called twice"):
        structure(Around(nn.Identity(), first=nn.Sequential(nn.Conv2d(4, 6, 1), twice, twice)))


def test_a_module_without_input_shape_is_refused():
    with pytest.raises(BadInput, match="input_shape"):
        structure(nn.Conv2d(1, 1, 1))


# --- symbolic counts


@given(st.lists(st.tuples(*[st.integers(1, 50)] * 3), min_size=1, max_size=4), st.integers(1, 9))
@example([(3, 4, 5)], 1)
def test_channels_read_their_position(rows, repeat):
    positions = np.array(rows)
    assert Channels(1, 50, repeat).at(positions).tolist() == [row[1] * repeat for row in rows]
    assert Channels(None, 7, repeat).at(positions).tolist() == [7 * repeat] * len(rows)
    assert Channels(1, 50, repeat).at(rows[0]).shape == ()

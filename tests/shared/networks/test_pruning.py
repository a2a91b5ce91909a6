"""Masked and compact networks agree, importance equals loops over channels."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.networks import active_channels, active_widths, build, compact, importance, names, structure, zero_channels

ZOO = names()
ALL = (*ZOO, "turned", "residual", "hourglass", "joined")


def entries(tensor, part, channel):
    """The view of one channel's entries in a slice."""
    return tensor.narrow(part.dim, part.offset + channel * part.repeat, part.repeat)


@torch.no_grad()
def zero_consumers(model, table, dead):
    """What a proximal step leaves behind: consumer columns of dead channels at zero, all else untouched."""
    tensors = dict(model.named_parameters())
    for unit, row in zip(table.units, dead, strict=True):
        for part in unit.slices:
            if part.role == "consumer":
                for channel in row[: unit.upper_bound].nonzero().flatten().tolist():
                    entries(tensors[part.tensor], part, channel).zero_()


def images(model, count=4):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, *model.input_shape, generator=generator, dtype=next(model.parameters()).dtype)


@torch.no_grad()
def outputs(model, train):
    return model.train(train)(images(model))


def drawn_widths(bounds):
    """Any widths, with a single channel more often than chance would have it."""
    return st.tuples(*(st.one_of(st.just(1), st.integers(1, bound)) for bound in bounds))


# --- cutting


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_compact_networks_give_the_masked_outputs(name, data, small_network, random_dead):
    model = small_network(name)
    table = structure(model)
    widths = data.draw(drawn_widths(table.upper_bounds))
    dead = random_dead(table, widths, data.draw(st.integers(0, 99)))
    zero_consumers(model, table, dead)
    assert active_channels(model, table).sum(dim=1).tolist() == list(widths)

    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        masked = model.to(dtype)
        small = compact(masked, table)
        for train in (False, True):
            expected, got = outputs(masked, train), outputs(small, train)
            assert (got - expected).abs().max() <= tolerance * expected.abs().max()
    assert structure(small).upper_bounds == widths
    zero_channels(model, table, dead)  # the producers too: still the same function
    assert (outputs(model, True) - expected).abs().max() <= tolerance * expected.abs().max()


def test_somebody_else_s_network_can_be_cut(small_network, random_dead):
    model = small_network("mobilenet_v2").double()
    table = structure(model)
    widths = [1 + (7 * unit) % bound for unit, bound in enumerate(table.upper_bounds)]
    zero_consumers(model, table, random_dead(table, widths, 0))
    small = compact(model, table)
    assert structure(small) == table.at(widths)
    for train in (False, True):
        expected, got = outputs(model, train), outputs(small, train)
        assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_compact_networks_are_those_of_torch_pruning(name, data, small_network, random_dead):
    """Another library, told only to remove rows of each unit's first layer, finds the same slices to cut."""
    reason = "torch-pruning, the oracle, comes with the extra 'test'"
    oracle = pytest.importorskip("torch_pruning", reason=reason)
    model = small_network(name)
    table = structure(model)
    widths = data.draw(drawn_widths(table.upper_bounds))
    dead = random_dead(table, widths, data.draw(st.integers(0, 99)))
    theirs = copy.deepcopy(model).eval()
    for unit, row in zip(table.units, dead, strict=True):
        channels = row[: unit.upper_bound].nonzero().flatten().tolist()
        if channels:
            graph = oracle.DependencyGraph().build_dependency(theirs, torch.zeros(1, *model.input_shape))
            layer = theirs.get_submodule(unit.name)
            linear = isinstance(layer, torch.nn.Linear)
            rows = oracle.prune_linear_out_channels if linear else oracle.prune_conv_out_channels
            graph.get_pruning_group(layer, rows, idxs=channels).prune()
    zero_consumers(model, table, dead)
    ours = compact(model, table).state_dict()
    assert list(ours) == list(theirs.state_dict())
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("name", ZOO)
def test_compact_networks_are_what_build_makes(name, small_network, random_dead):
    model = small_network(name)
    table = structure(model)
    widths = [1 + (7 * unit) % bound for unit, bound in enumerate(table.upper_bounds)]
    zero_consumers(model, table, random_dead(table, widths, 0))
    small = compact(model)
    assert small.config == {**model.config, "widths": widths}
    assert small.input_shape == model.input_shape
    rebuilt = build(**json.loads(json.dumps(small.config)))
    rebuilt.load_state_dict(small.state_dict())
    assert torch.equal(outputs(rebuilt, False), outputs(small, False))
    for before, after in zip(rebuilt.modules(), small.modules(), strict=True):
        assert before.extra_repr() == after.extra_repr() or hasattr(after, "p")  # dropout, whose p the fixture sets


@pytest.mark.parametrize("name", ALL)
def test_compact_leaves_the_original_alone(name, small_network, random_dead):
    model = small_network(name)
    table = structure(model)
    zero_consumers(model, table, random_dead(table, [1] * len(table.units), 0))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    compact(model)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ALL)
def test_a_unit_without_channels_keeps_one(name, small_network):
    model = small_network(name)
    table = structure(model)
    dead = torch.zeros(len(table.units), max(table.upper_bounds), dtype=torch.bool)
    dead[len(dead) // 2] = True
    zero_consumers(model, table, dead)
    assert active_widths(model)[len(dead) // 2] == 0
    small = compact(model.double())
    assert structure(small).upper_bounds[len(dead) // 2] == 1
    for train in (False, True):
        assert (outputs(small, train) - outputs(model, train)).abs().max() < 1e-10


def test_entries_too_small_to_square_are_active(small_network):
    model = small_network("alexnet")
    table = structure(model)
    dead = torch.ones(len(table.units), max(table.upper_bounds), dtype=torch.bool)
    zero_consumers(model, table, dead)
    with torch.no_grad():
        model.classifier[1].weight[0, 36 * 5 + 35] = 1e-30
    assert active_widths(model) == (0, 0, 0, 0, 1, 0, 0)
    assert active_channels(model)[4].nonzero().tolist() == [[5]]


def test_every_consumer_keeps_a_channel_alive(small_network):
    model = small_network("residual")
    with torch.no_grad():
        model.first.weight[:, 3] = 0
        model.third.weight[:, 3] = 0
    assert active_widths(model) == (8, 5, 7)
    with torch.no_grad():
        model.head.weight[:, 3] = 0
    assert active_widths(model) == (7, 5, 7)


# --- importance


def test_mobilenet_importance_is_pointwise_columns_and_depthwise_filters(small_network):
    model = small_network("mobilenet")
    table = structure(model)
    metric = {name: torch.rand_like(tensor) + 0.1 for name, tensor in model.named_parameters()}
    plain, weighted = importance(model, table), importance(model, table, metric)
    assert plain.shape == (14, 256)
    with torch.no_grad():
        for unit, bound in enumerate(table.upper_bounds):
            reading = [(f"pw{unit + 1}.weight", 1), (f"dw{unit + 1}.weight", 0)] if unit < 13 else [("fc.weight", 1)]
            for channel in range(bound):
                parts = [(model.get_parameter(name).select(dim, channel), name, dim) for name, dim in reading]
                expected = sum((part**2).sum() for part, _, _ in parts)
                torch.testing.assert_close(plain[unit, channel], expected)
                expected = sum((part**2 * metric[name].select(dim, channel)).sum() for part, name, dim in parts)
                torch.testing.assert_close(weighted[unit, channel], expected)
            assert not plain[unit, bound:].any()


@pytest.mark.parametrize("name", ALL)
def test_importance_counts_the_entries_that_pruning_loses(name, small_network):
    """Zeroing a channel's consumers and depthwise filters takes exactly its importance off their squared norm."""
    model = small_network(name).double()
    table = structure(model)
    scores = importance(model, table)

    def total():
        return sum(parameter.square().sum().item() for parameter in model.parameters())

    with torch.no_grad():
        for unit in table.units:
            channel, before = unit.upper_bound - 1, total()
            for part in unit.slices:
                if part.role in ("consumer", "depthwise"):
                    entries(model.get_parameter(part.tensor), part, channel).zero_()
            assert before - total() == pytest.approx(scores[unit.index, channel].item(), rel=1e-6)
            scores = importance(model, table)


def test_a_flattened_channel_is_all_of_its_columns(small_network):
    """Zeroing 36 columns of the first linear layer is zeroing the channel of the last convolution that they read."""
    columns, channel = small_network("alexnet").double(), small_network("alexnet").double()
    with torch.no_grad():
        columns.classifier[1].weight[:, 36 * 2 : 36 * 3] = 0
        last = [module for module in channel.features if isinstance(module, torch.nn.Conv2d)][-1]
        last.weight[2], last.bias[2] = 0, 0
    torch.testing.assert_close(outputs(columns, False), outputs(channel, False), rtol=1e-12, atol=1e-12)
    assert active_widths(columns)[4] == active_widths(small_network("alexnet"))[4] - 1


def test_importance_of_a_flattened_channel_sums_its_columns(small_network):
    model = small_network("alexnet")
    columns = model.classifier[1].weight.detach()[:, 36 * 2 : 36 * 3]
    torch.testing.assert_close(importance(model, structure(model))[4, 2], columns.square().sum())

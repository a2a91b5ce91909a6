"""Cutting without tracing anew, and which channels go at given widths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.networks import build, compact, importance, structure, zero_channels
from shared.networks.ranking import weakest_channels


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet", {"width_multiplier": 0.25, "input_size": 28, "in_channels": 1, "num_classes": 10}),
        ("alexnet", {"width_multiplier": 0.25}),  # a flatten between a convolution and a linear layer
        ("erfnet", {"width_multiplier": 0.25, "input_size": (64, 128)}),
        ("resnet18", {"width_multiplier": 0.25}),  # stages that additions tie
    ],
)
def test_structure_at_widths_is_the_structure_of_the_cut_network(name: str, options: dict) -> None:
    model = build(name, **options)
    table = structure(model)
    draw = torch.Generator().manual_seed(3)
    widths = [int(torch.randint(1, bound + 1, (), generator=draw)) for bound in table.upper_bounds]
    zero_channels(model, table, weakest_channels(importance(model, table), widths, table.upper_bounds))
    small = compact(model, table)
    assert table.at(widths) == structure(small)
    assert structure(small).upper_bounds == tuple(widths) != table.upper_bounds
    for one, other in zip(small.state_dict().values(), compact(model).state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_compact_keeps_the_memory_format(memory_format: torch.memory_format) -> None:
    """Also the strides of 1x1 and depthwise kernels, which leave the order open: torch chooses by them."""
    plain = {"width_multiplier": 0.25, "input_size": 28, "in_channels": 1, "num_classes": 10}
    model = build("mobilenet", **plain).to(memory_format=memory_format)
    table = structure(model)
    dead = torch.zeros(len(table.units), max(table.upper_bounds), dtype=torch.bool)
    dead[:, :3] = True
    zero_channels(model, table, dead)
    small = compact(model)
    strides = [tensor.stride() for tensor in small.parameters()]
    assert strides == [tensor.stride() for tensor in build(**small.config).to(memory_format=memory_format).parameters()]


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_weakest_channels_against_sorting_one_by_one(data: st.DataObject) -> None:
    bounds = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    widths = [data.draw(st.integers(0, bound)) for bound in bounds]
    values = [data.draw(st.lists(st.integers(0, 4), min_size=bound, max_size=bound)) for bound in bounds]  # many ties
    table = torch.zeros(len(bounds), max(bounds))
    for row, entries in zip(table, values, strict=True):
        row[: len(entries)] = torch.tensor(entries, dtype=torch.float)
    dead = weakest_channels(table, widths, bounds)
    for row, entries, width in zip(dead.tolist(), values, widths, strict=True):
        kept = sorted(range(len(entries)), key=lambda channel: (-entries[channel], channel))[:width]
        assert row[: len(entries)] == [channel not in kept for channel in range(len(entries))]
        assert not any(row[len(entries) :])

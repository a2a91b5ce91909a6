"""The chip Eyeriss: counts by hand, published totals, and what must hold of any network."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.studies.eyeriss import Kept, amounts, published_layers
from shared import energy, networks, platforms
from shared.errors import BadInput
from shared.networks.operations import Channels, Operation
from shared.platforms import EyerissPlatform, Subject
from shared.platforms.eyeriss import closed_form, passes
from shared.platforms.eyeriss.chip import LEVELS, Density, chip, layer

ALEXNET = {"num_classes": 1000, "in_channels": 3, "input_size": 224}
MOBILENET = {"num_classes": 1000, "in_channels": 3, "input_size": 224}


def subject(name: str, options: dict[str, object]) -> Subject:
    structure = networks.structure(networks.build(name, **options))  # type: ignore[arg-type]
    return Subject(structure, lambda widths: nn.Identity())


def macs_worth(platform: EyerissPlatform, of: Subject, images: int) -> float:
    dense = np.array([of.structure.upper_bounds])
    return float(platform.amounts(of, dense, images)[0]) / chip().mac_j


@pytest.mark.parametrize(("images", "worth"), [(16, 4.546e9), (1, 1.634e10)])
def test_the_closed_form_of_alexnet_to_four_digits(images: int, worth: float) -> None:
    assert float(f"{macs_worth(EyerissPlatform(), subject('alexnet', ALEXNET), images):.4g}") == worth


@pytest.mark.parametrize(
    ("network", "options", "worth", "within"),
    [
        ("alexnet", {}, 3.725e9, 0.001),
        ("alexnet", {"images": 1}, 1.550e10, 0.001),
        ("alexnet", {"dense": True}, 6.17e9, 0.001),
        ("alexnet", {"dense": True, "images": 1}, 1.795e10, 0.001),
        ("googlenet", {}, 7.84e9, 0.01),
        ("googlenet", {"images": 1}, 8.96e9, 0.01),
        ("squeezenet-1.1", {}, 2.27e9, 0.01),
    ],
)
def test_passes_give_the_totals_of_the_published_estimator(
    network: str, options: dict[str, object], worth: float, within: float
) -> None:
    # reference totals let the code of feature maps enlarge dense ones, by up to a third; ours stores these plainly
    assert amounts(network, **options).to_numpy().sum() == pytest.approx(worth, rel=within)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "shares", "within"),
    [("alexnet", (0.091, 0.451, 0.032, 0.036, 0.391), 1e-3), ("googlenet", (0.095, 0.47, 0.032, 0.037, 0.365), 1.5e-3)],
)
def test_passes_split_energy_over_the_levels_as_the_published_estimator_does(
    network: str, shares: tuple[float, ...], within: float
) -> None:
    assert LEVELS == ("compute", "register file", "array", "buffer", "DRAM")
    counts = amounts(network)
    found = [sum(counts[cause].sum() for cause in counts if cause[0] == level) for level in LEVELS]
    assert [amount / counts.to_numpy().sum() for amount in found] == pytest.approx(shares, abs=within)


def test_passes_split_alexnets_energy_over_data_and_layers_as_the_published_estimator_does() -> None:
    counts = amounts("alexnet")
    total = counts.to_numpy().sum()
    data = [
        sum(counts[cause].sum() for cause in counts if cause[1] == datum) / total
        for datum in ("weights", "inputs", "outputs")
    ]
    assert data == pytest.approx([0.30, 0.38, 0.23], abs=0.005)
    assert counts.iloc[:5].to_numpy().sum() / total == pytest.approx(0.723, abs=0.001)
    single = amounts("alexnet", images=1)
    assert single.iloc[:5].to_numpy().sum() / single.to_numpy().sum() == pytest.approx(0.198, abs=0.001)


def walked(channels: int, filters: int, size: int, kernel: int, padding: int, nonzero: np.ndarray) -> dict[str, int]:
    """Counts of a convolution of stride 1, by walking every product; `nonzero` marks the padded input's values."""
    rows = size + 2 * padding - kernel + 1
    counts = dict.fromkeys(("products", "input reads", "weight reads", "sum accesses"), 0)
    for _, y, x in itertools.product(range(filters), range(rows), range(rows)):
        for c, dy, dx in itertools.product(range(channels), range(kernel), range(kernel)):
            counts["input reads"] += 1
            if nonzero[c, y + dy, x + dx]:
                counts["products"] += 1
                counts["weight reads"] += 1
                counts["sum accesses"] += 2
    return counts


def test_the_closed_form_counts_what_a_walk_over_all_products_counts() -> None:
    operation = Operation(
        "conv", "conv", Channels(1, 3), Channels(2, 4), (5, 5), (5, 5), kernel=(3, 3), padding=(1, 1), bias=True
    )
    positions = np.array([[1.0, 3.0, 4.0]])
    full = walked(3, 4, 5, 3, 1, np.ones((3, 7, 7), dtype=bool))
    counts = closed_form.accesses(layer(operation, positions), Density(), chip(), images=2, bits=16, first=False)
    found = {cause: float(count[0]) for cause, count in counts.items()}
    assert found == {
        ("compute", "products"): full["products"],
        ("register file", "weights"): full["weight reads"],
        ("register file", "inputs"): full["input reads"],
        ("register file", "outputs"): full["sum accesses"],
        ("buffer", "weights"): 4 * 3 * 9 / 2,
        ("buffer", "inputs"): 3 * 49,
        ("buffer", "outputs"): 4 * 25,
        ("DRAM", "weights"): 4 * 3 * 9 / 2,
        ("DRAM", "inputs"): 3 * 49,
        ("DRAM", "outputs"): 4 * 25,
    }
    # half of the channels' values are zero everywhere, so that each product meets the same share
    nonzero = np.zeros((4, 7, 7), dtype=bool)
    nonzero[:2] = True
    gated = walked(4, 4, 5, 3, 1, nonzero)
    four = np.array([[1.0, 4.0, 4.0]])
    counts = closed_form.accesses(layer(operation, four), Density(inputs=0.5), chip(), images=1, bits=16, first=False)
    assert counts["compute", "products"][0] == gated["products"]
    assert counts["register file", "inputs"][0] == gated["input reads"]
    assert counts["register file", "outputs"][0] == gated["sum accesses"]
    assert counts["DRAM", "inputs"][0] == 4 * 49 * 0.5 * 64 / 48  # three values in a word of 64 bits
    first = closed_form.accesses(layer(operation, four), Density(inputs=0.5), chip(), images=1, bits=16, first=True)
    assert first["DRAM", "inputs"][0] == 4 * 49


def test_the_closed_form_of_a_layer_that_is_sparse_throughout() -> None:
    operation = Operation("conv", "conv", Channels(1, 3), Channels(2, 4), (5, 5), (5, 5), kernel=(3, 3), padding=(1, 1))
    sizes, sparse = layer(operation, np.array([[1.0, 3.0, 4.0]])), Density(0.3, 0.5, 0.4)
    counts = closed_form.accesses(sizes, sparse, chip(), images=2, bits=16, first=False)
    slots, weights, word = 4 * 25 * 27, 4 * 27, 4 / 3
    assert {cause: float(count[0]) for cause, count in counts.items()} == pytest.approx(
        {
            ("compute", "products"): slots * 0.15,
            ("register file", "weights"): slots * 0.15,
            ("register file", "inputs"): slots,
            ("register file", "outputs"): slots * 0.3,
            ("buffer", "weights"): weights * 0.3 * word / 2,
            ("buffer", "inputs"): 3 * 49,
            ("buffer", "outputs"): 100,
            ("DRAM", "weights"): weights * 0.3 * word / 2,
            ("DRAM", "inputs"): 3 * 49 * 0.5 * word,
            ("DRAM", "outputs"): 100 * 0.4 * word,
        }
    )


def test_joules_of_alexnet() -> None:
    of = subject("alexnet", ALEXNET)
    joules = EyerissPlatform().amounts(of, np.array([of.structure.upper_bounds]), 16)[0]
    assert joules == pytest.approx(7.701e-3, rel=1e-3)  # 4.546e9 multiply-adds' worth of 0.95 pJ * (65 / 45) / 0.9^2


def test_layers_of_every_kind_have_their_sizes() -> None:
    def sizes(operation: Operation) -> tuple[float, ...]:
        found = layer(operation, np.array([[3.0, 6.0, 8.0]]))
        values = (found.channels, found.maps, found.filters, found.multiply_adds, found.weights)
        return (*(float(value[0]) for value in values), *found.padded)

    six, eight = Channels(1, 6), Channels(2, 8)
    depthwise = Operation("d", "depthwise", six, six, (4, 4), (4, 4), kernel=(3, 3), padding=(1, 1))
    assert sizes(depthwise) == (1, 6, 6, 9 * 6 * 16, 9 * 6, 6, 6)
    linear = Operation("l", "linear", Channels(1, 6, 25), eight, (1, 1), (1, 1), bias=True)
    assert sizes(linear) == (150, 150, 8, 1200, 1200, 1, 1)
    up = Operation("u", "transposed_conv", six, eight, (4, 4), (8, 8), kernel=(3, 3), stride=(2, 2), padding=(1, 1))
    assert sizes(up) == (6, 6, 8, 16 * 9 * 48, 9 * 48, 4, 4)


def test_a_code_of_words_holds_what_fits() -> None:
    assert chip().coded(0.3, 16) == pytest.approx(0.3 * 4 / 3)  # 3 values of 16 bits in 64
    assert chip().coded(0.3, 8) == pytest.approx(0.3 * 64 / 40)  # 5 of 8 bits
    assert chip().coded(0.9, 16) == 1  # it is stored plainly where the code would enlarge it


def test_bits_scale_what_moves_in_proportion_and_products_by_their_square() -> None:
    of = subject("mobilenet", MOBILENET)
    dense = np.array([of.structure.upper_bounds])
    full, half = (EyerissPlatform(bits).breakdown(of, dense, 16).amounts.sum((0, 1)) for bits in (16, 8))
    assert half / full == pytest.approx([0.25, *[0.5] * 5])
    assert EyerissPlatform(8).name == "eyeriss-8bit" and EyerissPlatform().name == "eyeriss"
    assert EyerissPlatform(8).calibration != EyerissPlatform().calibration


@pytest.mark.parametrize("bits", [0, 17, -3])
def test_other_bits_are_refused(bits: int) -> None:
    with pytest.raises(BadInput, match=f"expected --bits from 1 to 16 for eyeriss, got {bits}"):
        EyerissPlatform(bits)


def test_a_network_at_widths_costs_what_the_cut_network_costs() -> None:
    of = subject("mobilenet", MOBILENET)
    widths = tuple(max(1, bound // 3) for bound in of.structure.upper_bounds)
    cut = Subject(of.structure.at(widths), of.build)
    platform = EyerissPlatform()
    assert platform.amounts(of, np.array([widths]), 4) == platform.amounts(cut, np.array([widths]), 4)


@given(st.lists(st.floats(0.0, 1.0), min_size=7, max_size=7), st.integers(1, 64))
def test_joules_grow_with_every_width_and_fall_with_the_images(shares: list[float], images: int) -> None:
    of = subject("alexnet", ALEXNET)
    bounds = of.structure.upper_bounds
    widths = [max(1, round(share * bound)) for share, bound in zip(shares, bounds, strict=True)]
    rows = [widths]
    for unit in range(len(widths)):
        more = list(widths)
        more[unit] = min(more[unit] + 1, bounds[unit])
        rows.append(more)
    joules = EyerissPlatform().amounts(of, np.array(rows), images)
    assert (joules >= joules[0]).all()
    assert EyerissPlatform().amounts(of, np.array([widths]), images + 1)[0] < joules[0]


def test_the_energy_model_with_linear_terms_is_exact_and_the_chain_is_not() -> None:
    for name, options, least, most in (("alexnet", ALEXNET, 0.001, 0.01), ("mobilenet", MOBILENET, 0.015, 0.035)):
        of = subject(name, options)
        profile = EyerissPlatform().profile(of, samples=3_000, test_samples=600)
        assert profile.batch == 16
        assert energy.fit(profile, of.structure, "bilinear+linear").relative_error < 1e-6
        assert least < energy.fit(profile, of.structure, "bilinear").relative_error < most


def test_densities_belong_to_operations_by_name() -> None:
    of = subject("alexnet", ALEXNET)
    dense = np.array([of.structure.upper_bounds])
    name = next(operation.name for operation in of.structure.operations if operation.kind == "linear")
    sparse = EyerissPlatform(density={name: Density(weights=0.1)})
    before, after = (platform.breakdown(of, dense, 1) for platform in (EyerissPlatform(), sparse))
    changed = (before.amounts != after.amounts).any((0, 2))
    assert [layer for layer, differs in zip(before.layers, changed, strict=True) if differs] == [name]
    assert sparse.calibration != EyerissPlatform().calibration


@pytest.mark.parametrize(
    ("network", "least"), [("alexnet", 0.9), ("googlenet", 0.75), ("squeezenet-1.1", 0.75), ("squeezenet-1.0", 0.75)]
)
def test_the_closed_form_lies_below_the_passes(network: str, least: float) -> None:
    closed, cut = (amounts(network, model, images=1).sum(axis=1) for model in ("closed form", "passes"))
    assert (closed <= cut * (1 + 1e-9)).all()
    assert least < closed.sum() / cut.sum() < 1


@pytest.mark.parametrize("network", ["alexnet", "googlenet"])
def test_values_of_half_the_bits_fill_a_pass_as_memories_of_twice_the_size_do(network: str) -> None:
    sizes = {name: 2 * getattr(chip(), name) for name in ("buffer_bytes", "filter_words", "input_words", "sum_words")}
    for published in published_layers(network):
        assert passes.schedule(published.layer, chip(), bits=8) == passes.schedule(
            published.layer, replace(chip(), **sizes)
        )


def test_passes_move_no_more_than_the_weights_that_are_left() -> None:
    full, sparse = (
        amounts("alexnet", images=1, kept=Kept(weights=share))["DRAM", "weights"].sum() for share in (1.0, 0.3)
    )
    assert sparse / full == pytest.approx(0.3 * 4 / 3)


def test_a_pass_keeps_within_the_chips_sizes() -> None:
    for network in ("alexnet", "googlenet", "squeezenet-1.1", "squeezenet-1.0"):
        for published in published_layers(network):
            cut = passes.schedule(published.layer, chip())
            held = cut.tile_in[0] * cut.tile_in[1] * cut.channels * 2 * cut.images
            assert held <= chip().buffer_bytes, published.name
            assert 0 < cut.channels <= published.layer.channels and 0 < cut.filters <= published.layer.filters
            assert cut.tile_out[0] <= chip().columns or cut.tile_in[0] == published.layer.padded[0]


def test_it_is_chosen_by_name_and_refuses_what_it_cannot_do() -> None:
    assert platforms.choose("eyeriss").unit == "J" and "eyeriss" in platforms.devices()
    chosen = platforms.choose("eyeriss", bits=8)
    assert isinstance(chosen, EyerissPlatform) and chosen.bits == 8
    for options, message in (
        ({"metric": "latency"}, "expected --metric energy for --device eyeriss, got latency"),
        ({"meter": "nvml"}, "expected --meter auto for --device eyeriss, which is computed, got 'nvml'"),
    ):
        with pytest.raises(BadInput, match=message):
            platforms.choose("eyeriss", **options)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="expected --bits with --device eyeriss or --metric size, got --device tx2"):
        platforms.choose("tx2", bits=8)

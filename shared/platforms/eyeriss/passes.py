"""The pass model: how the row-stationary dataflow really cuts a layer into passes, as a check of the closed form.

It follows the scheduling of CNNergy (Manasi and Sapatnekar, "NeuPart", IEEE TVLSI 2020; manasiumn37/CNNergy), without
its energy of control. Numbers of passes are fractional, as there. It takes one layer at one set of widths. Two cases
are scheduled otherwise: channels that just fill the array count as fitting, and no filter is taken out of a pass that
has room for all. Totals of the published networks differ by 0.4 % at most through these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shared.platforms.eyeriss.chip import Accesses, Chip, Density, Layer

POINTWISE_CHANNELS = 72  # of a pass of 1x1 filters: in two halves of the array, which take different filters
POINTWISE_FILTERS = 18  # up to which all of a layer's 1x1 filters fit into one half


@dataclass(frozen=True)
class Pass:
    """What the array works on at once: channels of filters, on a tile of the maps, for so many images."""

    channels: float
    channels_per_set: float  # a set is as many rows of the array as a filter has
    filters: float
    tile_in: tuple[float, float]  # of the padded input
    tile_out: tuple[float, float]
    span: float  # rows of output whose sums stay in the buffer until all channels are in
    images: int


def accesses(layer: Layer, density: Density, chip: Chip, *, images: int | None, bits: int, first: bool) -> Accesses:
    """What the layer counts per image; `images` share the weights of a pass, None for as many as the buffer holds."""
    cut = schedule(layer, chip, images=images, bits=bits)
    (high, wide), (rows, columns) = layer.kernel, layer.output
    (in_rows, in_columns), (out_rows, out_columns) = cut.tile_in, cut.tile_out
    over_channels, over_filters = float(layer.channels) / cut.channels, float(layer.filters) / cut.filters
    over_map = rows / cut.span * columns / out_columns
    passes = over_channels * over_filters * over_map
    tiles = cut.span / out_rows  # of a span; all but the first find some of their input rows in the buffer
    fresh_rows = in_rows + (tiles - 1) * (in_rows - (high - layer.stride[0]))
    made = float(layer.multiply_adds) * density.weights * density.inputs
    weights = cut.filters * cut.channels * high * wide * passes * chip.coded(density.weights, bits) / cut.images
    coded_inputs = 1.0 if first else chip.coded(density.inputs, bits)
    outputs = float(layer.filters) * rows * columns
    sums = cut.filters * out_columns * out_rows * tiles * over_filters * over_map
    hops = (math.ceil(high * cut.channels / cut.channels_per_set) - 1) * sums * over_channels
    counts = {
        ("compute", "products"): made,
        ("register file", "weights"): made,
        ("register file", "inputs"): float(layer.multiply_adds),
        ("register file", "outputs"): 2 * made - hops,  # what comes from the element below isn't read from registers
        ("array", "outputs"): hops,
        ("buffer", "weights"): weights,
        ("buffer", "inputs"): in_columns * in_rows * cut.channels * tiles * passes,
        ("buffer", "outputs"): sums * (2 * over_channels - 1),  # the first channels' sums are only written
        ("DRAM", "weights"): weights,
        ("DRAM", "inputs"): coded_inputs * in_columns * fresh_rows * cut.channels * passes,
        ("DRAM", "outputs"): outputs * chip.coded(density.outputs, bits),
    }
    return {cause: np.asarray(count) for cause, count in counts.items()}


def schedule(layer: Layer, chip: Chip, *, images: int | None = None, bits: int = 16) -> Pass:
    """The pass that the layer is cut into."""
    channels, channels_per_set, filters, whole = _processing(layer, chip, bits)
    (high, wide), (down, right) = layer.kernel, layer.stride
    (height, width), (rows, columns) = layer.padded, layer.output
    capacity = chip.buffer_bytes * 8 / bits  # in values
    fits = down * (chip.columns - 1) + high >= height  # a column of the array makes a row of output
    in_rows, out_rows = (height, rows) if fits else (down * (chip.columns - 1) + high, chip.columns)
    in_columns, out_columns = float(width), float(columns)
    while in_columns * in_rows * channels >= capacity:
        in_columns /= 2
        out_columns = (in_columns - wide) / right + 1
    inputs, span = in_columns * in_rows * channels, float(rows)

    def held(filters: float, rows: float) -> float:
        """Images whose inputs and sums the buffer holds."""
        return capacity / (inputs + out_columns * rows * filters)

    if images is None:
        images = max(1, math.floor(held(filters, span)))
    if not whole:
        while held(filters, span) < 1:
            span /= 2
        if span < out_rows:  # no column of the array may idle: fewer filters instead
            span = out_rows
            while held(filters, span) < 1:
                filters -= 1
    return Pass(channels, channels_per_set, filters, (in_rows, in_columns), (out_rows, out_columns), span, images)


def _processing(layer: Layer, chip: Chip, bits: int) -> tuple[float, float, float, bool]:
    """Channels of a pass, those of a set, filters of a pass, and whether a pass takes all channels."""
    high, wide = layer.kernel
    all_channels, all_filters = float(layer.channels), float(layer.filters)
    filter_words, input_words, sum_words = (
        words * 16 // bits for words in (chip.filter_words, chip.input_words, chip.sum_words)
    )
    sets, channels_per_set = chip.rows // high, min(input_words // wide, all_channels)
    per_set = filter_words // wide // channels_per_set  # filters
    channels = min(channels_per_set * sets, all_channels)
    whole = channels == all_channels
    alike = sets // math.ceil(channels / channels_per_set)  # parts of the array that take different filters
    if (high, wide) == (1, 1) and layer.output != (1, 1) and not whole:
        channels = POINTWISE_CHANNELS
        alike = sets // math.ceil(channels / channels_per_set)
        if all_filters <= POINTWISE_FILTERS:
            per_set, alike = all_filters, 1
    filters = per_set * alike
    if filters > all_filters:
        per_set, filters = all_filters / sets, all_filters
    if per_set > sum_words:
        filters = sum_words * alike
    return channels, channels_per_set, filters, whole

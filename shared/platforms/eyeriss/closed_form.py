"""The closed form: every value moves once between DRAM and the registers' level, products are made from registers.

The levels' costs are those of Chen, Emer, Sze, "Eyeriss: A Spatial Architecture for Energy-Efficient Dataflow for
Convolutional Neural Networks" (ISCA 2016). The closed form leaves out the array and all repeated reads. Above all, a
layer whose filters don't fit into one pass reads its inputs from DRAM again for each: in layers of many filters and
small maps that is half of the energy and more. `shared.platforms.eyeriss.passes` counts all of it.
"""

from __future__ import annotations

from shared.platforms.eyeriss.chip import Accesses, Chip, Density, Layer


def accesses(layer: Layer, density: Density, chip: Chip, *, images: int, bits: int, first: bool) -> Accesses:
    """What a layer counts per image, where `images` share one fetch of its weights.

    A product takes its weight, its input and its partial sum from registers and puts the sum back. Zeros are gated:
    their inputs are read, to see the zero, and nothing else happens. Weights and feature maps travel in the run-length
    code, but for the `first` layer's input; feature maps lie in the buffer without it.
    """
    made = layer.multiply_adds * density.weights * density.inputs
    weights = layer.weights * chip.coded(density.weights, bits) / images
    inputs = layer.maps * (layer.padded[0] * layer.padded[1])
    outputs = layer.filters * (layer.output[0] * layer.output[1])
    return {
        ("compute", "products"): made,
        ("register file", "weights"): made,
        ("register file", "inputs"): layer.multiply_adds,
        ("register file", "outputs"): 2 * made,
        ("buffer", "weights"): weights,
        ("buffer", "inputs"): inputs,
        ("buffer", "outputs"): outputs,
        ("DRAM", "weights"): weights,
        ("DRAM", "inputs"): inputs if first else inputs * chip.coded(density.inputs, bits),
        ("DRAM", "outputs"): outputs * chip.coded(density.outputs, bits),
    }

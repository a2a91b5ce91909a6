"""The networks, one file each. The file's name is the network's id; a new file needs no registration.

A file sets NETWORK to an nn.Module class with

    upper_bounds(width_multiplier) -> tuple[int, ...]       a static method: the dense widths, in execution order
    __init__(widths, *, num_classes=…, in_channels=…, width_multiplier=…, input_size=(height, width))

__init__ sets `input_shape`; its keyword defaults are the network's own. Layers are plain torch modules, from which the
units are derived. A depthwise convolution has the attribute `depthwise = True`: with one channel, shapes can't tell.

Class attributes and a method, all optional; the dicts are by data set:

    trained_on              arguments of `build` beyond those that fit the data: width multiplier, and an `input_size`
                            if images are to be resized
    scaled_pixels           (mean, std) to normalise pixels in 0..1 with, if not the data set's own
    published_weights       which public file has trained weights, as text for the user
    keeps_residual_trunk    True: channels that an addition touches are not pruned
    from_published(tensors) those weights with the names and layout of this network, if they differ
"""

from __future__ import annotations


def scaled(channels: int, width_multiplier: float) -> int:
    """Channels times the multiplier, rounded to a multiple of 8 and at least 8; unchanged at 1."""
    return channels if width_multiplier == 1 else max(8, 8 * round(channels * width_multiplier / 8))

"""One file per network: its name is the network's id, and a file placed here is found by itself.

A file sets NETWORK to an nn.Module class with

    upper_bounds(width_multiplier) -> tuple[int, ...]       a static method: the dense widths, in execution order
    __init__(widths, *, num_classes=…, in_channels=…, width_multiplier=…, input_size=(height, width))

whose keyword defaults are the network's own and which sets `input_shape`. A dict `trained_on` says on which data sets
it is trained and with which arguments other than those that fit the data: the width multiplier, and an `input_size`
where images are to be resized. A dict `scaled_pixels` says on which data sets pixels in 0..1 are to be
(pixel - mean) / std by other numbers than the data set's: (mean, std). A dict `published_weights` tells a person which
public file is trained on a data set; where it differs in names or layout, a method `from_published(tensors)` gives them
as they are here. Layers are plain torch modules; the table of units is derived from them. A depthwise convolution
carries `depthwise = True`: at one channel its shape doesn't tell.
"""

from __future__ import annotations


def scaled(channels: int, width_multiplier: float) -> int:
    """Channels times the multiplier, rounded to a multiple of 8 and at least 8; unchanged at 1."""
    return channels if width_multiplier == 1 else max(8, 8 * round(channels * width_multiplier / 8))

"""How layers and functions compute (padding, dilation, variant), as fields of an `Operation`.

A board-side runner executes operations from these fields. What they can't express has the variant "other", which is
priced but never run.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

Size = tuple[int, int]
INTERPOLATE = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")


def convolution_of_function(arguments: Any, kernel: Size) -> Any:
    """The layer that computes what `F.conv2d` or `F.conv_transpose2d` does with these arguments."""
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
    given = {**defaults, **vars(arguments), "kernel_size": kernel, "padding_mode": "zeros"}
    sides = {name: given[name] if isinstance(given[name], str) else _pair(given[name]) for name in defaults}
    return SimpleNamespace(**{**given, **sides})


def is_grouped(convolution: Any) -> bool:
    """Whether filters read a part of the channels. Shapes can't tell with one group, so such layers are marked."""
    return convolution.groups > 1 or getattr(convolution, "depthwise", False)


def of_convolution(layer: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    """Fields of a convolution of any kind. Padding by other values than zero, or uneven padding, is "other"."""
    padding, even = layer.padding, True
    if isinstance(padding, str):  # "same" or "valid"; "same" pads dilation * (kernel - 1) pixels in all
        spans = [dilation * (kernel - 1) for dilation, kernel in zip(layer.dilation, layer.kernel_size, strict=True)]
        rows, columns = spans if padding == "same" else (0, 0)
        padding, even = (rows // 2, columns // 2), rows % 2 == columns % 2 == 0
    return {
        "kernel": layer.kernel_size,
        "stride": layer.stride,
        "padding": padding,
        "dilation": layer.dilation,
        "output_padding": layer.output_padding,
        "variant": "plain" if even and layer.padding_mode == "zeros" else "other",
    }


def of_pooling(layer: Any, input_size: Size, output_size: Size) -> dict[str, Any]:
    """Fields of a pooling layer; one without a kernel (a function, a mean, an adaptive layer) is "adaptive".

    Sizes rounded up (ceil_mode), averages that exclude the padding, and divisors of one's own are "other".
    """
    if not hasattr(layer, "kernel_size"):
        (height, rows), (width, columns) = zip(input_size, output_size, strict=True)
        kernel, stride = (-(-height // rows), -(-width // columns)), (height // rows, width // columns)
        return {"kernel": kernel, "stride": stride, "variant": "adaptive"}
    padding = _pair(layer.padding)
    counts_padding = getattr(layer, "count_include_pad", True) or padding == (0, 0)
    plain = counts_padding and not layer.ceil_mode and getattr(layer, "divisor_override", None) is None
    return {
        "kernel": _pair(layer.kernel_size),
        "stride": _pair(layer.stride),
        "padding": padding,
        "dilation": _pair(getattr(layer, "dilation", 1)),
        "variant": "plain" if plain else "other",
    }


def of_upsampling(layer: Any, options: dict[str, Any], input_size: Size, output_size: Size) -> dict[str, Any]:
    """Fields of `nn.Upsample`, or of `F.interpolate` (layer None) with these arguments, positional ones by index.

    Modes but nearest and bilinear are "other". So are scale factors that give no whole sizes: torch then interpolates
    with the factor itself and not with the ratio of the sizes.
    """
    arguments = vars(layer) if layer is not None else {_named(key): value for key, value in options.items()}
    variants = {("nearest", False): "plain", ("bilinear", False): "bilinear", ("bilinear", True): "aligned"}
    variant = variants.get((arguments.get("mode", "nearest"), bool(arguments.get("align_corners"))), "other")
    scale = arguments.get("scale_factor")
    scaled = [side * factor for side, factor in zip(input_size, _pair(scale or 1), strict=True)]
    exact = scale is None or arguments.get("recompute_scale_factor") or scaled == list(output_size)
    return {"variant": variant if exact and not arguments.get("antialias") else "other"}


def _named(key: str) -> str:
    return INTERPOLATE[int(key)] if key.isdigit() else key


def _pair(value: Any) -> tuple[Any, Any]:
    values = (value,) if isinstance(value, int | float) else tuple(value)
    return values * 2 if len(values) == 1 else values  # torch takes one number for both sides, in a tuple, too

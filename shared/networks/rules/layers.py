"""Rules of layers with weights: they read channels and start new ones, or have an entry for each."""

from __future__ import annotations

from typing import Any

from shared.networks import forms
from shared.networks.calls import Call, Constant
from shared.networks.groups import Activation, Segment, bundle, fixed_entries
from shared.networks.operations import Kind
from shared.networks.rules.rule import Walk, claimed, give, log, log_alike

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


def convolution(walk: Walk, call: Call) -> Activation:
    """A convolution: reads channels and starts a group, or with groups takes neighbouring channels along."""
    return _convolved(walk, call, _CONVOLUTION)


def transposed_convolution(walk: Walk, call: Call) -> Activation:
    """The same, transposed: its weight is (inputs, outputs of a group, h, w)."""
    return _convolved(walk, call, _TRANSPOSED)


_CONVOLUTION = ("weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")


def _convolved(walk: Walk, call: Call, arguments: tuple[str, ...]) -> Activation:
    source, transposed = call.source, arguments is _TRANSPOSED
    layer = call.layer(*arguments, bias=None, groups=1)
    shape = tuple(call.tensor(layer, "weight").tensor.shape)  # type: ignore[union-attr]
    if call.module is None:
        layer = forms.convolution_of_function(layer, shape[2:])
        if layer.groups > 1:  # the number stands in the code, where nothing changes it
            source.fix()
    call.expect(source.tensor.ndim == 4, "a convolution of maps")
    weight, bias, mask = claimed(walk, call, layer, "weight", "bias", "input_mask")
    details = {"bias": bias is not None, **forms.of_convolution(layer)}
    if transposed and call.module is not None and call.option("output_size", 1) is not None:
        details["variant"] = "other"  # a padding of its output that is not the layer's own
    kind: Kind = "transposed_conv" if transposed else "conv"
    if forms.is_grouped(layer):
        depth = shape[0] // layer.groups if transposed else shape[1]
        output = _grouped(walk, call, layer.groups, depth)
        give(weight, 0, "depthwise", source if transposed else output)
        kind = "grouped_transposed_conv" if transposed else "depthwise" if depth == 1 else "grouped_conv"
        details["depth"] = depth
    else:
        output = _reading(walk, call)
        give(weight, 0 if transposed else 1, "consumer", source)
        give(mask, 0, "mask", source)
        give(weight, 1 if transposed else 0, "producer", output)
    give(bias, 0, "bias", output)
    return log(walk, kind, call, source, output, **details)


def _reading(walk: Walk, call: Call) -> Activation:
    """What a layer returns that reads all channels of its source: those of a new group."""
    if not call.source.vanishes:
        call.source.fix()
    made = call.output.shape[1]
    return Activation(call.output, (Segment(walk.start(call.name, made), made),))


def _grouped(walk: Walk, call: Call, groups: int, depth: int) -> Activation:
    """What a convolution with groups returns: channels that go with those, `depth` for each group, that it reads."""
    made = call.output.shape[1]
    if bundle(call.source, depth):
        return Activation(call.output, call.source.scaled(made // groups, depth))
    return Activation(call.output, (Segment(walk.start(call.name, made, fixed=True), made),))


def linear(walk: Walk, call: Call) -> Activation:
    """A linear layer: reads features and starts a group."""
    source, layer = call.source, call.layer("weight", "bias", bias=None)
    call.expect(source.tensor.ndim == 2, "flat input of a linear layer")
    weight, bias = claimed(walk, call, layer, "weight", "bias")
    output = _reading(walk, call)
    give(weight, 1, "consumer", source)
    give(weight, 0, "producer", output)
    give(bias, 0, "bias", output)
    return log(walk, "linear", call, source, output, bias=bias is not None)


def batch_norm(walk: Walk, call: Call) -> Activation:
    """Scales and shifts each channel; without weight and bias a removed channel would be -mean / std."""
    names = ("running_mean", "running_var", "weight", "bias")
    return _normalised(walk, call, call.layer(*names, **dict.fromkeys(names)), "batch_norm", False)


def instance_norm(walk: Walk, call: Call) -> Activation:
    """Normalises each channel by its own map; zeros stay zeros, unless running statistics are taken."""
    names = ("running_mean", "running_var", "weight", "bias")
    layer = call.layer(*names, **dict.fromkeys(names))
    return _normalised(walk, call, layer, "norm", call.source.vanishes and layer.running_mean is None)


def group_norm(walk: Walk, call: Call) -> Activation:
    """Normalises groups of channels together, so whole groups go."""
    layer = call.layer("num_groups", "weight", "bias", weight=None, bias=None)
    if call.module is None:
        call.source.fix()  # the number of groups stands in the code, where nothing changes it
    bundle(call.source, call.source.tensor.shape[1] // layer.num_groups)
    return _normalised(walk, call, layer, "norm", call.source.vanishes)


def _normalised(walk: Walk, call: Call, layer: Any, kind: Kind, vanishes: bool) -> Activation:
    """vanishes: whether a removed channel is zero behind it where there are no weight and bias."""
    source = call.source
    weight, bias, *statistics = claimed(walk, call, layer, *NORM_TENSORS)
    if call.module is not None and kind == "norm" and weight is None and bias is None:
        walk.claim(Constant(f"{call.name}.size", source.tensor))  # of its own, since no tensor tells it
    for name in (weight, bias, *statistics):
        give(name, 0, "norm", source)
    affine = weight is not None and bias is not None
    if kind == "batch_norm" and affine:
        return log_alike(walk, kind, call, vanishes=True, bias=True)
    scales = source.scaled((weight is not None) + (bias is not None))
    kind = "activation" if kind == "batch_norm" else kind
    return log_alike(walk, kind, call, vanishes=affine or vanishes, scales=scales)


def layer_norm(walk: Walk, call: Call) -> Activation:
    """Its statistics run over all channels, so these stay."""
    source = call.source
    layer = call.layer("normalized_shape", "weight", "bias", weight=None, bias=None)
    tensors = [call.tensor(layer, name) for name in ("weight", "bias")]
    source.fix()
    entries = sum(tensor.tensor.numel() for tensor in tensors if tensor is not None)
    scales = fixed_entries(entries)
    return log_alike(walk, "norm", call, vanishes=False, scales=scales)

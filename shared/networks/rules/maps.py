"""Rules of pooling, resizing, other shapes and concatenation: they treat each channel alone, or can not be followed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from shared.networks import forms
from shared.networks.calls import Call, Extent, among
from shared.networks.groups import Activation, bundle, unite
from shared.networks.operations import Kind
from shared.networks.rules.rule import Walk, log, opaque


def _resized(walk: Walk, kind: Kind, call: Call, **details: Any) -> Activation:
    source, tensor = call.source, call.output
    return log(walk, kind, call, source, replace(source, tensor=tensor), **details)


def _pooled(walk: Walk, kind: Kind, call: Call, layer: Any) -> Activation:
    size = Activation(call.output, ()).size
    return _resized(walk, kind, call, **forms.of_pooling(layer, call.source.size, size))


def max_pool(walk: Walk, call: Call) -> Activation:
    """The largest value under a kernel."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    return _pooled(walk, "max_pool", call, _kernel(call, names))


def avg_pool(walk: Walk, call: Call) -> Activation:
    """The mean under a kernel."""
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    return _pooled(walk, "avg_pool", call, _kernel(call, names))


def adaptive_max_pool(walk: Walk, call: Call) -> Activation:
    """The largest values of a grid of areas."""
    return _pooled(walk, "max_pool", call, None)


def adaptive_avg_pool(walk: Walk, call: Call) -> Activation:
    """The means of a grid of areas."""
    return _pooled(walk, "avg_pool", call, None)


def _kernel(call: Call, names: tuple[str, ...]) -> Any:
    if call.module is not None:
        return call.module
    arguments = {"padding": 0, "dilation": 1, "ceil_mode": False, **call.named("input", *names)}
    if arguments.get("stride") in (None, (), []):
        arguments["stride"] = arguments["kernel_size"]
    return SimpleNamespace(**arguments)


def mean(walk: Walk, call: Call) -> Activation:
    """A mean over sides of the map; over channels it depends on how many there are, so they stay."""
    return _over_map(walk, "avg_pool", call)


def amax(walk: Walk, call: Call) -> Activation:
    """The largest value along sides of the map; over channels as a mean."""
    return _over_map(walk, "max_pool", call)


def _over_map(walk: Walk, kind: Kind, call: Call) -> Activation:
    dims = call.option("dim", 1)
    dims = [dims] if isinstance(dims, int) else dims
    rank = call.source.tensor.ndim
    call.expect(isinstance(dims, list | tuple) and 0 not in {dim % rank for dim in dims}, "a mean over sides of a map")
    if min(dim % rank for dim in dims) == 1:
        return opaque(walk, call)
    return _pooled(walk, kind, call, None)


def upsample(walk: Walk, call: Call) -> Activation:
    """A larger or smaller map."""
    options = {**{str(index): value for index, value in enumerate(call.args)}, **call.kwargs}
    form = forms.of_upsampling(call.module, options, call.source.size, Activation(call.output, ()).size)
    return _resized(walk, "upsample", call, **form)


def pad(walk: Walk, call: Call) -> Activation:
    """More pixels around the map; more channels can't be followed."""
    if call.output.shape[1] != call.source.tensor.shape[1]:
        return opaque(walk, call)
    value = getattr(call.module, "value", 0) if call.module is not None else call.option("value", 3)
    output = _resized(walk, "copy", call)
    return output if not value else Activation(output.tensor, output.segments, vanishes=False)


def flip(walk: Walk, call: Call) -> Activation:
    """A flip of the image's rows and columns: silent, since preparing an image is not the network's cost."""
    dims = call.option("dims", 1)
    sides = {dim % 4 for dim in dims} if isinstance(dims, list | tuple) else set()
    of_image = all(segment.group.order == 0 for segment in call.source.segments)
    call.expect(of_image and bool(sides) and sides <= {2, 3}, "a flip of the image's [2, 3] alone")
    return call.source


def reshape(walk: Walk, call: Call) -> Activation:
    """A flatten, or another shape of the map; whatever mixes channels otherwise can't be followed.

    A number of features that stands in the code holds for the dense network alone, so these channels stay.
    """
    source, tensor = call.source, call.output
    before, after = tuple(source.tensor.shape), tuple(tensor.shape)
    if after[:1] != before[:1] or len(after) < 2:
        return opaque(walk, call)
    if after[:2] != before[:2] and after != (before[0], math.prod(before[1:])):
        return opaque(walk, call)
    of_code = call.node.target in ("view", "reshape", torch.reshape) and not _follows(call)
    squeezed = call.option("dim", 1) if call.node.target in ("squeeze", torch.squeeze) else ()
    # such a squeeze would also remove a single channel that is left
    if of_code or squeezed is None or 1 in {dim % len(before) for dim in _listed(squeezed)}:
        source.fix()
    return Activation(tensor, source.scaled(after[1], before[1]), source.vanishes)


def _follows(call: Call) -> bool:
    """Whether the new number of features is left open, or made of numbers of channels."""
    sizes = call.option("size", 1, call.kwargs.get("shape"))
    sizes = call.args[1:] if isinstance(sizes, int) else sizes
    for extent in among(Extent, sizes):
        if extent.origin.segments != call.source.segments:  # of other channels
            extent.origin.fix()
            return False
    return isinstance(sizes, list | tuple) and (sizes[1] == -1 or isinstance(sizes[1], Extent))


def _listed(value: Any) -> Sequence[int]:
    return (value,) if isinstance(value, int) else value


def permute(walk: Walk, call: Call) -> Activation:
    """Another order of dimensions; channels can be followed where they stay the second."""
    source, tensor = call.source, call.output
    rank = source.tensor.ndim
    if call.node.target in ("transpose", torch.transpose):
        moved = {call.option("dim0", 1) % rank, call.option("dim1", 2) % rank}
    else:
        dims = call.option("dims", 1)
        order = call.args[1:] if isinstance(dims, int) else dims
        moved = {place for place, dim in enumerate(order) if dim % rank != place}
    if moved & {0, 1}:
        return opaque(walk, call)
    return Activation(tensor, source.segments, source.vanishes)


def contiguous(walk: Walk, call: Call) -> Activation:
    """A copy, where the values do not lie in order yet."""
    if call.source.tensor.is_contiguous():
        return call.source
    return _resized(walk, "copy", call)


def expand(walk: Walk, call: Call) -> Activation:
    """A single channel, such as a grey image's, in place of several, or larger sides of the map.

    A number of channels that stands in the code, or is another tensor's, holds for the dense network alone.
    """
    source, tensor = call.source, call.output
    if tensor.shape[:1] != source.tensor.shape[:1] or (tensor.shape[1] != source.tensor.shape[1] != 1):
        return opaque(walk, call)
    sizes = call.option("size", 1)
    sizes = call.args[1:] if isinstance(sizes, int) else sizes
    if isinstance(sizes, Activation) or (sizes[1] != -1 and source.tensor.shape[1] != 1):
        for operand in call.operands:
            operand.fix()
    return Activation(tensor, source.scaled(tensor.shape[1], source.tensor.shape[1]), source.vanishes)


def pixel_shuffle(walk: Walk, call: Call) -> Activation:
    """Channels side by side become pixels: as many go together as make one."""
    source, tensor = call.source, call.output
    factor = call.module.upscale_factor if call.module is not None else call.option("upscale_factor", 1)
    if not bundle(source, factor**2):
        return opaque(walk, call)
    return log(walk, "copy", call, source, Activation(tensor, source.scaled(1, factor**2), source.vanishes))


def getitem(walk: Walk, call: Call) -> Any:
    """An entry of a tuple, or a part of the map; a part of the channels can't be followed."""
    sequence, index = call.args
    if not isinstance(sequence, Activation):
        return sequence[index]
    whole = slice(None)
    parts = index if isinstance(index, tuple) else (index,)
    if parts[:2] != (whole, whole) or not all(isinstance(part, int | slice) for part in parts):
        return opaque(walk, call)
    return Activation(call.output, sequence.segments, sequence.vanishes)


def attribute(walk: Walk, call: Call) -> Any:
    """The shape of an activation, or another attribute that is no tensor."""
    if call.args[1] == "shape":
        return _sizes(call.source)
    return opaque(walk, call) if isinstance(call.output, Tensor) else call.output


def size(walk: Walk, call: Call) -> Any:
    """All sizes of an activation, or one."""
    sizes, dim = _sizes(call.source), call.option("dim", 1)
    return sizes if dim is None else sizes[dim]


def _sizes(activation: Activation) -> tuple[int, ...]:
    return tuple(Extent(side, activation) if dim == 1 else side for dim, side in enumerate(activation.tensor.shape))


def numel(walk: Walk, call: Call) -> int:
    """The number of values."""
    return Extent(call.source.tensor.numel(), call.source)


def number(walk: Walk, call: Call) -> Any:
    """Anything about a tensor that is no tensor."""
    return call.output


def cat(walk: Walk, call: Call) -> Activation:
    """Lines the channels of its operands up; along another dimension they go together."""
    tensors = call.option("tensors", 0)
    if not all(isinstance(one, Activation) for one in tensors):
        return opaque(walk, call)
    tensor, first = call.output, call.source
    vanishes = all(operand.vanishes for operand in call.operands)
    if tensor.shape[1] != sum(operand.tensor.shape[1] for operand in call.operands):
        call.expect(tensor.shape[0] == first.tensor.shape[0], "concatenation along channels or sides")
        unite(call.operands)
        return log(walk, "copy", call, first, Activation(tensor, first.segments, vanishes))
    segments = tuple(segment for operand in call.operands for segment in operand.segments)
    return log(walk, "cat", call, replace(first, segments=segments), Activation(tensor, segments, vanishes))

"""What a list of operations leaves open and a board must know to run it: which tensors each reads, and paddings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from shared.errors import BadInput
from shared.networks.operations import Channels, Operation

LARGEST_DILATION = 64
_ELEMENTWISE = ("batch_norm", "relu", "add")


@dataclass(frozen=True)
class _Value:
    """A tensor of the forward pass: the image (number 0) or what operation number - 1 gives."""

    number: int
    channels: Channels
    size: tuple[int, int]
    run: int  # number of the first value of the run of elementwise operations that made it

    def serves(self, channels: Channels, size: tuple[int, int]) -> bool:
        """Whether it can be read as these channels at this size, flattened where that is what it takes."""
        if self.size == size:
            return self.channels == channels
        area = self.size[0] * self.size[1]
        flat = Channels(self.channels.position, self.channels.count, self.channels.repeat * area)
        return size == (1, 1) and flat == channels


@lru_cache(maxsize=32)
def wired(operations: tuple[Operation, ...]) -> list[dict[str, Any]]:
    """The operations as JSON types, each with its sources (0 the image, i what operation i - 1 gives) and paddings.

    An operation reads the latest tensor that has its channels, as symbols, and its size; the second operand of an
    addition is the latest from before the last layer with weights. Where that leaves a choice, shapes are equal, and
    so is what the operation costs. Paddings and dilation are the smallest with which the sizes come out: a dilated
    convolution that keeps its size runs undilated, at the same multiply-adds.

    Raises BadInput where no tensor fits or no padding gives the sizes.
    """
    first = operations[0]
    values = [_Value(0, first.inputs, first.input_size, run=0)]
    unread: set[int] = {0}
    result = []
    for number, operation in enumerate(operations, 1):
        sources = _sources(operation, values, unread)
        unread -= set(sources)
        unread.add(number)
        run = values[sources[0]].run if operation.kind in _ELEMENTWISE else number
        values.append(_Value(number, operation.outputs, operation.output_size, run))
        result.append(
            {
                "name": operation.name,
                "kind": operation.kind,
                "sources": sources,
                "inputs": _plain(operation.inputs),
                "outputs": _plain(operation.outputs),
                "output_size": list(operation.output_size),
                "kernel": list(operation.kernel),
                "stride": list(operation.stride),
                "bias": operation.bias,
                **_geometry(operation),
            }
        )
    return result


def _plain(channels: Channels) -> list[int | None]:
    return [channels.position, channels.count, channels.repeat]


def _sources(operation: Operation, values: list[_Value], unread: set[int]) -> list[int]:
    """Numbers of the tensors that the operation reads, in the order of its operands."""
    if operation.kind == "cat":
        return _parts(operation, values, unread)
    fitting = [value for value in values if value.serves(operation.inputs, operation.input_size)]
    if not fitting:
        what = f"{operation.inputs} of {operation.input_size} pixels"
        raise BadInput(f"a tensor that '{operation.name}' can read", f"none with {what}", "a network without branches")
    latest = fitting[-1]
    if operation.kind != "add":
        return [latest.number]
    others = [value for value in fitting if value.number < latest.run] or [latest]
    return [others[-1].number, latest.number]


def _parts(operation: Operation, values: list[_Value], unread: set[int]) -> list[int]:
    """The tensors that a concatenation joins: the latest unread ones, then at most one that others read as well."""
    left, parts = operation.inputs.count, []
    same_size = [value for value in reversed(values) if value.size == operation.input_size]
    for value in same_size:
        if value.number in unread and value.channels.count <= left:
            parts.append(value.number)
            left -= value.channels.count
    others = [value.number for value in same_size if value.number not in parts and value.channels.count == left]
    if left:
        if not others:
            raise BadInput(f"tensors that '{operation.name}' can join", f"{left} channels too few", "fewer branches")
        parts.append(others[0])
    return sorted(parts)


def _geometry(operation: Operation) -> dict[str, Any]:
    """Paddings and dilation per side; padding None for a pooling that adapts to its output size."""
    sides = [
        _side(operation, *side)
        for side in zip(operation.input_size, operation.output_size, operation.kernel, operation.stride, strict=True)
    ]
    if None in sides:
        if operation.kind in ("max_pool", "avg_pool"):
            return {"padding": None, "dilation": [1, 1], "output_padding": [0, 0]}
        sizes = f"{operation.input_size} to {operation.output_size} pixels"
        raise BadInput(f"sizes that '{operation.name}' can have", sizes, "another padding in the network")
    padding, dilation, extra = (list(part) for part in zip(*sides, strict=True))
    return {"padding": padding, "dilation": dilation, "output_padding": extra}


def _side(operation: Operation, size: int, out: int, kernel: int, stride: int) -> tuple[int, int, int] | None:
    """(padding, dilation, output padding) of one side; None when there is none."""
    match operation.kind:
        case "conv" | "depthwise":
            choices = itertools.product(range(1, LARGEST_DILATION + 1), range(kernel))
        case "transposed_conv":
            extras = ((padding, out - ((size - 1) * stride - 2 * padding + kernel)) for padding in range(kernel))
            return next(((padding, 1, extra) for padding, extra in extras if 0 <= extra < stride), None)
        case "max_pool" | "avg_pool" if stride == 0 or (out == 1 and operation.kind == "avg_pool"):
            return None  # networks write it as an adaptive pooling or a mean
        case "max_pool" | "avg_pool":
            choices = itertools.product((1,), range(kernel // 2 + 1))
        case _:
            return 0, 1, 0
    for dilation, padding in choices:
        room = size + 2 * padding - dilation * (kernel - 1) - 1
        if room >= 0 and room // stride + 1 == out:
            return padding, dilation, 0
    return None

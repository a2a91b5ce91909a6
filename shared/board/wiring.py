"""Finds which tensors each operation of a list reads. The list has shapes alone, and a board must know to run it.

Example: of conv, batch_norm, relu, conv, add, the addition reads the outputs of the second conv and of the relu.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from shared.errors import BadInput
from shared.networks.operations import Channels, Operation

_ELEMENTWISE = ("batch_norm", "relu", "add")
_LAYERS = ("conv", "depthwise", "transposed_conv", "linear")
_KINDS = (*_ELEMENTWISE, *_LAYERS, "max_pool", "avg_pool", "cat", "upsample")  # that the runner executes
_SIDES = ("output_size", "kernel", "stride", "padding", "dilation", "output_padding")  # pairs of height and width


@dataclass(frozen=True)
class _Value:
    """A tensor of the forward pass: the image (number 0) or the output of operation number - 1."""

    number: int
    channels: Channels
    size: tuple[int, int]
    run: int  # number of the first tensor in its chain of elementwise operations

    def serves(self, channels: Channels, size: tuple[int, int]) -> bool:
        """Whether an operation with these input channels and size can read it, directly or flattened."""
        if self.size == size:
            return self.channels == channels
        area = self.size[0] * self.size[1]
        flat = Channels.of(replace(part, repeat=part.repeat * area) for part in self.channels.parts)
        return size == (1, 1) and flat == channels


@lru_cache(maxsize=32)
def wired(operations: tuple[Operation, ...]) -> list[dict[str, Any]]:
    """The operations as JSON values, each with its sources: 0 is the image, i the output of operation i - 1.

    An operation reads the latest tensor that has its symbolic channels and its size. An addition also reads the latest
    such tensor from before the last layer with weights. Where several tensors fit, their shapes are equal, and so is
    the cost of the operation.

    Raises BadInput where no tensor fits, for variants that the list can't describe, and for output sizes that do not
    follow from kernel, stride, padding and dilation.
    """
    first = operations[0]
    values = [_Value(0, first.inputs, first.input_size, run=0)]
    unread: set[int] = {0}
    result = []
    for number, operation in enumerate(operations, 1):
        _check(operation)
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
                "inputs": _listed(operation.inputs),
                "outputs": _listed(operation.outputs),
                **{side: list(getattr(operation, side)) for side in _SIDES},
                "variant": operation.variant,
                "bias": operation.bias,
            }
        )
    return result


def _listed(channels: Channels) -> list[int | None]:
    return [number for part in channels.parts for number in (part.position, part.count, part.repeat)]


def _sources(operation: Operation, values: list[_Value], unread: set[int]) -> list[int]:
    """Numbers of the tensors that the operation reads, in operand order."""
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
    """The tensors that a concatenation joins: the latest unread ones, then at most one that others read, too."""
    missing, parts = _tally(operation.inputs), []
    same_size = [value for value in reversed(values) if value.size == operation.input_size]
    for value in same_size:
        if value.number in unread and _tally(value.channels) <= missing:
            parts.append(value.number)
            missing -= _tally(value.channels)
    if missing:
        fitting = [value.number for value in same_size if _tally(value.channels) == missing]
        others = [number for number in fitting if number not in parts] or fitting  # or one of them twice
        if not others:
            got = f"{sum(missing.values())} channels too few"
            raise BadInput(f"tensors that '{operation.name}' can join", got, "fewer branches")
        parts.append(others[0])
    return sorted(parts)


def _tally(channels: Channels) -> Counter[int | None]:
    """How many features each position sets, per channel, and how many never change, the image's among them."""
    counts = Counter[int | None]()
    for part in channels.parts:
        changes = part.position not in (None, 0)
        counts[part.position if changes else None] += part.repeat * (1 if changes else part.count)
    return counts


def _check(operation: Operation) -> None:
    """Raise BadInput unless the list describes the layer completely and its output size is right."""
    if operation.kind not in _KINDS:
        what = f"an operation that a board's runner executes, at '{operation.name}'"
        raise BadInput(what, operation.kind, "another network")
    if operation.variant == "other":
        got = f"another {operation.kind}"
        raise BadInput(f"padding, rounding and mode of '{operation.name}' as a list has them", got, "torch's defaults")
    windowed = operation.kind in ("conv", "depthwise", "transposed_conv", "max_pool", "avg_pool")
    if windowed and operation.variant == "plain" and _size(operation) != operation.output_size:
        sizes = f"{operation.input_size} to {operation.output_size} pixels"
        raise BadInput(f"the output size of '{operation.name}' by its kernel", sizes, "the operations of structure()")


def _size(operation: Operation) -> tuple[int, int]:
    """Output size of a layer with a kernel, by the formulas in torch's documentation."""

    def side(axis: int) -> int:
        size, stride, padding = operation.input_size[axis], operation.stride[axis], operation.padding[axis]
        reach = operation.dilation[axis] * (operation.kernel[axis] - 1) + 1
        if operation.kind == "transposed_conv":
            return (size - 1) * stride - 2 * padding + reach + operation.output_padding[axis]
        return (size + 2 * padding - reach) // stride + 1

    return side(0), side(1)

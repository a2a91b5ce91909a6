"""The operations of a forward pass, one `Operation` per kernel launch: what platforms know of a network.

Channel counts are symbolic (`Channels`): they name the positions that set them, so one list of operations serves
thousands of width vectors at once. Positions are the image channels, the widths of the units and the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal[
    "conv",
    "depthwise",
    "transposed_conv",
    "linear",
    "batch_norm",
    "relu",
    "max_pool",
    "avg_pool",
    "add",
    "cat",
    "upsample",
    "grouped_conv",  # each filter reads `depth` channels; a depthwise convolution is the one with a depth of 1
    "grouped_transposed_conv",
    "activation",  # any function of single values but ReLU: its traffic is the same
    "norm",  # by statistics of the map itself: group, layer and instance norm
    "broadcast",  # a sum or product with one value per channel, as squeeze-and-excite scales its map
    "copy",  # values moved or padded
]
CONVOLUTIONS = ("conv", "transposed_conv", "depthwise", "grouped_conv", "grouped_transposed_conv")
TRANSPOSED = ("transposed_conv", "grouped_transposed_conv")
GROUPED = ("depthwise", "grouped_conv", "grouped_transposed_conv")
# Refines a kind. plain: ReLU, pooling by a kernel, nearest neighbours. aligned: bilinear with align_corners.
# other: what the fields of Operation can't express, such as sizes rounded up; it is priced, but no runner executes it.
Variant = Literal["plain", "relu6", "adaptive", "bilinear", "aligned", "other"]


@dataclass(frozen=True)
class Channels:
    """A number of features: `positions[:, position] * repeat`, or `count * repeat` where no position sets it.

    Behind a concatenation it is a sum: this part, and `others`.
    """

    position: int | None  # index into the positions; None where the number of channels never changes
    count: int  # channels of the dense network
    repeat: int = 1  # features per channel: height * width after a flatten
    others: tuple[Channels, ...] = ()  # further parts, of other positions; each without others of its own

    @classmethod
    def of(cls, parts: Iterable[Channels]) -> Channels:
        """The sum of parts; those of one position, or of none, become one."""
        sums: dict[tuple[int | None, int], Channels] = {}
        for part in parts:
            key = (part.position, 0 if part.position is None else part.count)
            if (same := sums.get(key)) is None:
                sums[key] = part
            elif part.position is not None:
                sums[key] = cls(part.position, part.count, same.repeat + part.repeat)
            elif part.repeat == same.repeat:
                sums[key] = cls(None, same.count + part.count, part.repeat)
            else:
                sums[key] = cls(None, same.count * same.repeat + part.count * part.repeat)
        first, *others = sums.values()
        return cls(first.position, first.count, first.repeat, tuple(others))

    @property
    def parts(self) -> tuple[Channels, ...]:
        """The parts of the sum, none with others of its own."""
        return (Channels(self.position, self.count, self.repeat), *self.others)

    @property
    def dense(self) -> int:
        """The number of features of the dense network."""
        return sum(part.count * part.repeat for part in self.parts)

    def at(self, positions: ArrayLike) -> NDArray[np.float64]:
        """The number of features at each row of positions (n, p) or (p,): float64 (n,) or ()."""
        rows = np.asarray(positions, dtype=np.float64)
        if self.position is None:
            own = np.full(rows.shape[:-1], float(self.count * self.repeat))
        else:
            own = np.asarray(rows[..., self.position] * self.repeat)
        return sum((other.at(rows) for other in self.others), own)


@dataclass(frozen=True)
class Operation:
    """One operation of a forward pass in inference; all pairs are (height, width) in pixels.

    Dropout, flatten and identity launch nothing in inference and are not listed. A mean over the map is an adaptive
    avg_pool.
    """

    name: str  # of the module, or of the node in the traced graph
    kind: Kind
    inputs: Channels  # of each operand of an add; of all operands of a cat together
    outputs: Channels
    input_size: tuple[int, int]  # (1, 1) for linear layers
    output_size: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)  # of adaptive poolings: what it comes to at this input size, and so the stride
    stride: tuple[int, int] = (1, 1)
    bias: bool = False
    module: str | None = None  # prefix of its parameters in the state dict; None without parameters
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    output_padding: tuple[int, int] = (0, 0)  # of transposed convolutions
    variant: Variant = "plain"
    depth: int = 1  # channels that each filter of a grouped convolution reads
    scales: Channels | None = None  # trainable parameters beside weights and bias, where not those of a batch norm

    def macs(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Multiply-adds per image at each row of positions (n, p): convolutions and linear layers, 0 for all else."""
        # A transposed convolution multiplies every input pixel with every tap; the others work per output pixel.
        pixels = math.prod(self.input_size if self.kind in TRANSPOSED else self.output_size)
        return pixels * self._weights(positions)

    def parameters(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Trainable parameters at each row of positions (n, p)."""
        outputs = self.outputs.at(positions)
        scales = 0.0 if self.scales is None else self.scales.at(positions)
        return self._weights(positions) + (self.kind == "batch_norm") * outputs + self.bias * outputs + scales

    def _weights(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Number of entries of the convolution's or linear layer's weight tensor."""
        taps, outputs = math.prod(self.kernel), self.outputs.at(positions)
        if self.kind in ("conv", "transposed_conv", "linear"):
            return taps * self.inputs.at(positions) * outputs
        return taps * self.depth * outputs if self.kind in GROUPED else 0.0 * outputs


def fields_of(operation: Operation) -> dict[str, Any]:
    """All fields as JSON types, without those that are at their defaults in networks of plain layers.

    Keys that were made before these fields existed stay as they are.
    """
    fields = asdict(operation)
    for side in ("inputs", "outputs"):
        if not fields[side]["others"]:
            del fields[side]["others"]
    for name, default in (("depth", 1), ("scales", None)):
        if fields[name] == default:
            del fields[name]
    return fields


def priced(operation: Operation) -> dict[str, Any]:
    """The fields that decide an operation's price on simulated platforms, as JSON types.

    They are all but paddings, dilation and variant: with equal sizes, kernel and stride, those change neither the
    multiply-adds nor the bytes that the simulator counts. The keys of profiles, tables, dense weights and noise hash
    these fields alone, so that a new field of Operation invalidates none of them. On hardware every field may matter.
    """
    unpriced = ("padding", "dilation", "output_padding", "variant")
    return {name: value for name, value in fields_of(operation).items() if name not in unpriced}

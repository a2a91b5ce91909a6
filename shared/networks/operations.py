"""The operations of a forward pass, one `Operation` per kernel launch: what platforms know of a network.

Channel counts are symbolic (`Channels`): they name the position that sets them, so one list of operations serves
thousands of width vectors at once. Positions are the image channels, the widths of the units and the outputs.
"""

from __future__ import annotations

import math
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
]
# Refines a kind. plain: ReLU, pooling by a kernel, nearest neighbours. aligned: bilinear with align_corners.
# other: what the fields of Operation can't express, such as sizes rounded up; it is priced, but no runner executes it.
Variant = Literal["plain", "relu6", "adaptive", "bilinear", "aligned", "other"]


@dataclass(frozen=True)
class Channels:
    """A number of features: `positions[:, position] * repeat`, or `count * repeat` where no position sets it."""

    position: int | None  # index into the positions; None where the number of channels never changes
    count: int  # channels of the dense network
    repeat: int = 1  # features per channel: height * width after a flatten

    def at(self, positions: ArrayLike) -> NDArray[np.float64]:
        """The number of features at each row of positions (n, p) or (p,): float64 (n,) or ()."""
        rows = np.asarray(positions, dtype=np.float64)
        if self.position is None:
            return np.full(rows.shape[:-1], float(self.count * self.repeat))
        return np.asarray(rows[..., self.position] * self.repeat)


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

    def macs(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Multiply-adds per image at each row of positions (n, p): convolutions and linear layers, 0 for all else."""
        # A transposed convolution multiplies every input pixel with every tap; the others work per output pixel.
        pixels = math.prod(self.input_size if self.kind == "transposed_conv" else self.output_size)
        return pixels * self._weights(positions)

    def parameters(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Trainable parameters at each row of positions (n, p)."""
        outputs = self.outputs.at(positions)
        return self._weights(positions) + (self.kind == "batch_norm") * outputs + self.bias * outputs

    def _weights(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Number of entries of the convolution's or linear layer's weight tensor."""
        taps, outputs = math.prod(self.kernel), self.outputs.at(positions)
        if self.kind in ("conv", "transposed_conv", "linear"):
            return taps * self.inputs.at(positions) * outputs
        return taps * outputs if self.kind == "depthwise" else 0.0 * outputs


def priced(operation: Operation) -> dict[str, Any]:
    """The fields that decide an operation's price on simulated platforms, as JSON types.

    They are all but paddings, dilation and variant: with equal sizes, kernel and stride, those change neither the
    multiply-adds nor the bytes that the simulator counts. The keys of profiles, tables, dense weights and noise hash
    these fields alone, so that a new field of Operation invalidates none of them. On hardware every field may matter.
    """
    unpriced = ("padding", "dilation", "output_padding", "variant")
    return {name: value for name, value in asdict(operation).items() if name not in unpriced}

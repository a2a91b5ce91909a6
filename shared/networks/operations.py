"""What a forward pass launches, one `Operation` each: the common language of networks and platforms.

Channel counts are symbolic (`Channels`): they name the position that sets them, so one list of operations serves
thousands of width vectors at once. Positions are the image channels, the widths of the units, the outputs.
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
# What a kind leaves open. plain: ReLU, a pooling by its kernel, nearest neighbours. aligned: bilinear between corners.
# other: something that these fields can't say, such as rounding sizes up; it has a price, but no list can run it.
Variant = Literal["plain", "relu6", "adaptive", "bilinear", "aligned", "other"]


@dataclass(frozen=True)
class Channels:
    """A number of channels: `positions[:, position] * repeat`, or `count * repeat` when no position sets it.

    position: index into the positions, None when the count never changes. count: the dense count.
    repeat: features per channel (height * width after a flatten, else 1).
    """

    position: int | None
    count: int
    repeat: int = 1

    def at(self, positions: ArrayLike) -> NDArray[np.float64]:
        """The number at each row of positions (n, p) or (p,); returns float64 (n,) or ()."""
        rows = np.asarray(positions, dtype=np.float64)
        if self.position is None:
            return np.full(rows.shape[:-1], float(self.count * self.repeat))
        return np.asarray(rows[..., self.position] * self.repeat)


@dataclass(frozen=True)
class Operation:
    """One operation of an inference forward pass; sizes are (height, width) in pixels, (1, 1) for linear layers.

    Dropout, flatten and identity launch nothing at inference and are not listed. A mean over the map is an adaptive
    avg_pool; kernel and stride of adaptive poolings are what they come to at this input. Both operands of an add have
    the channels `inputs`; for a cat, `inputs` is the sum of its operands, which is `outputs`.
    """

    name: str
    kind: Kind
    inputs: Channels
    outputs: Channels
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    bias: bool = False
    module: str | None = None  # prefix of its parameters in the state dict; None when it has none
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    output_padding: tuple[int, int] = (0, 0)  # of transposed convolutions
    variant: Variant = "plain"

    def macs(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Multiply-adds per image at each row of positions (n, p): convolutions and linear layers, 0 for all else."""
        # a transposed convolution visits every input pixel once per tap, the others every output pixel
        pixels = math.prod(self.input_size if self.kind == "transposed_conv" else self.output_size)
        return pixels * self._weights(positions)

    def parameters(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Trainable parameters at each row of positions (n, p)."""
        outputs = self.outputs.at(positions)
        return self._weights(positions) + (self.kind == "batch_norm") * outputs + self.bias * outputs

    def _weights(self, positions: ArrayLike) -> NDArray[np.float64]:
        """Entries of the convolution's or linear layer's weight tensor."""
        taps, outputs = math.prod(self.kernel), self.outputs.at(positions)
        if self.kind in ("conv", "transposed_conv", "linear"):
            return taps * self.inputs.at(positions) * outputs
        return taps * outputs if self.kind == "depthwise" else 0.0 * outputs


def priced(operation: Operation) -> dict[str, Any]:
    """The fields that simulated platforms price, as JSON types: all but paddings, dilation and variant.

    At the same sizes, kernel and stride those change neither multiply-adds nor the bytes that the simulator counts.
    What is kept by content (profiles, tables, dense weights, the noise of readings) names operations by these fields
    alone, so that it outlives what lists of operations learn to say. Hardware may price all fields.
    """
    unpriced = ("padding", "dilation", "output_padding", "variant")
    return {name: value for name, value in asdict(operation).items() if name not in unpriced}

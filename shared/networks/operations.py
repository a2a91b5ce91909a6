"""What a forward pass launches, one `Operation` each: the common language of networks and platforms.

Channel counts are symbolic (`Channels`): they name the position of the widths vector that sets them, so one list of operations
serves thousands of width vectors at once. Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
class Channels:
    """A number of channels: `positions[:, position] * repeat`, or `count * repeat` when no position sets it.

    position: index into the positions (image channels, widths, outputs), None when the count never changes.
    count: the dense count. repeat: features per channel (height * width after a flatten, else 1).
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
    """One operation of an inference forward pass, in execution order; sizes are (height, width) in pixels.

    Dropout, flatten and identity launch nothing at inference and are not listed. ReLU6 counts as relu. A mean over height and
    width is an avg_pool whose kernel is the whole map. For add and cat, `inputs` is what all operands together are cut
    from: the joined group of an add, the sum of the parts of a cat. Linear layers have sizes (1, 1).
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

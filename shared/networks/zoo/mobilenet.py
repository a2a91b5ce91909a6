"""MobileNet v1 (Howard et al., arXiv 1704.04861), with strides that suit the input.

With ImageNet's strides it computes the same as TensorFlow's, whose weights the ECC paper starts from (imagenet_mbnet of
github.com/hyang1990/energy_constrained_compression), although padding differs. At stride 2 with an even side TensorFlow
pads at the right and at the bottom only, while torch's even padding takes effect at the left and at the top only. If
image and kernels are turned by 180 degrees, the two agree layer by layer, and the mean over the last map is the same
either way. So this network turns the image, all convolutions stay plain, and the kernels of a file of TensorFlow's
weights are turned as it is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shared.errors import BadInput
from shared.networks.zoo import scaled

CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)  # of conv1 and of pairs 1 to 13
# The layers that halve the map in ImageNet's version (0: conv1). A small input takes only the first ones of this list.
STRIDED_LAYERS = (6, 2, 4, 0, 12)
SMALLEST_MAP = 4  # pixels along the shorter side of the last map
# Layers of ECC's published MobileNet by their place in block 0 and in the other blocks; place 0 is padding.
PUBLISHED_STEM = {"1": "conv1", "2": "conv1_norm"}
PUBLISHED_PAIR = {"1": "dw{}", "2": "dw{}_norm", "4": "pw{}", "5": "pw{}_norm"}
BATCH_NORM_EPS = 1e-3
# torch's default. With TensorFlow's 0.001 the running statistics would lag a thousand iterations behind pruning.
BATCH_NORM_MOMENTUM = 0.1


def strides_for(input_size: tuple[int, int]) -> tuple[int, ...]:
    """Stride of conv1 and of the 13 depthwise layers at an input of (height, width).

    The map is halved at most as often as in ImageNet's version and never below SMALLEST_MAP. 224 gives its 5 halvings
    down to 7 pixels; 28 gives 3, at dw2, dw4 and dw6, down to 4. A small input keeps its full resolution in conv1,
    where channels are few, and is halved before the wide layers, which dominate the cost.
    """
    side, halvings = min(input_size), 0
    while halvings < len(STRIDED_LAYERS) and (side + 1) // 2 >= SMALLEST_MAP:
        side, halvings = (side + 1) // 2, halvings + 1
    return tuple(2 if layer in STRIDED_LAYERS[:halvings] else 1 for layer in range(len(CHANNELS)))


class MobileNet(nn.Module):
    """conv1, 13 pairs of a depthwise and a pointwise convolution, average pool, fc.

    The 14 widths are the outputs of conv1 and of the pointwise convolutions pw1 to pw13.
    """

    # 0.25 reaches 92 % on Fashion-MNIST and trains in tens of milliseconds per batch on one CPU thread
    trained_on: ClassVar = {
        "fashion-mnist": {"width_multiplier": 0.25},
        "imagenet": {"strides": "imagenet"},
    }
    published_weights: ClassVar = {
        "imagenet": "imagenet_pretrained_mbnet.pt of hyang1990/energy_constrained_compression"
    }
    scaled_pixels: ClassVar = {"imagenet": (0.5, 0.5)}  # to -1..1, as TensorFlow's weights expect

    def __init__(
        self,
        *,
        num_classes: int = 1001,  # class 0 is the background, as in the published ImageNet weights
        in_channels: int = 3,
        width_multiplier: float = 1.0,
        input_size: tuple[int, int] = (224, 224),
        strides: str = "small",  # or "imagenet", whatever the input's size
    ) -> None:
        if strides not in (found := {"small": strides_for(input_size), "imagenet": strides_for((224, 224))}):
            raise BadInput("strides of mobilenet", repr(strides), " or ".join(found))
        super().__init__()
        widths = [scaled(channels, width_multiplier) for channels in CHANNELS]

        def convolve(name: str, inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
            conv = nn.Conv2d(inputs, outputs, bias=False, **options)
            self.add_module(name, conv)
            norm = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
            self.add_module(f"{name}_norm", norm)
            self.add_module(f"{name}_relu", nn.ReLU6(inplace=True))
            return conv

        first, *rest = found[strides]
        self.turned = (first, *rest).count(2) == len(STRIDED_LAYERS)
        convolve("conv1", in_channels, widths[0], kernel_size=3, stride=first, padding=1)
        for pair, stride in enumerate(rest, start=1):
            inputs, outputs = widths[pair - 1], widths[pair]
            depthwise = convolve(f"dw{pair}", inputs, inputs, kernel_size=3, stride=stride, padding=1, groups=inputs)
            depthwise.depthwise = True  # type: ignore[assignment]
            convolve(f"pw{pair}", inputs, outputs, kernel_size=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[-1], num_classes)
        self.input_shape = (in_channels, *input_size)

    def forward(self, images: Tensor) -> Tensor:
        activations = torch.flip(images, (2, 3)) if self.turned else images
        for layer in self.children():
            activations = layer(activations)
        return activations

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of ECC's published MobileNet, which are TensorFlow's, with this network's names and layout.

        Kernels are turned. The background, class 0, is dropped if this network has one output less. Raises BadInput for
        a network with other strides, which would compute another function than the weights were trained for.
        """
        renamed = {_own_name(name): tensor for name, tensor in tensors.items()}
        if renamed.keys() == tensors.keys():
            return renamed
        if not self.turned:
            raise BadInput("the strides that the weights were trained with", self.input_shape, "strides 'imagenet'")
        return {name: self._own(name, tensor) for name, tensor in renamed.items()}

    def _own(self, name: str, published: Tensor) -> Tensor:
        if name.startswith("fc."):
            with_background = published.shape[:1] == (self.fc.out_features + 1,)
            return published[1:] if with_background else published
        return published.flip(2, 3) if published.ndim == 4 else published


def _own_name(published: str) -> str:
    if (parts := re.fullmatch(r"model\.(\d+)\.(\d)\.(\w+)", published)) is None:
        return published
    block, place, tensor = parts.groups()
    layer = (PUBLISHED_STEM if block == "0" else PUBLISHED_PAIR).get(place)
    return published if layer is None else f"{layer.format(block)}.{tensor}"


NETWORK = MobileNet

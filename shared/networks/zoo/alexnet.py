"""AlexNet as in "One weird trick" (Krizhevsky, arXiv 1404.5997), laid out so that torchvision's weights load."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from shared.errors import BadInput
from shared.networks.zoo import scaled

CHANNELS = (64, 192, 384, 256, 256, 4096, 4096)  # conv1 to conv5, fc6, fc7
SMALLEST_INPUT = 63  # pixels; the maps of smaller images vanish before the last pooling
POOLED = 6  # pixels along each side of the map that is flattened: 36 columns of fc6 per channel


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers, all with biases; no batch norm.

    The 7 widths are the outputs of conv1 to conv5, fc6 and fc7.
    """

    trained_on: ClassVar = {"fashion-mnist": {"width_multiplier": 0.25, "input_size": 64}, "imagenet": {}}
    published_weights: ClassVar = {"imagenet": "torchvision's alexnet-owt-7be5be79.pth"}

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width_multiplier: float = 1.0,
        input_size: tuple[int, int] = (224, 224),
    ) -> None:
        if min(input_size) < SMALLEST_INPUT:
            raise BadInput(f"at least {SMALLEST_INPUT} pixels for alexnet", input_size, "mobilenet for small images")
        super().__init__()
        conv1, conv2, conv3, conv4, conv5, fc6, fc7 = (scaled(channels, width_multiplier) for channels in CHANNELS)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, conv1, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(conv1, conv2, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(conv2, conv3, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(conv3, conv4, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(conv4, conv5, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(POOLED)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(conv5 * POOLED * POOLED, fc6),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(fc6, fc7),
            nn.ReLU(inplace=True),
            nn.Linear(fc7, num_classes),
        )
        self.input_shape = (in_channels, *input_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


NETWORK = AlexNet

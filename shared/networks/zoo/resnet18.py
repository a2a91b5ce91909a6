"""ResNet-18 (He et al., arXiv 1512.03385), laid out so that torchvision's weights load."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared.networks.zoo import scaled

STAGES = (64, 128, 256, 512)  # channels, each stage at half the size of the one before; two blocks per stage


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a strided 1x1 convolution where size and channels change."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
            if stride > 1
            else None
        )

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        return self.relu(inner + (maps if self.downsample is None else self.downsample(maps)))


class ResNet18(nn.Module):
    """A strided stem, four stages of two residual blocks, average pool, fc.

    The 12 widths in execution order: of each stage its trunk, which all layers that are added to it share, and the
    inner widths of its two blocks. The first trunk starts in the stem, before its blocks; every other one starts in
    the first block, behind that block's inner width.
    """

    trained_on: ClassVar = {"fashion-mnist": {"width_multiplier": 0.25}, "imagenet": {}}
    published_weights: ClassVar = {"imagenet": "torchvision's resnet18-f37072fd.pth"}

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width_multiplier: float = 1.0,
        input_size: tuple[int, int] = (224, 224),
    ) -> None:
        super().__init__()
        stem, *stages = (scaled(channels, width_multiplier) for channels in STAGES)
        self.conv1 = nn.Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(stem, stem), BasicBlock(stem, stem))
        self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(BasicBlock(before, after, stride=2), BasicBlock(after, after))
            for before, after in pairwise((stem, *stages))
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stages[-1], num_classes)
        self.input_shape = (in_channels, *input_size)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(torch.flatten(self.avgpool(maps), 1))


NETWORK = ResNet18

"""ERFNet for segmentation (Romera et al., IEEE T-ITS 2018), with the module names of the published weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared.errors import BadInput
from shared.networks.zoo import scaled

TRUNK = (16, 64, 128)  # channels at 1/2, 1/4 and 1/8 of the input size
# (trunk index, dilation, dropout) of the 17 blocks, in execution order
ENCODER_64 = ((1, 1, 0.03),) * 5
ENCODER_128 = tuple((2, dilation, 0.3) for dilation in (2, 4, 8, 16, 2, 4, 8, 16))
DECODER_64 = ((1, 1, 0.0),) * 2
DECODER_16 = ((0, 1, 0.0),) * 2
BLOCKS = ENCODER_64 + ENCODER_128 + DECODER_64 + DECODER_16
BATCH_NORM_EPS = 1e-3


class DownsamplerBlock(nn.Module):
    """A strided convolution beside a max-pool, concatenated: half the size, `outputs` channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.relu(self.bn(torch.cat([self.conv(maps), self.pool(maps)], 1)))


class NonBottleneck1d(nn.Module):
    """A residual block of two 3x3 convolutions, each split into 3x1 and 1x3; its three inner widths are prunable."""

    def __init__(self, trunk: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv3x1_1 = nn.Conv2d(trunk, trunk, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(trunk, trunk, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(trunk, eps=BATCH_NORM_EPS)
        self.conv3x1_2 = nn.Conv2d(trunk, trunk, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
        self.conv1x3_2 = nn.Conv2d(trunk, trunk, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        self.bn2 = nn.BatchNorm2d(trunk, eps=BATCH_NORM_EPS)
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1x3_1(self.relu(self.conv3x1_1(maps)))))
        inner = self.dropout(self.bn2(self.conv1x3_2(self.relu(self.conv3x1_2(inner)))))
        return self.relu(inner + maps)


class UpsamplerBlock(nn.Module):
    """A strided transposed convolution: twice the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(maps)))


class Encoder(nn.Module):
    """From the image to `TRUNK[2]` channels at an eighth of its size."""

    def __init__(self, in_channels: int, trunk: tuple[int, ...], blocks: Iterator[nn.Module]) -> None:
        super().__init__()
        self.initial_block = DownsamplerBlock(in_channels, trunk[0])
        self.layers = nn.Sequential(
            DownsamplerBlock(trunk[0], trunk[1]),
            *(next(blocks) for _ in ENCODER_64),
            DownsamplerBlock(trunk[1], trunk[2]),
            *(next(blocks) for _ in ENCODER_128),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(self.initial_block(images))


class Decoder(nn.Module):
    """From an eighth of the image's size back to one score per class and pixel."""

    def __init__(self, num_classes: int, trunk: tuple[int, ...], blocks: Iterator[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            UpsamplerBlock(trunk[2], trunk[1]),
            *(next(blocks) for _ in DECODER_64),
            UpsamplerBlock(trunk[1], trunk[0]),
            *(next(blocks) for _ in DECODER_16),
        )
        self.output_conv = nn.ConvTranspose2d(trunk[0], num_classes, 2, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        return self.output_conv(self.layers(maps))


class ERFNet(nn.Module):
    """Encoder and decoder of 17 residual blocks; the trunk they add to is never pruned.

    The 51 widths are the outputs of conv3x1_1, conv1x3_1 and conv3x1_2 of every block.
    """

    trained_on: ClassVar = {"garment-scenes": {"width_multiplier": 0.25}, "cityscapes": {}}
    published_weights: ClassVar = {"cityscapes": "erfnet_pretrained.pth of Eromera/erfnet_pytorch"}
    keeps_residual_trunk = True

    def __init__(
        self,
        *,
        num_classes: int = 20,  # 19 classes of Cityscapes and "ignore"
        in_channels: int = 3,
        width_multiplier: float = 1.0,
        input_size: tuple[int, int] = (512, 1024),
    ) -> None:
        trunk = tuple(scaled(channels, width_multiplier) for channels in TRUNK)
        if not in_channels < trunk[0] < trunk[1] < trunk[2]:
            raise BadInput("channels that grow along the encoder", (in_channels, *trunk), "a larger width multiplier")
        if input_size[0] % 8 or input_size[1] % 8:
            raise BadInput("sides divisible by 8 for erfnet", input_size, "a padded image")
        super().__init__()
        blocks = iter(NonBottleneck1d(trunk[index], dilation, dropout) for index, dilation, dropout in BLOCKS)
        self.encoder = Encoder(in_channels, trunk, blocks)
        self.decoder = Decoder(num_classes, trunk, blocks)
        self.input_shape = (in_channels, *input_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))

    @staticmethod
    def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The published weights without the head that trained the encoder alone."""
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder.output_conv.")}


NETWORK = ERFNet

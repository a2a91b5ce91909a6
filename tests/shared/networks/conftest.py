"""Small modules of every shape that `structure` follows, and the means to prune them at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torchvision
from torch import Tensor, nn

from shared.networks import Structure, build


class Residual(nn.Module):
    """Two blocks that add to one stem; a mean over the map, then a linear layer."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.first, self.first_norm = nn.Conv2d(8, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.second = nn.Conv2d(5, 8, 1)
        self.third, self.fourth = nn.Conv2d(8, 7, 1, bias=False), nn.Conv2d(7, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        trunk = torch.relu(self.stem_norm(self.stem(images)))
        trunk = self.second(self.first_norm(self.first(trunk)).relu()) + trunk
        trunk = torch.add(trunk, self.fourth(nn.functional.relu(self.third(trunk))))
        return self.head(trunk.mean([2, 3]))


class Hourglass(nn.Module):
    """Transposed convolutions, upsampling, pooling, a depthwise layer with bias, then flattens a 4 x 2 map."""

    input_shape = (2, 8, 4)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU6(),
            nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.ConvTranspose2d(5, 7, 2, stride=2, bias=False),
            nn.Upsample(scale_factor=2),
            nn.AvgPool2d(4),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(7, 9, 1),
            nn.Conv2d(9, 9, 3, padding=1, groups=9),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(9 * 4 * 2, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).flatten(1))


class Joined(nn.Module):
    """A concatenation of two convolutions and the image between them; another layer reads one of them, too."""

    input_shape = (2, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 3, 1)
        self.after, self.aside, self.last = nn.Conv2d(9, 5, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        left = self.left(images)
        joined = torch.cat([left, images, self.right(images)], 1)
        return self.last(self.after(joined) + self.aside(left))


def foreign(model: nn.Module, input_shape: tuple[int, int, int]) -> nn.Module:
    """Somebody else's network: all that it lacks is its input's shape."""
    model.input_shape = input_shape
    return model


SMALL_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet": lambda: build("mobilenet", width_multiplier=0.25, num_classes=5, in_channels=1, input_size=8),
    # with the strides, and so the turned image, of ImageNet
    "turned": lambda: build("mobilenet", width_multiplier=0.25, num_classes=5, in_channels=1, input_size=97),
    "alexnet": lambda: build("alexnet", width_multiplier=1 / 32, num_classes=5, input_size=64),
    "erfnet": lambda: build("erfnet", width_multiplier=0.25, num_classes=4, input_size=(16, 24)),
    "resnet18": lambda: build("resnet18", width_multiplier=0.25, num_classes=5, input_size=24),
    "residual": Residual,
    "hourglass": Hourglass,
    "joined": Joined,
    "mobilenet_v2": lambda: foreign(torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.35), (3, 16, 16)),
}


@pytest.fixture(scope="session")
def small_network() -> Callable[[str], nn.Module]:
    """A small network by name, nothing in it at a special value, dropout off."""

    def make(name: str) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = SMALL_NETWORKS[name]()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                        nn.init.uniform_(tensor, 0.5, 1.5)
                if isinstance(module, nn.Dropout | nn.Dropout2d):
                    module.p = 0.0
        return model

    return make


@pytest.fixture(scope="session")
def random_dead() -> Callable[[Structure, Sequence[int], int], Tensor]:
    """Channels to remove so that `widths` are left: bool (units, largest upper bound)."""

    def draw(structure: Structure, widths: Sequence[int], seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        dead = torch.zeros(len(widths), max(structure.upper_bounds), dtype=torch.bool)
        for row, width, bound in zip(dead, widths, structure.upper_bounds, strict=True):
            row[torch.randperm(bound, generator=generator)[width:]] = True
        return dead

    return draw

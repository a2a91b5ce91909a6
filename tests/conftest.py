"""A task small enough for tests: a toy network, learnable images, a hand-made energy model, a real ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from tests.trees import cityscapes_tree, imagenet_tree  # noqa: F401  # fixtures

settings.register_profile("suite", deadline=None)  # a busy machine is no failure
settings.load_profile("suite")
torch.set_num_threads(1)  # figures must not depend on how many tests run side by side

CLASSES, PIXELS = 4, 16


class ToyNet(nn.Module):
    """Convolution, batch norm, depthwise and pointwise layers, flatten and biases in four units."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (1, PIXELS, PIXELS)
        self.stem = nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, stride=2, padding=1, groups=12, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(12)
        self.pointwise = nn.Conv2d(12, 20, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(20)
        self.conv = nn.Conv2d(20, 16, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(16, 24)
        self.classifier = nn.Linear(24, CLASSES)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem_norm(self.stem(x)))
        x = self.relu(self.depthwise_norm(self.depthwise(x)))
        x = self.relu(self.pointwise_norm(self.pointwise(x)))
        x = torch.flatten(self.pool(self.relu(self.conv(x))), 1)
        return self.classifier(self.relu(self.hidden(x)))


def toy_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy copies of one pattern per class, learnable in a few steps: uint8 (count, 1, 16, 16), int64 (count,)."""
    pattern_draw, draw = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    patterns = torch.rand(CLASSES, 1, 4, 4, generator=pattern_draw).repeat_interleave(4, 2).repeat_interleave(4, 3)
    labels = torch.randint(0, CLASSES, (count,), generator=draw)
    noise = torch.rand(count, 1, PIXELS, PIXELS, generator=draw)
    return ((0.35 * patterns[labels] + 0.65 * noise) * 255).to(torch.uint8), labels


def chain_energy(structure: Any) -> Any:
    """A bilinear model of the chain with 1 J for the dense network: 0.1 J constant, the rest in uneven shares."""
    from shared.energy import BilinearModel

    bounds = structure.position_bounds
    shares = 1.0 + torch.rand(len(bounds) - 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return BilinearModel(
        torch.tensor(0.1, dtype=torch.float64),
        0.9 * shares / shares.sum(),
        tuple((j, j + 1) for j in range(len(bounds) - 1)),
        tuple(float(bound) for bound in bounds),
    )


def zero_savings(structure: Any) -> Any:
    """Zeros of all weights save 0.4 J by products not made and 0.2 J by fetches, each weight alike."""
    from shared.energy import ZeroSavings

    dense = torch.tensor(structure.position_bounds)
    entries = {
        f"{operation.module}.weight": int(operation.parameters(dense) - operation.bias * operation.outputs.at(dense))
        for operation in structure.operations
        if operation.kind in ("conv", "depthwise", "linear")
    }
    total = sum(entries.values())
    shown = {
        f"{operation.module}.weight": operation.input_size[0] * operation.input_size[1]
        for operation in structure.operations
        if operation.module is not None
    }
    products, fetches, inputs = (dict.fromkeys(entries, joules / total) for joules in (0.4, 0.2, 0.0))
    return ZeroSavings(products, fetches, entries, shown, inputs, 4 / 3)


@pytest.fixture(scope="session")
def dense_networks() -> Callable[[str], nn.Module]:
    """Name -> a dense network trained for some steps, made once per session; copy before changing."""
    from shared.networks import build
    from shared.rng import forked

    made: dict[str, nn.Module] = {}

    def train(network: nn.Module) -> nn.Module:
        images, labels = toy_images(512, seed=10)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for start in range(0, 2 * len(labels), 32):
            batch = torch.arange(start, start + 32) % len(labels)
            loss = nn.functional.cross_entropy(network(images[batch] / 127.5 - 1.0), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return network.eval()

    def get(name: str) -> nn.Module:
        if name not in made:
            with forked(0, "tests", 0):
                plain = {"input_size": PIXELS, "in_channels": 1, "num_classes": CLASSES}
                made[name] = train(ToyNet() if name == "toy" else build(name, width_multiplier=0.125, **plain))
        return made[name]

    return get


@pytest.fixture(scope="session")
def tiny_task(dense_networks: Callable[[str], nn.Module]) -> Callable[..., Any]:
    """Factory of small tasks: tiny_task(budget_fraction, iterations, seed, network, zeros, **fields of Protocol).

    `network` is "toy" (four units) or a name of shared.networks ("mobilenet"). The budget is a fraction of Ê(dense),
    which is 1 J. With `zeros` weights that are zero save up to 0.6 J of it.
    """
    from methods.contract import Task
    from shared.data import BatchStream, Split
    from shared.ledger import Ledger
    from shared.networks import structure
    from shared.protocol import Protocol

    plain = Protocol(
        name="tiny",
        iterations=40,
        fine_tune_iterations=10,
        batch_size=16,
        learning_rate=1e-3,
        budgets=(0.5,),
        seeds=(0,),
        search_images=50,
        minimum_short_term_iterations=2,
        episodes=8,
        stages=2,
        recalibration_batches=3,
        profile_samples=200,
        profile_test_samples=40,
        ranks=False,
    )

    def make(
        budget_fraction: float = 0.5,
        iterations: int = 40,
        seed: int = 0,
        network: str = "toy",
        zeros: bool = False,
        **overrides: Any,
    ) -> Task:
        protocol = replace(plain, iterations=iterations, budgets=(budget_fraction,), seeds=(seed,), **overrides)
        dense = dense_networks(network)
        table = structure(dense)
        energy_model = chain_energy(table)
        train, search = (Split(*toy_images(count, draw), mean=0.5, std=0.25) for count, draw in ((256, 11), (100, 12)))

        def teacher(index: int, images: Tensor) -> Tensor:
            with torch.no_grad():
                return dense.eval()(images)

        return Task(
            network=dense,
            structure=table,
            energy_model=energy_model,
            budget=budget_fraction * float(energy_model(table.positions(table.upper_bounds))),
            protocol=protocol,
            seed=seed,
            ledger=Ledger(iterations),
            train=BatchStream(train, seed, protocol.batch_size, shift=1),
            search=search,
            teacher=teacher,
            zeros=zero_savings(table) if zeros else None,
        )

    return make

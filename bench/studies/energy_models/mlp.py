"""A multilayer perceptron on the bilinear model's products, for the study alone; no run uses it.

Yang, Zhu, Liu, CVPR 2019, section 4.2: none to three hidden layers of 128 units with SELU; without one it is the
bilinear model. It is trained as in the authors' published code: by Adam on the mean squared error of all rows at once.
The weight decay is added to the gradient, so Adam rescales it too, and applies to biases as well. A model without
hidden layers starts at zero, the others with torch's initial weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from shared.energy.bilinear import Rows
from shared.errors import BadInput
from shared.rng import forked

HIDDEN = 128
LEARNING_RATE = 1e-3


class MlpModel(nn.Module):
    """E(p) = unit_joules * network((p_i / bound_i) * (p_j / bound_j) for every term (i, j)), in float32.

    depth: number of hidden layers. unit_joules: the joules that the network's output 1 stands for, and the unit of the
    squared error; it decides how strong the weight decay is. Raises BadInput for a depth below 0.
    """

    def __init__(
        self,
        terms: Sequence[tuple[int, int]],
        upper_bounds: Sequence[float],
        *,
        depth: int,
        unit_joules: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if depth < 0:
            raise BadInput("0 or more hidden layers", depth, "0 to 3, as the paper has it")
        self.unit_joules = unit_joules
        self.terms = tuple(terms)
        self.register_buffer("upper_bounds", torch.tensor(upper_bounds, dtype=torch.float64))
        sizes = [len(self.terms), *[HIDDEN] * depth, 1]
        layers: list[nn.Module] = []
        with forked(seed, "mlp", depth):
            for inputs, outputs in itertools.pairwise(sizes):
                layers += [nn.Linear(inputs, outputs), nn.SELU()]
        self.network = nn.Sequential(*layers[:-1])
        if depth == 0:
            for parameter in self.network.parameters():
                nn.init.zeros_(parameter)

    def features(self, positions: Rows) -> Tensor:
        """The products at each row of `positions` (n, p): float32 (n, terms)."""
        bounds = cast(Tensor, self.upper_bounds)
        rows = torch.as_tensor(positions, dtype=torch.float64)
        if rows.ndim != 2 or rows.shape[1] != len(bounds):
            raise BadInput(f"positions of shape (n, {len(bounds)})", tuple(rows.shape), "one column per upper bound")
        first, second = torch.tensor(self.terms).T
        scaled = rows / bounds
        return (scaled[:, first] * scaled[:, second]).float()

    def forward(self, positions: Rows) -> Tensor:
        """Joules at each row of `positions` (n, p): float32 (n,), differentiable by them."""
        return self.unit_joules * self.network(self.features(positions))[:, 0]


def train(
    model: MlpModel,
    positions: Rows,
    joules: Rows,
    *,
    steps: int,
    weight_decay: float,
    watch: Callable[[int], None] = lambda step: None,
) -> None:
    """Fit `model` to `joules` (n,) at `positions` (n, p) by `steps` of Adam on all rows; `watch` gets each step.

    The gradient is that of mean((output - joules / unit_joules)^2) plus weight_decay * parameter.
    """
    features = model.features(positions)
    targets = (torch.as_tensor(joules, dtype=torch.float64) / model.unit_joules).float()[:, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=weight_decay, fused=True)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        nn.functional.mse_loss(model.network(features), targets).backward()
        optimizer.step()
        watch(step)

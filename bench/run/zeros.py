"""Runs whose methods remove single weights, on a platform that saves energy by zeros: how they are read and landed."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.run.landing import CannotLand, read_at
from bench.setup.setup import Setup
from methods import registry
from shared.energy import ZeroSavings
from shared.networks import Structure, structure
from shared.networks.pruning import owned
from shared.platforms import PlatformReading


class Zeros(NamedTuple):
    """The zeros among a network's weights, and what they save per image."""

    joules: float
    weights: int
    multiply_adds: int


def of_method(name: str, setup: Setup) -> ZeroSavings | None:
    """What zeros save for a method that removes weights; None for one that removes channels."""
    return setup.zeros if registry.get(name).granularity == "weights" else None


def found(small: nn.Module, savings: ZeroSavings) -> Zeros:
    """The zeros of a cut network."""
    table = structure(small)
    layers, positions = savings.found(small, table), torch.tensor(table.position_bounds)
    macs = {f"{operation.module}.weight": float(operation.macs(positions)) for operation in table.operations}
    products = sum(
        macs[name] * (1 - int(zeros.kept) / zeros.entries * savings.unmasked(name, zeros))
        for name, zeros in layers.items()
    )
    weights = sum(zeros.entries - int(zeros.kept) for zeros in layers.values())
    return Zeros(savings.of(small, table), weights, round(products))


def less(reading: PlatformReading, joules: float) -> PlatformReading:
    """The reading of a network whose zeros save so much; the platform has read its widths."""
    low, high = reading.interval
    return replace(reading, amount=reading.amount - joules, interval=(low - joules, high - joules))


def land(small: nn.Module, budget: float, setup: Setup) -> tuple[PlatformReading, PlatformReading, int]:
    """Zero further weights, in place, until the network's reading is within the budget.

    The least squared weights per joule go first; all channels stay. Returns the reading before and after, and how many
    weights went. Raises CannotLand when the feature maps alone are above the budget.
    """
    savings, table = setup.zeros, structure(small)
    assert savings is not None, "expected a platform on which zeros save energy"
    bare = read_at(setup, [table.upper_bounds])[0]
    before = less(bare, savings.of(small, table))
    if before.interval[1] <= budget:
        return before, before, 0
    parameters = {name: tensor for name, tensor in small.named_parameters() if name in savings.entries}
    layers = savings.found(small, table)
    prices = torch.cat(
        [
            _prices(name, tensor, savings.price(name, savings.unmasked(name, layers[name])), table)
            for name, tensor in parameters.items()
        ]
    )
    order = prices.argsort(stable=True)
    order = order[torch.isfinite(prices[order])]
    values = torch.cat([tensor.detach().flatten() for tensor in parameters.values()])

    def after(removed: int) -> PlatformReading:
        left = values.clone()
        left[order[:removed]] = 0
        _write(left, parameters)
        return less(bare, savings.of(small, table))

    if (least := after(len(order))).interval[1] > budget:
        raise CannotLand(
            f"read at {before.amount:.6g} {setup.unit} per image, above the budget of {budget:.6g} {setup.unit}, "
            f"and at {least.amount:.6g} {setup.unit} without any weight that may go"
        )
    low, high = 0, len(order)  # `high` removals are enough, `low` are not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if after(middle).interval[1] <= budget else (middle, high)
    return before, after(high), high


def _prices(name: str, tensor: Tensor, joules: float, table: Structure) -> Tensor:
    """Squared weights per joule, flat; infinite for zeros, and for the largest weight that reads each channel.

    That one stays, so that no channel goes.
    """
    squares = tensor.detach().double().square()
    prices = torch.where(squares > 0, squares / joules, torch.inf)
    for unit in table.units:
        for part in unit.slices:
            if part.tensor == name and part.role == "consumer":
                of_unit = owned(prices, part, unit.upper_bound).movedim(part.dim, 0)
                rows = of_unit.reshape(unit.upper_bound, -1)
                largest = torch.where(torch.isfinite(rows), rows, -torch.inf).argmax(1, keepdim=True)
                of_unit.copy_(rows.scatter(1, largest, torch.inf).view(of_unit.shape))
    return prices.flatten()


@torch.no_grad()
def _write(values: Tensor, parameters: dict[str, nn.Parameter]) -> None:
    parts = values.split([parameter.numel() for parameter in parameters.values()])
    for parameter, part in zip(parameters.values(), parts, strict=True):
        parameter.copy_(part.view(parameter.shape))

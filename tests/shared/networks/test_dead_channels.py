"""Channels that zero_channels has removed stay dead, whatever the optimiser, and nothing else is touched."""

from __future__ import annotations

import pytest
import torch

from shared.networks import active_channels, active_widths, structure, zero_channels


def images(model, count=4):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, *model.input_shape, generator=generator)


OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, 1e-2, weight_decay=1e-2),
    "amsgrad": lambda parameters: torch.optim.Adam(parameters, 1e-2, weight_decay=1e-2, amsgrad=True, foreach=True),
    "fused": lambda parameters: torch.optim.Adam(parameters, 1e-2, weight_decay=1e-2, fused=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 1e-2, weight_decay=1e-2),
    "sgd": lambda parameters: torch.optim.SGD(parameters, 1e-2, momentum=0.9, nesterov=True, weight_decay=1e-2),
}


def train(model, optimizer, steps, train_mode=True):
    model.train(train_mode)
    for step in range(steps):
        batch = images(model) + step
        optimizer.zero_grad()
        (model(batch) - 1).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("name", ["mobilenet", "residual", "hourglass"])
def test_dead_channels_stay_dead_without_a_mask(name, optimizer_name, small_network, random_dead):
    model = small_network(name)
    table = structure(model)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    train(model, optimizer, 3)  # so that there is momentum to forget
    dead = random_dead(table, [1 + bound // 2 for bound in table.upper_bounds], 0)
    zero_channels(model, table, dead, optimizer)
    zeroed = {key: parameter.detach() == 0 for key, parameter in model.named_parameters()}
    assert sum(zeros.sum().item() for zeros in zeroed.values()) > 100
    alive = active_channels(model, table)
    assert alive.sum(dim=1).tolist() == [1 + bound // 2 for bound in table.upper_bounds]
    for train_mode in (True, False):
        before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
        train(model, optimizer, 3, train_mode)
        for key, parameter in model.named_parameters():
            assert not parameter.detach()[zeroed[key]].any()
            assert not parameter.grad[zeroed[key]].any()
            assert not torch.equal(parameter, before[key])
    assert torch.equal(active_channels(model, table), alive)


def test_without_the_optimizer_momentum_revives_the_dead(small_network, random_dead):
    model = small_network("residual")
    table = structure(model)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    train(model, optimizer, 3)
    zero_channels(model, table, random_dead(table, [4, 3, 4], 0))
    assert active_widths(model) == (4, 3, 4)
    train(model, optimizer, 1)
    assert active_widths(model) == (8, 5, 7)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_dead_channels_stay_dead_when_a_scaler_skips_steps(optimizer_name, small_network, random_dead):
    """The first step skipped, so that some optimisers have no state; then one more after the removal."""
    model = small_network("mobilenet")
    table = structure(model)
    optimizer, scaler = OPTIMIZERS[optimizer_name](model.parameters()), torch.amp.GradScaler("cpu")

    def scaled_step(factor):
        optimizer.zero_grad()
        scaler.scale(factor * (model(images(model)) - 1).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()

    def remove(widths, seed):
        zero_channels(model, table, random_dead(table, widths, seed), optimizer)
        return active_channels(model, table)

    before = model.fc.weight.clone()
    scaled_step(float("inf"))
    assert torch.equal(model.fc.weight, before)
    alive = remove([1 + bound // 2 for bound in table.upper_bounds], 0)
    scaled_step(1.0)
    assert torch.equal(active_channels(model, table), alive)
    alive = remove([1 + bound // 2 for bound in table.upper_bounds], 1)
    scaled_step(float("inf"))
    scaled_step(1.0)
    assert torch.equal(active_channels(model, table), alive)
    assert alive.sum() < sum(1 + bound // 2 for bound in table.upper_bounds)


def test_padding_of_the_mask_is_nobody_s(small_network):
    model = small_network("mobilenet")
    table = structure(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mask = torch.arange(max(table.upper_bounds)) >= torch.tensor(table.upper_bounds)[:, None]
    assert mask.any()
    zero_channels(model, table, mask)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_zeroing_touches_the_dead_alone(small_network, random_dead):
    model = small_network("mobilenet")
    table = structure(model)
    dead = random_dead(table, [3] * 14, 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    zero_channels(model, table, dead)
    lost = {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in model.named_parameters()}
    for unit, row in zip(table.units, dead, strict=True):
        for part in unit.slices:
            for channel in row.nonzero().flatten().tolist():
                if part.tensor in lost:
                    lost[part.tensor].narrow(part.dim, part.offset + channel * part.repeat, part.repeat).fill_(True)
    for name, tensor in model.state_dict().items():
        expected = before[name].masked_fill(lost[name], 0) if name in lost else before[name]
        assert torch.equal(tensor, expected)

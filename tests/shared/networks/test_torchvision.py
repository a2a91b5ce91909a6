"""Torchvision's networks as users name them: cut equals masked, counts are right, training goes on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from shared.networks import active_widths, build, compact, structure, zero_channels

# name -> (pixels, arguments, least share of the multiply-adds in layers with a prunable side)
NETWORKS = {
    "alexnet": (63, {}, 0.8),
    "vgg11_bn": (32, {}, 0.8),
    "resnet18": (32, {}, 0.8),
    "resnet50": (32, {}, 0.8),
    "resnext50_32x4d": (32, {}, 0.8),
    "wide_resnet50_2": (32, {}, 0.8),
    "mobilenet_v2": (32, {}, 0.8),
    "mobilenet_v3_small": (32, {}, 0.8),
    "efficientnet_b0": (32, {}, 0.8),
    "squeezenet1_1": (32, {}, 0.8),
    "densenet121": (32, {}, 0.8),
    "googlenet": (32, {"init_weights": False}, 0.8),
    "inception_v3": (75, {"init_weights": False}, 0.8),
    "mnasnet0_5": (32, {}, 0.8),
    "regnet_y_400mf": (32, {}, 0.8),
    "shufflenet_v2_x0_5": (32, {}, 0.5),  # its trunk is split and shuffled
    "segmentation.fcn_resnet50": (32, {"weights_backbone": None}, 0.8),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_can_be_cut_and_trained(name: str) -> None:
    size, options, least = NETWORKS[name]
    module, _, function = f"torchvision.models.{name}".rpartition(".")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(f"{module}:{function}", in_channels=3, input_size=size, num_classes=10, **options)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.3)
                layer.running_mean.normal_(std=0.3)
                layer.running_var.uniform_(0.5, 1.5)
    table = structure(model)
    assert table.prunable_share >= least

    draw = torch.Generator().manual_seed(0)
    dead = torch.zeros(len(table.units), max(table.upper_bounds), dtype=torch.bool)
    for row, bound in zip(dead, table.upper_bounds, strict=True):
        row[torch.randperm(bound, generator=draw)[: int(torch.randint(0, bound, (), generator=draw))]] = True
    widths = tuple((torch.tensor(table.upper_bounds) - dead.sum(1)).tolist())
    masked = copy.deepcopy(model)
    zero_channels(masked, table, dead)
    small = compact(masked, table)
    assert active_widths(masked) == structure(small).upper_bounds == widths
    for network, counts in ((model, table.upper_bounds), (small, widths)):
        assert sum(parameter.numel() for parameter in network.parameters()) == table.parameters(counts).item()
        assert counted_macs(network) == table.macs(counts).item()

    images = torch.randn(4, 3, size, size, generator=draw)
    if name not in ("alexnet", "vgg11_bn"):  # maps come down to one pixel, where batch norm divides by little
        masked, small, images = masked.double(), small.double(), images.double()
    for train in (False, True):
        with torch.no_grad():
            expected, got = (copy.deepcopy(network).train(train)(images) for network in (masked, small))
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()

    optimizer = torch.optim.Adam(masked.train().parameters(), 1e-3)
    masked(images).square().mean().backward()
    optimizer.step()
    assert active_widths(masked) == widths


def counted_macs(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model).eval()(torch.zeros(1, *model.input_shape))  # type: ignore[misc]
    return counter.get_total_flops() // 2

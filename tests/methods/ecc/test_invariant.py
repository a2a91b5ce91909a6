"""ecc-invariant: its importance by hand, and that batch norm's freedom of scale does not change it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from methods.ecc import ECC, ECCInvariant
from shared.networks import structure

SCALE = 7.0


class Chain(nn.Module):
    """Convolutions with batch norm in between, one of them depthwise: two units."""

    input_shape = (2, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.depthwise, self.norm2 = nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6)
        self.second, self.norm3 = nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5)
        self.last = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.norm1(self.first(images)))
        maps = torch.relu(self.norm2(self.depthwise(maps)))
        maps = torch.relu(self.norm3(self.second(maps)))
        return self.last(torch.mean(maps, [2, 3]))


def made() -> nn.Module:
    torch.manual_seed(0)
    return Chain().double().train()


def trained(model: nn.Module, steps: int = 3) -> torch.optim.Adam:
    """Adam after some steps that leave the weights as they are: only its moments tell what the gradients were."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        images = 10 * torch.randn(16, 2, 8, 8, generator=draw, dtype=torch.float64)
        labels = torch.randint(3, (16,), generator=draw)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return optimizer


def before_and_after(method: ECC, layer: str, scale: float) -> tuple[Tensor, Tensor]:
    """The importances of two networks that compute the same, one with a layer's weights times `scale`."""
    model = made()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.get_submodule(layer).weight.mul_(scale)
    images = 10 * torch.randn(4, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(scaled(images), model(images), rtol=1e-3, atol=1e-3)
    one, other = (method.importances(net, structure(net), trained(net))() for net in (model, scaled))
    return one, other


@pytest.mark.parametrize("layer", ["first", "depthwise", "second"])
def test_a_scale_that_batch_norm_undoes_changes_nothing(layer: str) -> None:
    before, after = before_and_after(ECCInvariant(), layer, SCALE)
    torch.testing.assert_close(after, before, rtol=5e-3, atol=0)


def test_the_published_importance_grows_with_the_scale() -> None:
    before, after = before_and_after(ECC(), "second", SCALE)
    share = after[0] / before[0]  # of the unit that `second` reads, beside its depthwise layer
    assert (share > 2).all()


def test_the_formula_by_hand() -> None:
    """Σ w² √v, with v Adam's second moment corrected for its bias, as a share of the layer; layers are added."""
    model = made()
    table, optimizer = structure(model), trained(model)
    with torch.no_grad():
        model.get_submodule("second").weight[:, 2] = 0  # a dead channel has no part in the shares
        model.get_submodule("depthwise").weight[2] = 0
    found = ECCInvariant().importances(model, table, optimizer)()
    weights = dict(model.named_parameters())
    moments = {name: optimizer.state[weight]["exp_avg_sq"] / (1 - 0.999**3) for name, weight in weights.items()}
    expected = torch.zeros(2, 6, dtype=torch.float64)
    for unit, name, others in ((0, "depthwise", (1, 2, 3)), (0, "second", (0, 2, 3)), (1, "last", (0,))):
        sums = (weights[f"{name}.weight"].detach() ** 2 * (moments[f"{name}.weight"].sqrt() + 1e-8)).sum(others)
        expected[unit, : len(sums)] += sums / sums.sum()
    torch.testing.assert_close(found, expected)
    assert found[0, 2] == 0 and found[1, 5] == 0
    torch.testing.assert_close(found.sum(1), torch.tensor([2.0, 1.0], dtype=torch.float64))

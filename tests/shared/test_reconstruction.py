"""Reconstruction against a direct least-squares solve on all rows, made by other means (unfold, the layer itself)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared import reconstruction
from shared.networks import structure
from shared.reconstruction import Reconstruction, calibration_batches, input_rows

CONSUMERS = {
    "1x1": lambda: nn.Conv2d(6, 5, 1),
    "1x1 after depthwise": lambda: nn.Conv2d(6, 5, 1, bias=False),
    "3x3": lambda: nn.Conv2d(6, 5, 3, padding=1),
    "3x3 strided": lambda: nn.Conv2d(6, 5, 3, stride=2, bias=False),
    "1x3 strided": lambda: nn.Conv2d(6, 5, (1, 3), stride=(1, 2), padding=(0, 2), dilation=(1, 2)),
    "3x1 dilated": lambda: nn.Conv2d(6, 5, (3, 1), padding=(2, 0), dilation=(2, 1)),
    "linear": lambda: nn.Linear(6, 5),
    "linear after flatten": lambda: nn.Linear(6 * 8 * 8, 5),
}


def network(kind: str) -> nn.Sequential:
    """An uneven first layer, then the consumer under test, in float64; batch norm's averages are of other data."""
    torch.manual_seed(3)
    consumer = CONSUMERS[kind]()
    between: list[nn.Module] = [nn.BatchNorm2d(6), nn.ReLU()]
    if isinstance(consumer, nn.Linear):
        between += [nn.AdaptiveAvgPool2d(1)] if consumer.in_features == 6 else []
        between += [nn.Flatten()]
    if "depthwise" in kind:
        between += [nn.Conv2d(6, 6, 3, padding=1, groups=6)]
    after = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if isinstance(consumer, nn.Conv2d) else []
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), *between, consumer, *after).double()
    nn.init.uniform_(model[1].running_mean, -0.3, 0.3)  # type: ignore[arg-type]
    nn.init.uniform_(model[1].running_var, 0.3, 1.0)  # type: ignore[arg-type]
    model.input_shape = (2, 8, 8)  # type: ignore[assignment]
    return model.train()


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(4)
    return [(torch.randn(200, 2, 8, 8, generator=draw, dtype=torch.float64), torch.zeros(200)) for _ in range(count)]


def consumer_of(model: nn.Sequential) -> tuple[str, nn.Conv2d | nn.Linear]:
    """The layer under test: the last one."""
    name, layer = [pair for pair in model.named_modules() if isinstance(pair[1], nn.Conv2d | nn.Linear)][-1]
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return name, layer


def rows_and_outputs(model: nn.Module, layer: nn.Conv2d | nn.Linear, images: Tensor) -> tuple[Tensor, Tensor]:
    """All rows that `layer` multiplies, by unfold, and its outputs without bias, both (places, images, …)."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, inputs, outputs: seen.extend((inputs[0], outputs)))
    was_training = model.training
    with torch.no_grad():
        model.eval()(images)
    model.train(was_training)
    handle.remove()
    inputs, outputs = seen
    bias = torch.zeros(5) if layer.bias is None else layer.bias.detach()
    if isinstance(layer, nn.Linear):
        return inputs[None], (outputs - bias)[None]
    unfolded = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return unfolded.permute(2, 0, 1), (outputs - bias[:, None, None]).flatten(2).permute(2, 0, 1)


def columns_of(kept: Tensor, per_channel: int) -> Tensor:
    return torch.cat([torch.arange(i * per_channel, (i + 1) * per_channel) for i in kept.tolist()])


@pytest.mark.parametrize("positions", [7, 64])
@pytest.mark.parametrize("width", [1, 4, 6])
@pytest.mark.parametrize("kind", CONSUMERS)
def test_equals_least_squares_on_the_same_rows(kind: str, width: int, positions: int) -> None:
    """Also in training mode, and with few random places, new ones for each batch."""
    model, data = network(kind), batches(3)
    name, layer = consumer_of(model)
    table = structure(model)
    fitted = Reconstruction(model, table, data, torch.Generator().manual_seed(5), positions=positions)
    kept = fitted.kept_channels(0, width)

    dense = layer.weight.detach().flatten(1)
    per_channel = dense.shape[1] // 6
    norms = dense.abs().sum(0).reshape(6, per_channel).sum(1)
    assert kept.tolist() == sorted(sorted(range(6), key=lambda channel: -float(norms[channel]))[:width])

    draw, parts = torch.Generator().manual_seed(5), []
    for images, _ in data:
        both = rows_and_outputs(model, layer, images)
        places = torch.randperm(len(both[0]), generator=draw)[:positions]
        parts.append([part[places].flatten(0, 1) for part in both])
    X, Y = (torch.cat(part) for part in zip(*parts, strict=True))
    columns = columns_of(kept, per_channel)
    expected = torch.linalg.lstsq(X[:, columns], Y).solution.T
    solved = fitted.weight(f"{name}.weight", 0, width)
    assert solved is not None
    torch.testing.assert_close(solved, expected, rtol=1e-5, atol=1e-6)
    some = torch.tensor([3, 0])
    torch.testing.assert_close(fitted.weight(f"{name}.weight", 0, width, some), solved[some])

    if width < 6:  # the fit beats the dense weights' own columns
        errors = [float((X[:, columns] @ weight.T - Y).square().sum()) for weight in (solved, dense[:, columns])]
        assert errors[0] < 0.999 * errors[1]


class TwoReaders(nn.Module):
    """One unit that a 1x1 and a 3x3 convolution read."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 8, 8)
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.point = nn.Conv2d(6, 5, 1)
        self.wide = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return (self.point(x) + self.wide(x)).mean((2, 3))


def test_all_consumers_of_a_unit_keep_the_same_channels_and_are_fitted_each_on_its_own() -> None:
    torch.manual_seed(4)
    model = TwoReaders().double()
    data = batches(1)
    fitted = Reconstruction(model, structure(model), data, torch.Generator(), positions=64)
    kept = fitted.kept_channels(0, 4)
    norms = [layer.weight.detach().abs().sum((0, 2, 3)) for layer in (model.point, model.wide)]
    by_all, *by_one = (set(norm.topk(4).indices.tolist()) for norm in (norms[0] + norms[1], *norms))
    assert set(kept.tolist()) == by_all and by_all not in by_one
    for name, layer, per_channel in (("point", model.point, 1), ("wide", model.wide, 9)):
        X, Y = (part.flatten(0, 1) for part in rows_and_outputs(model, layer, data[0][0]))
        expected = torch.linalg.lstsq(X[:, columns_of(kept, per_channel)], Y).solution.T
        torch.testing.assert_close(fitted.weight(f"{name}.weight", 0, 4), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["3x3", "3x3 strided", "1x3 strided", "3x1 dilated"])
def test_sampled_rows_are_distinct_places_shared_by_the_batch(kind: str) -> None:
    model = network(kind).eval()
    name, layer = consumer_of(model)
    images = batches(1)[0][0][:4]
    inputs = model[: int(name)](images).detach()
    everything, _ = rows_and_outputs(model, layer, images)
    for count in (5, 10_000):
        rows = input_rows(layer, inputs, count, torch.Generator().manual_seed(0))
        places = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))[:count]
        assert torch.equal(rows, everything[places].flatten(0, 1))


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_padding_that_is_not_a_number_of_zeros_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected zero padding in pixels, got .*; try padding=\(h, w\)"):
        input_rows(nn.Conv2d(6, 5, 3, **options), torch.zeros(1, 6, 8, 8), 5, torch.Generator())


def test_wide_consumers_keep_their_weights_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("3x3")
    table = structure(model)
    name, _ = consumer_of(model)
    monkeypatch.setattr(reconstruction, "MAXIMUM_COLUMNS", 54)
    at_limit = Reconstruction(model, table, batches(1), torch.Generator())
    monkeypatch.setattr(reconstruction, "MAXIMUM_COLUMNS", 53)
    beyond = Reconstruction(model, table, batches(1), torch.Generator())
    assert at_limit.skipped == () and beyond.skipped == (name,)
    assert beyond.weight(f"{name}.weight", 0, 3) is None
    assert torch.equal(beyond.kept_channels(0, 3), at_limit.kept_channels(0, 3))


@pytest.mark.parametrize("kind", ["1x1", "3x3", "linear"])
@pytest.mark.parametrize("width", [5, 6])
def test_inputs_that_are_never_alive_change_nothing_for_the_others(kind: str, width: int) -> None:
    model, data = network(kind), batches(2)
    name, layer = consumer_of(model)
    with torch.no_grad():
        layer.weight[:, 2] *= 9.0  # kept for certain
        model[1].bias[2] = -1e3  # type: ignore[index,union-attr]  # dead behind the ReLU
        model[0].bias[4] = model[0].bias[1]  # type: ignore[index,union-attr]
        model[0].weight[4] = model[0].weight[1]  # type: ignore[index,union-attr]  # and two of them are the same
        for statistics in (model[1].running_mean, model[1].running_var):
            statistics[4] = statistics[1]  # type: ignore[index,call-overload]
    fitted = Reconstruction(model, structure(model), data, torch.Generator(), positions=64)
    kept = fitted.kept_channels(0, width)
    assert 2 in kept
    solved = fitted.weight(f"{name}.weight", 0, width)
    assert solved is not None and bool(solved.isfinite().all())
    dense = layer.weight.detach().flatten(1)
    columns = columns_of(kept, dense.shape[1] // 6)
    dead = columns // (dense.shape[1] // 6) == 2
    torch.testing.assert_close(solved[:, dead], dense[:, columns[dead]])  # never asked, never changed
    X, Y = (part.flatten(0, 1) for part in rows_and_outputs(model, layer, torch.cat([images for images, _ in data])))
    best = torch.linalg.lstsq(X[:, columns], Y, driver="gelsd").solution  # of least norm among many
    torch.testing.assert_close(X[:, columns] @ solved.T, X[:, columns] @ best, rtol=1e-4, atol=1e-5)
    if width == 6:  # nothing is missing, so nothing is repaired
        torch.testing.assert_close(solved, dense, rtol=1e-5, atol=1e-6)


def test_layer_without_any_live_input_keeps_its_weights() -> None:
    model = network("1x1")
    with torch.no_grad():
        model[1].bias.fill_(-1e3)  # type: ignore[union-attr,operator]
    name, layer = consumer_of(model)
    fitted = Reconstruction(model, structure(model), batches(1), torch.Generator())
    kept = fitted.kept_channels(0, 4)
    torch.testing.assert_close(fitted.weight(f"{name}.weight", 0, 4), layer.weight.detach().flatten(1)[:, kept])


def test_model_is_left_as_it_was() -> None:
    model = network("3x3")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Reconstruction(model, structure(model), batches(1), torch.Generator())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_calibration_takes_at_least_three_thousand_images() -> None:
    assert [calibration_batches(size) for size in (50, 64, 3000)] == [60, 47, 1]

"""Reconstruction against a direct least-squares solve on all rows, made by other means (unfold, the layer itself)."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.networks import structure
from shared.reconstruction import Reconstruction, calibration_batches, input_rows

CONSUMERS = {
    "1x1": lambda: nn.Conv2d(6, 5, 1),
    "3x3": lambda: nn.Conv2d(6, 5, 3, padding=1),
    "3x3 strided": lambda: nn.Conv2d(6, 5, 3, stride=2, bias=False),
    "3x1 dilated": lambda: nn.Conv2d(6, 5, (3, 1), padding=(2, 0), dilation=(2, 1)),
    "linear": lambda: nn.Linear(6, 5),
    "linear after flatten": lambda: nn.Linear(6 * 8 * 8, 5),
}


def network(kind: str) -> nn.Sequential:
    """An uneven first layer, then the consumer under test, in float64."""
    torch.manual_seed(3)
    consumer = CONSUMERS[kind]()
    between: list[nn.Module] = [nn.ReLU()]
    if isinstance(consumer, nn.Linear):
        between += [nn.AdaptiveAvgPool2d(1)] if consumer.in_features == 6 else []
        between += [nn.Flatten()]
    after = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if isinstance(consumer, nn.Conv2d) else []
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), *between, consumer, *after).double()
    model.input_shape = (2, 8, 8)  # type: ignore[assignment]
    return model


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(4)
    return [(torch.randn(200, 2, 8, 8, generator=draw, dtype=torch.float64), torch.zeros(200)) for _ in range(count)]


def consumer_of(model: nn.Sequential) -> tuple[str, nn.Conv2d | nn.Linear]:
    name, layer = [pair for pair in model.named_modules() if isinstance(pair[1], nn.Conv2d | nn.Linear)][1]
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return name, layer


def rows_and_outputs(model: nn.Sequential, images: Tensor) -> tuple[Tensor, Tensor]:
    """All rows that the consumer multiplies, by unfold, and its outputs without bias: (n, columns), (n, outputs)."""
    name, layer = consumer_of(model)
    with torch.no_grad():
        inputs = model[: int(name)](images)
        outputs = layer(inputs)
        if isinstance(layer, nn.Linear):
            return inputs, outputs - layer.bias
        unfolded = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        if layer.bias is not None:
            outputs = outputs - layer.bias[:, None, None]
        return unfolded.transpose(1, 2).flatten(0, 1), outputs.flatten(2).transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("kind", CONSUMERS)
@pytest.mark.parametrize("width", [1, 4, 6])
def test_equals_least_squares_on_all_rows(kind: str, width: int) -> None:
    model, data = network(kind), batches(3)
    name, layer = consumer_of(model)
    fitted = Reconstruction(model, structure(model), data, torch.Generator(), positions=64)
    kept = fitted.kept(0, width)

    per_channel = layer.weight[0].numel() // 6
    norms = [layer.weight.detach().flatten(1)[:, i * per_channel : (i + 1) * per_channel].abs().sum() for i in range(6)]
    assert kept.tolist() == sorted(sorted(range(6), key=lambda channel: -float(norms[channel]))[:width])

    X, Y = rows_and_outputs(model, torch.cat([images for images, _ in data]))
    columns = torch.cat([torch.arange(i * per_channel, (i + 1) * per_channel) for i in kept.tolist()])
    expected = torch.linalg.lstsq(X[:, columns], Y).solution.T
    solved = fitted.weight(f"{name}.weight", 0, width)
    assert solved is not None
    torch.testing.assert_close(solved, expected, rtol=1e-5, atol=1e-6)
    some = torch.tensor([3, 0])
    torch.testing.assert_close(fitted.weight(f"{name}.weight", 0, width, some), solved[some])

    def error(weight: Tensor) -> float:
        return float((X[:, columns] @ weight.T - Y).square().sum())

    if width < 6:  # the least-squares fit beats the dense weights' own columns
        assert error(solved) < 0.999 * error(layer.weight.detach().flatten(1)[:, columns])


@pytest.mark.parametrize("kind", CONSUMERS)
def test_sampled_rows_are_distinct_places_shared_by_the_batch(kind: str) -> None:
    model = network(kind)
    name, layer = consumer_of(model)
    images = batches(1)[0][0][:4]
    inputs = model[: int(name)](images).detach()
    rows = input_rows(layer, inputs, 5, torch.Generator().manual_seed(0))
    everything, _ = rows_and_outputs(model, images)
    if isinstance(layer, nn.Linear):
        assert torch.equal(rows, inputs)
        return
    everything = everything.unflatten(0, (4, -1))  # (images, places, columns)
    places = torch.randperm(everything.shape[1], generator=torch.Generator().manual_seed(0))[:5]
    assert torch.equal(rows.unflatten(0, (5, 4)), everything[:, places].transpose(0, 1))


def test_wide_consumers_keep_their_weights_and_are_named() -> None:
    model = network("3x3")
    table = structure(model)
    name, _ = consumer_of(model)
    at_limit = Reconstruction(model, table, batches(1), torch.Generator(), maximum_columns=54)
    beyond = Reconstruction(model, table, batches(1), torch.Generator(), maximum_columns=53)
    assert at_limit.skipped == () and beyond.skipped == (name,)
    assert beyond.weight(f"{name}.weight", 0, 3) is None
    assert torch.equal(beyond.kept(0, 3), at_limit.kept(0, 3))


def test_inputs_that_are_never_alive_keep_their_weights() -> None:
    model = network("1x1")
    with torch.no_grad():
        model[0].bias[2] = -1e3  # type: ignore[index,union-attr]
    name, layer = consumer_of(model)
    fitted = Reconstruction(model, structure(model), batches(1), torch.Generator(), positions=64)
    solved = fitted.weight(f"{name}.weight", 0, 6)
    assert solved is not None
    torch.testing.assert_close(solved, layer.weight.detach().flatten(1), rtol=1e-6, atol=1e-8)


def test_model_is_left_as_it_was() -> None:
    model = network("3x3")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Reconstruction(model, structure(model), batches(1), torch.Generator())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_calibration_takes_at_least_three_thousand_images() -> None:
    assert [calibration_batches(size) for size in (50, 64, 3000)] == [60, 47, 1]

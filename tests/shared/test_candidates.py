"""Cut-down candidates against the masked full-size network."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shared.candidates import Candidates
from shared.networks import Structure, active_widths, resized, structure, zero_channels
from shared.reconstruction import Reconstruction


def images(count: int = 20) -> Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def calibration() -> list[tuple[Tensor, Tensor]]:
    return [(images(200), torch.zeros(200))]


@pytest.fixture(params=["toy", "mobilenet"])
def task(request: pytest.FixtureRequest, tiny_task: Callable[..., Any]) -> Any:
    return tiny_task(network=request.param)


class Residual(nn.Module):
    """A trunk with two consumers and an inner unit, then four flattened pixels per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (1, 16, 16)
        self.stem = nn.Conv2d(1, 9, 3, stride=4)
        self.first = nn.Conv2d(9, 7, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(7)
        self.second = nn.Conv2d(7, 9, 1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.second(self.norm(self.first(x)).relu())
        return self.head(torch.flatten(self.pool(x), 1))


def masked(model: nn.Module, table: Structure, widths: tuple[int, ...]) -> nn.Module:
    """The full-size network with reconstructed columns and everything else of the removed channels at zero."""
    fitted = Reconstruction(model, table, calibration(), torch.Generator().manual_seed(1))
    full = copy.deepcopy(model).eval()
    dead = torch.ones(len(widths), max(table.upper_bounds), dtype=torch.bool)
    for unit, width in zip(table.units, widths, strict=True):
        kept = fitted.kept_channels(unit.index, width)
        dead[unit.index, kept] = False
        for consumer in unit.slices:
            if consumer.role == "consumer":
                weight = full.get_parameter(consumer.tensor)
                solved = fitted.weight(consumer.tensor, unit.index, width)
                assert solved is not None
                columns = [channel * consumer.repeat + i for channel in kept.tolist() for i in range(consumer.repeat)]
                with torch.no_grad():
                    weight[:, columns] = solved.reshape(weight.shape[0], len(columns), *weight.shape[2:])
    zero_channels(full, table, dead)
    return full


def test_residual_network_with_two_consumers_and_a_flatten() -> None:
    torch.manual_seed(0)
    model = Residual().double().eval()
    table = structure(model)
    assert table.upper_bounds == (9, 7)
    candidates = Candidates(model, table, calibration(), torch.Generator().manual_seed(1))
    assert candidates.skipped == ()
    for widths in ((5, 3), (1, 7), (9, 1)):
        with torch.no_grad():
            logits = candidates.at(widths)(images())
            torch.testing.assert_close(logits, masked(model, table, widths)(images()), rtol=1e-9, atol=1e-9)
            assert torch.equal(candidates.cut(widths).eval()(images()), logits)


def test_candidate_is_the_masked_network_and_cut_is_the_candidate(task: Any) -> None:
    model = task.copy_of_dense().double().eval()
    before = copy.deepcopy(model.state_dict())
    candidates = Candidates(model, task.structure, calibration(), torch.Generator().manual_seed(1))
    dense = task.structure.upper_bounds
    narrow, half = tuple(1 for _ in dense), tuple(-(-width // 2) for width in dense)
    with torch.no_grad():
        for widths in (dense, half, narrow, half):  # again after others: nothing is left over
            logits = candidates.at(widths)(images())
            torch.testing.assert_close(logits, masked(model, task.structure, widths)(images()), rtol=1e-9, atol=1e-9)
            small = candidates.cut(widths)
            assert torch.equal(small.eval()(images()), logits)
            assert active_widths(small) == widths
        torch.testing.assert_close(candidates.at(dense)(images()), model(images()), rtol=1e-6, atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_cut_network_trains_and_leaves_the_candidates_alone(task: Any) -> None:
    model = task.copy_of_dense().double()
    candidates = Candidates(model, task.structure, calibration(), torch.Generator())
    widths = tuple(-(-width // 2) for width in task.structure.upper_bounds)
    small = candidates.cut(widths)
    with torch.no_grad():
        logits = candidates.at(widths)(images())
    optimizer = torch.optim.Adam(small.parameters(), lr=0.1)
    small.train()(images()).square().mean().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    optimizer.step()
    with torch.no_grad():
        assert torch.equal(candidates.at(widths)(images()), logits)


def test_memory_format_is_kept(task: Any) -> None:
    model = task.copy_of_dense().to(memory_format=torch.channels_last)
    data = [(images(50).float(), torch.zeros(50))]
    candidates = Candidates(model, task.structure, data, torch.Generator())
    half = tuple(-(-width // 2) for width in task.structure.upper_bounds)
    for widths in (task.structure.upper_bounds, half):
        for network in (candidates.at(widths), candidates.cut(widths)):
            convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
            assert convolutions
            for layer in convolutions:
                fresh = torch.empty(layer.weight.shape).to(memory_format=torch.channels_last)
                assert layer.weight.stride() == fresh.stride()


def test_networks_of_given_widths_take_weights_that_were_cut_in_steps(task: Any) -> None:
    """A run that goes on cuts once from dense what was cut stage by stage; Adam's kernels see the memory layout."""
    model = task.copy_of_dense().to(memory_format=torch.channels_last)
    data = [(images(50).float(), torch.zeros(50))]
    dense = task.structure.upper_bounds
    half = tuple(-(-width // 2) for width in dense)
    for widths in (half, tuple(1 for _ in dense), tuple(1 + index % 2 for index in range(len(dense)))):
        stepwise = Candidates(model, task.structure, data, torch.Generator()).cut(half)
        stepwise = Candidates(stepwise, structure(stepwise), data, torch.Generator()).cut(widths)
        direct = resized(model, widths, task.structure)
        direct.load_state_dict(stepwise.state_dict())
        assert active_widths(direct) == widths
        for one, other in zip(direct.parameters(), stepwise.parameters(), strict=True):
            assert one.stride() == other.stride() and one.requires_grad
        with torch.no_grad():
            assert torch.equal(direct.eval()(images().float()), stepwise.eval()(images().float()))


def test_channels_that_are_dead_as_they_come_count_as_channels(task: Any) -> None:
    model = task.copy_of_dense()
    dead = torch.zeros(len(task.structure.units), max(task.structure.upper_bounds), dtype=torch.bool)
    dead[0, 1:] = True  # one channel of the first unit is alive
    zero_channels(model, task.structure, dead)
    data = [(images(50).float(), torch.zeros(50))]
    candidates = Candidates(model, task.structure, data, torch.Generator())
    half = tuple(-(-width // 2) for width in task.structure.upper_bounds)
    for widths in (task.structure.upper_bounds, half):
        assert structure(candidates.cut(widths)).upper_bounds == widths


def test_a_candidate_has_the_models_buffers_whatever_became_of_the_last_one(task: Any) -> None:
    model = task.copy_of_dense()
    candidates = Candidates(model, task.structure, task.calibration_batches(1), torch.Generator())
    bounds = task.structure.upper_bounds
    for buffer in candidates.at(bounds).buffers():
        buffer.add_(1)
    again = candidates.at(bounds)
    assert all(torch.equal(buffer, dict(model.named_buffers())[name]) for name, buffer in again.named_buffers())

"""Loss, step, batch-norm recalibration and score against formulas written out."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shared.checkpoints import Checkpoints
from shared.data import BatchStream, Split
from shared.ledger import BudgetExhausted, Ledger
from shared.objective import CLASSIFICATION, segmentation
from shared.training import (
    Feed,
    Trainer,
    distillation_loss,
    evaluation_batch,
    first_batches,
    recalibrate_batch_norm,
    score,
    train_mode,
)


def test_distillation_loss_by_hand() -> None:
    """0.5 * (1² + 0²) / 2 + 0.5 * ln(1 + 1/e)."""
    logits, teacher = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    loss = distillation_loss(logits.double(), teacher.double(), torch.tensor([0]), 0.5, CLASSIFICATION)
    assert loss.item() == pytest.approx(0.40663084, abs=5e-9)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000), batch=st.integers(1, 5), classes=st.integers(2, 6), share=st.floats(0, 1))
def test_distillation_loss_in_numpy(seed: int, batch: int, classes: int, share: float) -> None:
    draw = np.random.default_rng(seed)
    logits, teacher = draw.normal(0, 5, (2, batch, classes))
    labels = draw.integers(0, classes, batch)
    squares = sum((logits[i, j] - teacher[i, j]) ** 2 for i in range(batch) for j in range(classes)) / (batch * classes)
    entropy = sum(np.log(np.exp(logits[i] - logits[i, labels[i]]).sum()) for i in range(batch)) / batch
    loss = distillation_loss(*map(torch.from_numpy, (logits, teacher, labels)), share, CLASSIFICATION)
    assert loss.item() == pytest.approx(share * squares + (1 - share) * entropy, rel=1e-12)


def test_distillation_of_pixels_in_numpy() -> None:
    """The squares of all pixels count, ignored ones too; cross-entropy is that of the labelled ones."""
    draw = np.random.default_rng(0)
    logits, teacher = draw.normal(0, 5, (2, 2, 3, 4, 5))  # (batch, classes, h, w)
    labels = draw.integers(0, 3, (2, 4, 5))
    labels[0, :2] = 255
    entropies = [
        np.log(np.exp(logits[i, :, row, column]).sum()) - logits[i, labels[i, row, column], row, column]
        for i, row, column in np.ndindex(2, 4, 5)
        if labels[i, row, column] != 255
    ]
    loss = distillation_loss(*map(torch.from_numpy, (logits, teacher, labels)), 0.25, segmentation(255))
    expected = 0.25 * ((logits - teacher) ** 2).sum() / (2 * 3 * 4 * 5) + 0.75 * sum(entropies) / len(entropies)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def split_of(images: torch.Tensor, labels: torch.Tensor) -> Split:
    return Split(images, labels, mean=0.5, std=0.25)


def tiny_split(count: int = 12, seed: int = 0) -> Split:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 3, 3), generator=draw, dtype=torch.uint8)
    return split_of(images, torch.randint(0, 4, (count,), generator=draw))


def trainer_of(task, model: nn.Module, ledger: Ledger, first_batch: int = 0, **options):  # type: ignore[no-untyped-def]
    """A trainer on 3x3 images with a teacher of known logits."""
    stream = BatchStream(tiny_split(), seed=0, batch_size=4, shift=0)
    asked: list[int] = []

    def teacher(index: int, images: torch.Tensor) -> torch.Tensor:
        asked.append(index)
        assert torch.equal(images, stream.batch(index)[0])
        return torch.full((len(images), 4), 0.25)

    return Trainer(model, Feed(stream, teacher, first_batch), ledger, task.protocol, **options), stream, asked


def test_three_steps_of_adam_written_out(tiny_task) -> None:  # type: ignore[no-untyped-def]
    """A linear model: gradients in closed form, Adam (Kingma and Ba, algorithm 1) with the decay added to them."""
    task = tiny_task(learning_rate=0.01, weight_decay=0.1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 4, bias=False)).double()
    weight = model[1].weight.detach().numpy().copy()
    trainer, stream, _ = trainer_of(task, model, Ledger(3))
    first = second = np.zeros_like(weight)
    convert = stream.batch
    stream.batch = lambda index: (convert(index)[0].double(), convert(index)[1])  # type: ignore[method-assign]
    for step in range(1, 4):
        images, labels = stream.batch(step - 1)
        x, y = images.flatten(1).numpy(), np.eye(4)[labels.numpy()]
        logits = x @ weight.T
        softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        squares, entropy = ((logits - 0.25) ** 2).mean(), -np.log((softmax * y).sum(1)).mean()
        slope = 0.5 * 2 * (logits - 0.25) / logits.size + 0.5 * (softmax - y) / len(y)
        gradient = slope.T @ x + 0.1 * weight
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight = weight - 0.01 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        assert trainer.step().item() == pytest.approx(0.5 * squares + 0.5 * entropy, rel=1e-9)
        np.testing.assert_allclose(model[1].weight.detach().numpy(), weight, rtol=1e-7)


def test_a_step_is_paid_before_it_is_made(tiny_task) -> None:  # type: ignore[no-untyped-def]
    model, ledger = nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), Ledger(2)
    trainer, _, asked = trainer_of(tiny_task(), model, ledger, first_batch=10)
    trainer.step(), trainer.step()
    after = copy.deepcopy(model.state_dict())
    with pytest.raises(BudgetExhausted):
        trainer.step()
    assert ledger.training_iterations == 2
    assert asked == [10, 11]  # the count of the ledger, from the first batch on
    assert all(torch.equal(after[name], tensor) for name, tensor in model.state_dict().items())


def test_two_trainers_share_one_ledger(tiny_task) -> None:  # type: ignore[no-untyped-def]
    ledger = Ledger(3)
    trainers = [trainer_of(tiny_task(), nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), ledger) for _ in range(2)]
    for which in (0, 1, 0):
        trainers[which][0].step()
    assert [asked for _, _, asked in trainers] == [[0, 2], [1]]


def test_the_schedule_scales_the_learning_rate(tiny_task) -> None:  # type: ignore[no-untyped-def]
    """Adam's first step moves a weight by its rate whatever the gradient, so the factor is what is seen."""
    for factor in (1.0, 0.25):
        model = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
        start = model[1].weight.detach().clone()
        shares: list[float] = []
        task = tiny_task(learning_rate=1e-3, weight_decay=0.0)
        schedule = lambda share, shares=shares, factor=factor: shares.append(share) or factor  # noqa: E731
        trainer, _, _ = trainer_of(task, model, Ledger(4), schedule=schedule)
        trainer.step()
        torch.testing.assert_close(
            (model[1].weight - start).abs(), torch.full((4, 9), 1e-3 * factor), rtol=0.02, atol=0
        )
        for _ in range(3):
            trainer.step()
        assert shares == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_has_no_dropout(training: bool) -> None:
    """The student sees what the teacher saw, whatever mode it comes in."""
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Sequential(nn.Dropout2d(0.5))).train(training)
    train_mode(model)
    assert model[0].training
    assert not model[1].training and not model[2][0].training
    ones = torch.ones(1, 5)
    assert torch.equal(model[1](ones), ones)


def test_steps_and_recalibration_have_no_dropout(tiny_task) -> None:  # type: ignore[no-untyped-def]
    """A network with dropout computes what it does without."""
    ends = []
    for layer in (nn.Identity(), nn.Dropout(0.9)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), layer, nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)).train()
        trainer, stream, _ = trainer_of(tiny_task(), model, Ledger(2))
        losses = [trainer.step().item() for _ in range(2)]
        model.train()
        recalibrate_batch_norm(model, first_batches(stream, 2))
        ends.append((losses, model.state_dict()))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(tensor, ends[1][1][name]) for name, tensor in ends[0][1].items())


def test_recalibration_is_the_plain_average_over_batches() -> None:
    """Oracle: the mean and unbiased variance of what each batch norm gets, batch by batch, averaged."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, momentum=0.3), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    model.double().train()
    batches = [(torch.randn(size, 1, 6, 6).double(), torch.zeros(size)) for size in (4, 7, 5)]
    for images, _ in batches[:2]:
        model(images)  # statistics of a past that must not count
    weights = copy.deepcopy([parameter.detach() for parameter in model.parameters()])
    expected: dict[int, list] = {1: [], 3: []}
    for images, _ in batches:
        x = images
        for index, layer in enumerate(model):
            if index in expected:
                mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True)
                expected[index].append((mean, variance))
                biased = x.var((0, 2, 3), unbiased=False)
                x = (x - mean[:, None, None]) / (biased + layer.eps).sqrt()[:, None, None]
                x = x * layer.weight[:, None, None] + layer.bias[:, None, None]
            else:
                x = layer(x)
    recalibrate_batch_norm(model, first_batches(Mock(batch=batches.__getitem__), 3))
    for index, statistics in expected.items():
        means, variances = zip(*statistics, strict=True)
        torch.testing.assert_close(model[index].running_mean, torch.stack(means).mean(0))
        torch.testing.assert_close(model[index].running_var, torch.stack(variances).mean(0))
    assert [model[1].momentum, model[3].momentum] == [0.3, 0.1]
    assert not model.training
    assert all(torch.equal(before, now) for before, now in zip(weights, model.parameters(), strict=True))


def test_recalibration_of_a_network_without_batch_norm_changes_nothing() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    before = copy.deepcopy(model.state_dict())
    recalibrate_batch_norm(model, first_batches(Mock(), 3))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Brightest(nn.Module):
    """Says the index of the brightest of the first four pixels; wrong by one in training mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :4].roll(int(self.training), dims=1)


@pytest.mark.parametrize(("limit", "expected"), [(None, 0.75), (2, 1.0), (3, 2 / 3), (100, 0.75)])
def test_score_counts_the_first_images(limit: int | None, expected: float) -> None:
    images = torch.zeros(4, 1, 3, 3, dtype=torch.uint8)
    for image, pixel in enumerate([2, 0, 1, 3]):
        images[image].view(-1)[pixel] = 200
    split = split_of(images, torch.tensor([2, 0, 0, 3]))
    model = Brightest().train()
    assert score(model, split, limit) == pytest.approx(expected)
    assert not model.training


def test_score_does_not_depend_on_the_size_of_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    split = replace(tiny_split(50, seed=3))
    whole = score(Brightest(), split)
    monkeypatch.setattr("shared.training.EVALUATION_BATCH", 7)
    assert score(Brightest(), split) == whole
    assert 0 < whole < 1


def test_score_of_labelled_pixels_is_that_of_the_whole_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the mean over images or batches. By hand: class 0 has 3 hits of 4 in the union, class 1 has 2 of 3."""
    images = torch.tensor([[[[0, 0], [255, 0]]], [[[255, 255], [0, 0]]]], dtype=torch.uint8)
    labels = torch.tensor([[[0, 0], [0, 0]], [[1, 1], [9, 9]]], dtype=torch.uint8)
    split = Split(images, labels, 0.5, 0.25, segmentation(9))
    thresholds = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        thresholds.weight.copy_(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))
        thresholds.bias.zero_()
    for batch in (1, 500):
        monkeypatch.setattr("shared.training.EVALUATION_BATCH", batch)
        assert score(thresholds, split) == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_score_counts_more_pixels_than_a_float_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cityscapes' val has 262 million; float32 counts to 2^24."""
    parts = iter([torch.tensor([[2**24, 0], [0, 0]]), torch.tensor([[1, 0], [0, 0]]), torch.tensor([[1, 0], [0, 0]])])
    judged = list[torch.Tensor]()
    monkeypatch.setattr("shared.training.EVALUATION_BATCH", 1)
    monkeypatch.setattr("shared.objective.Objective.confusion", lambda *_: next(parts))
    monkeypatch.setattr("shared.objective.Objective.score", lambda _, confusion: judged.append(confusion) or 0.0)
    score(Brightest(), tiny_split(3))
    assert judged[0].dtype == torch.int64 and judged[0].tolist() == [[2**24 + 2, 0], [0, 0]]


@pytest.mark.parametrize(("sides", "count"), [((28, 28), 500), ((512, 1024), 8), ((4096, 4096), 1)])
def test_large_images_are_judged_in_small_batches(sides: tuple[int, int], count: int) -> None:
    split = tiny_split()
    assert evaluation_batch(replace(split, size=sides)) == count
    assert evaluation_batch(replace(split, images=torch.empty(12, 1, *sides, device="meta"))) == count


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_restored_trainer_takes_the_same_steps(
    layout: torch.memory_format, tiny_task: Callable[..., Any], tmp_path: Path
) -> None:
    tasks = [tiny_task(iterations=8) for _ in range(2)]
    whole, resumed = (task.trainer(task.copy_of_dense().to(memory_format=layout)) for task in tasks)
    for _ in range(4):
        whole.step()
    kept = Checkpoints(tmp_path, every_s=0)
    kept.save("a", whole.state, tasks[0].ledger)
    state = kept.load("a", tasks[1].ledger)
    assert state is not None
    resumed.restore(state)
    losses = [[float(trainer.step()) for _ in range(4)] for trainer in (whole, resumed)]
    assert losses[0] == losses[1]
    for one, other in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()

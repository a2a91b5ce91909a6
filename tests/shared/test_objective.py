"""Scores against brute force over pixels and against torchmetrics; the loss against its formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from shared.objective import CLASSIFICATION, UNUSED, Objective, segmentation


def draw_maps(seed: int, classes: int, ignored: int, present: list[int], shape=(3, 4, 5)):  # type: ignore[no-untyped-def]
    """Logits (batch, classes, h, w) and labels (batch, h, w) out of `present`, a quarter of them ignored."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(shape[0], classes, *shape[1:])).astype(np.float32)
    logits[:, :, 0] *= np.isin(np.arange(classes), present)[:, None] * 2 - 1  # some classes are hardly answered
    labels = draw.choice(np.array(present), size=shape)
    labels[draw.random(shape) < 0.25] = ignored
    return torch.from_numpy(logits), torch.from_numpy(labels)


def iou_pixel_by_pixel(answers: np.ndarray, labels: np.ndarray, classes: int, ignored: int) -> float:
    """Mean IoU by sets of pixel numbers."""
    pixels = [(place, label, answer) for place, (label, answer) in enumerate(zip(labels, answers, strict=True))]
    pixels = [pixel for pixel in pixels if pixel[1] != ignored]
    values = []
    for one in range(classes):
        true = {place for place, label, _ in pixels if label == one}
        said = {place for place, _, answer in pixels if answer == one}
        if one != ignored and true | said:
            values.append(len(true & said) / len(true | said))
    return sum(values) / len(values)


maps = {
    "seed": st.integers(0, 10_000),
    "classes": st.integers(2, 6),
    "ignored": st.sampled_from(["beyond", "last", "first"]),
    "present": st.sets(st.integers(0, 5), min_size=1),
}


@given(**maps)
def test_mean_iou_is_that_of_pixel_sets_and_of_torchmetrics(
    seed: int, classes: int, ignored: str, present: set[int]
) -> None:
    out = {"beyond": 255, "last": classes - 1, "first": 0}[ignored]
    labelled = sorted({label % classes for label in present} - {out}) or [1 - min(out, 1)]
    logits, labels = draw_maps(seed, classes, out, labelled)
    objective = segmentation(out)
    parts = [objective.confusion(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
    score = objective.score(torch.stack(parts).sum(0))
    answers = logits.argmax(1).flatten().numpy()
    assert score == pytest.approx(iou_pixel_by_pixel(answers, labels.flatten().numpy(), classes, out))
    assert score == pytest.approx(float(MulticlassJaccardIndex(classes, ignore_index=out)(logits, labels)), abs=1e-6)


def test_answering_the_ignored_class_is_a_miss_and_absent_classes_have_no_value() -> None:
    """By hand: 4 labels of class 0 with answers 0 0 1 3, 2 of class 1 with 1 1; 3 ignored pixels; class 2 is absent."""
    labels = torch.tensor([[[0, 0, 0, 0, 1, 1, 3, 3, 3]]])
    answers = torch.tensor([[[0, 0, 1, 3, 1, 1, 0, 1, 3]]])
    objective = segmentation(3)
    confusion = objective.confusion(torch.nn.functional.one_hot(answers, 4).permute(0, 3, 1, 2).float(), labels)
    assert confusion.tolist() == [[2, 1, 0, 1], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert objective.score(confusion) == pytest.approx((2 / 4 + 2 / 3) / 2)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 12), count=st.integers(1, 40))
def test_top1_accuracy_is_the_share_of_right_answers(seed: int, classes: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    logits, labels = draw.normal(size=(count, classes)), draw.integers(classes, size=count)
    tensors = torch.from_numpy(logits), torch.from_numpy(labels)
    score = CLASSIFICATION.score(CLASSIFICATION.confusion(*tensors))
    assert score == sum(row.argmax() == label for row, label in zip(logits, labels, strict=True)) / count
    assert score == pytest.approx(float(MulticlassAccuracy(classes, average="micro")(*tensors)), abs=1e-6)


@given(seed=st.integers(0, 10_000), weighted=st.booleans())
def test_the_loss_is_the_weighted_mean_over_labelled_pixels(seed: int, weighted: bool) -> None:
    logits, labels = draw_maps(seed, 4, 255, [0, 1, 3])
    weights = (0.5, 2.0, 7.0, 1.25) if weighted else (1.0,) * 4
    total = weight_sum = 0.0
    for image in range(3):
        for row in range(4):
            for column in range(5):
                if (label := int(labels[image, row, column])) != 255:
                    scores = [float(value) for value in logits[image, :, row, column]]
                    total += weights[label] * (math.log(sum(map(math.exp, scores))) - scores[label])
                    weight_sum += weights[label]
    loss = segmentation(255, weights if weighted else None).loss(logits, labels)
    assert float(loss) == pytest.approx(total / weight_sum, rel=1e-4)


def test_the_loss_of_classification_is_plain_cross_entropy_bit_for_bit() -> None:
    logits, labels = torch.randn(50, 10), torch.randint(0, 10, (50,))
    assert torch.equal(CLASSIFICATION.loss(logits, labels), torch.nn.functional.cross_entropy(logits, labels))


@pytest.mark.parametrize(("objective", "label"), [(segmentation(5), 5), (CLASSIFICATION, UNUSED)])
def test_a_split_without_labels_has_no_score(objective: Objective, label: int) -> None:
    confusion = objective.confusion(torch.randn(3, 4), torch.full((3,), label))
    with pytest.raises(ValueError, match=f"other than the ignored {label}"):
        objective.score(confusion)

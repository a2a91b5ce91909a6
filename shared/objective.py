"""What a data set asks of a network: the loss that trains it and the score that judges it.

Classification and segmentation share one form: class logits per image or per pixel, cross-entropy, and a score read
from the confusion matrix of a whole split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.computing import sent

UNUSED = -100  # an ignored label that no data set uses, torch's own default


def top1_accuracy(confusion: Tensor, ignored: int) -> float:
    """Share of right answers in 0..1. confusion: int64 (labels, answers)."""
    return int(confusion.diagonal().sum()) / int(confusion.sum())


def mean_iou(confusion: Tensor, ignored: int) -> float:
    """Mean over classes of TP / (TP + FP + FN) in 0..1, from the pixels of a whole split.

    confusion: int64 (labels, answers) without ignored pixels. The ignored class is no part of the mean, but to answer
    it where a pixel has a label is a miss of that label. A class that is neither present nor answered has no value and
    is left out. As ERFNet and the ECC paper (section 4.1) judge Cityscapes, where every class is present.
    """
    hits = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - hits
    counted = union > 0
    if 0 <= ignored < len(confusion):
        counted[ignored] = False
    return float((hits[counted] / union[counted]).mean())


@dataclass(frozen=True)
class Objective:
    """Loss and score of one kind of task.

    `score_of` maps a confusion matrix and the ignored label to a number in 0..1. Images or pixels labelled `ignored`
    neither train nor count. `class_weights` weigh the classes in the loss, one number per logit.
    """

    score_name: str  # in tables and plots
    score_of: Callable[[Tensor, int], float]
    ignored: int = UNUSED
    class_weights: tuple[float, ...] | None = None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy. logits (batch, classes) and labels (batch,), or both with (h, w) behind."""
        weights = None
        if self.class_weights is not None:
            weights = sent(torch.tensor(self.class_weights, dtype=logits.dtype), logits.device)
        return F.cross_entropy(logits, labels, weights, ignore_index=self.ignored)

    def confusion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How often each label got each answer: int64 (labels, answers), ignored labels left out. Shapes as in `loss`.

        Adds up over batches.
        """
        classes = logits.shape[1]
        counted = labels != self.ignored
        pairs = labels[counted] * classes + logits.argmax(1)[counted]
        return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)

    def score(self, confusion: Tensor) -> float:
        """The score in 0..1 of a split. Raises ValueError when it has no label that counts."""
        if not confusion.any():
            raise ValueError(f"expected labels other than the ignored {self.ignored}, got none; try more images")
        return self.score_of(confusion, self.ignored)


CLASSIFICATION = Objective("top-1 accuracy", top1_accuracy)


def segmentation(ignored: int = UNUSED, class_weights: tuple[float, ...] | None = None) -> Objective:
    """Cross-entropy per pixel, judged by mean IoU. `ignored` may be a class of the network's own or a label beyond."""
    return Objective("mean IoU", mean_iou, ignored, class_weights)

"""The training loss and the score that belong to a data set's task.

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

UNUSED = -100  # torch's default ignore_index; no data set has this label


def top1_accuracy(confusion: Tensor, ignored: int) -> float:
    """Share of correct predictions, 0..1. confusion: int64 (labels, predictions)."""
    return int(confusion.diagonal().sum()) / int(confusion.sum())


def mean_iou(confusion: Tensor, ignored: int) -> float:
    """Mean over classes of TP / (TP + FP + FN), 0..1, from the pixels of a whole split.

    confusion: int64 (labels, predictions) without pixels whose label is ignored. The ignored class has no IoU of its
    own, but predicting it is a false negative of the pixel's label. A class that is neither present nor predicted is
    left out of the mean. ERFNet and the ECC paper (section 4.1) score Cityscapes so; every class is present there.
    """
    true_positives = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - true_positives
    counted = union > 0
    if 0 <= ignored < len(confusion):
        counted[ignored] = False
    return float((true_positives[counted] / union[counted]).mean())


@dataclass(frozen=True)
class Objective:
    """Loss and score of one kind of task.

    Images or pixels labelled `ignored` add nothing to the loss or the score.
    """

    score_name: str  # in tables and plots
    score_of: Callable[[Tensor, int], float]  # (confusion matrix, ignored label) -> score in 0..1
    ignored: int = UNUSED
    class_weights: tuple[float, ...] | None = None  # of the classes in the loss, one per logit; None: all equal

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of logits (batch, classes) and labels (batch,); both end in (h, w) for pixel labels."""
        weights = None
        if self.class_weights is not None:
            weights = sent(torch.tensor(self.class_weights, dtype=logits.dtype), logits.device)
        return F.cross_entropy(logits, labels, weights, ignore_index=self.ignored)

    def confusion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Confusion matrix: int64 (labels, predictions), without ignored labels. Shapes as in `loss`.

        Matrices of batches add up to that of the split.
        """
        classes = logits.shape[1]
        counted = labels != self.ignored
        pairs = labels[counted] * classes + logits.argmax(1)[counted]
        return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)

    def score(self, confusion: Tensor) -> float:
        """The score, 0..1, of a split's confusion matrix. Raises ValueError when all labels are ignored."""
        if not confusion.any():
            raise ValueError(f"expected labels other than the ignored {self.ignored}, got none; try more images")
        return self.score_of(confusion, self.ignored)


CLASSIFICATION = Objective("top-1 accuracy", top1_accuracy)


def segmentation(ignored: int = UNUSED, class_weights: tuple[float, ...] | None = None) -> Objective:
    """Cross-entropy per pixel, scored by mean IoU. `ignored` may be one of the network's classes or another label."""
    return Objective("mean IoU", mean_iou, ignored, class_weights)

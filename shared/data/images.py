"""Splits held in memory, and batches that are a pure function of (seed, iteration)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from shared.rng import generator


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split.

    images: uint8 (n, channels, h, w); labels: int64 (n,); mean and std: of the training images scaled to 0..1.
    """

    images: Tensor
    labels: Tensor
    mean: float
    std: float

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        """The same split on another device."""
        return Split(self.images.to(device), self.labels.to(device), self.mean, self.std)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float images (b, channels, h, w) in channels-last layout, and labels (b,)."""
        indices = indices.to(self.labels.device)
        images = self.images[indices].float().div_(255.0).sub_(self.mean).div_(self.std)
        return images.contiguous(memory_format=torch.channels_last), self.labels[indices]

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `limit` images (all of them by default) in their order."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, batch_size):
            yield self.take(torch.arange(start, min(start + batch_size, count)))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set's three splits and what identifies it."""

    name: str
    train: Split
    search: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str  # of the files and of the rule that splits them

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, "order", epoch))


class BatchStream:
    """Augmented training batches; batch i depends on (seed, i) alone, so a run can stop and go on anywhere.

    Every epoch visits the images in a new order; what is left over after the last whole batch of an epoch is dropped.
    Augmentation: a shift of up to `shift` pixels with zero-valued (black) filling and a horizontal flip, each drawn
    per image.
    """

    def __init__(self, split: Split, seed: int, batch_size: int, *, shift: int = 2) -> None:
        if not 0 < batch_size <= len(split):
            raise ValueError(f"expected a batch size in 1..{len(split)}, got {batch_size}; try 64")
        self.split, self.seed, self.batch_size, self.shift = split, seed, batch_size, shift

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch `index`: float images (batch, channels, h, w), labels (batch,)."""
        per_epoch = len(self.split) // self.batch_size
        epoch, place = divmod(index, per_epoch)
        order = _epoch_order(len(self.split), self.seed, epoch)
        images, labels = self.split.take(order[place * self.batch_size : (place + 1) * self.batch_size])
        return self._augment(images, generator(self.seed, "augment", index)), labels

    def _augment(self, images: Tensor, draw: torch.Generator) -> Tensor:
        count, channels, height, width = images.shape
        black = -self.split.mean / self.split.std
        padded = torch.nn.functional.pad(images, [self.shift] * 4, value=black)
        top, left = torch.randint(0, 2 * self.shift + 1, (2, count, 1), generator=draw).to(images.device)
        flip = (torch.rand(count, 1, generator=draw) < 0.5).to(images.device)
        columns = torch.arange(width, device=images.device).expand(count, width)
        columns = torch.where(flip, width - 1 - columns, columns) + left  # (batch, w)
        rows = torch.arange(height, device=images.device) + top  # (batch, h)
        flat = padded.permute(0, 2, 3, 1).reshape(-1, channels)  # a view: the images are channels-last
        image = torch.arange(count, device=images.device)[:, None, None] * padded.shape[2]
        places = (image + rows[:, :, None]) * padded.shape[3] + columns[:, None, :]  # (batch, h, w)
        return flat[places].permute(0, 3, 1, 2)  # (batch, channels, h, w), channels-last

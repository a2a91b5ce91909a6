"""What a data set is, splits held in memory, and batches that are a pure function of (seed, iteration)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.cache import atomic_write, cache_dir, content_key
from shared.computing import sent
from shared.objective import CLASSIFICATION, Objective
from shared.rng import generator

TOLD_EVERY_S = 60.0  # how far a check of files is


class Images(Protocol):
    """One split, wherever its images lie."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""

    @property
    def label_shape(self) -> tuple[int, ...]:
        """What has a label: () an image, (height, width) each of its pixels."""

    @property
    def objective(self) -> Objective:
        """Loss and score of the data set's task."""

    @property
    def device(self) -> torch.device:
        """Where its batches lie."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float images (b, channels, h, w) in channels-last layout, and labels, int64 (b, *label_shape)."""

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `limit` images (all of them by default) in their order."""

    def stream(self, seed: int, batch_size: int) -> Batches:
        """Its augmented training batches."""

    def to(self, device: torch.device | str) -> Images:
        """The same split, whose batches lie on that device."""

    def resized(self, size: tuple[int, int]) -> Images:
        """The same images at another (height, width). Raises ValueError where that can't be."""

    def scaled(self, mean: float, std: float) -> Images:
        """The same images, all channels of which are (pixel - mean) / std of pixels in 0..1."""

    def check(self, read: Callable[[int], None]) -> None:
        """Read all that lies in files; `read` is told how many images more. Raises BadFile naming one that can't be
        used.
        """


class Batches(Protocol):
    """Augmented training batches of a split; batch i depends on the seed and i alone."""

    @property
    def split(self) -> Images:
        """Where they come from."""

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch `index`: float images (batch, channels, h, w), labels (batch, *label_shape)."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split, in memory.

    images: uint8 (n, channels, h, w); labels: (n,) of images or (n, h, w) of pixels; mean and std: of the training
    images scaled to 0..1; size: (height, width) that images are resized to when they are taken.
    """

    images: Tensor
    labels: Tensor
    mean: float
    std: float
    objective: Objective = CLASSIFICATION
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, *(self.size or (height, width))

    @property
    def label_shape(self) -> tuple[int, ...]:
        """What has a label: () an image, (height, width) each of its pixels."""
        return tuple(self.labels.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where its images and labels, and so its batches, lie."""
        return self.images.device

    def stream(self, seed: int, batch_size: int) -> BatchStream:
        """Its augmented training batches."""
        return BatchStream(self, seed, batch_size)

    def resized(self, size: tuple[int, int]) -> Split:
        """The same images at another (height, width) by antialiased bilinear interpolation.

        Raises ValueError where pixels have labels, which can't be interpolated.
        """
        if self.label_shape:
            raise ValueError(f"expected {self.label_shape}, the size of the label maps, got {size}; try that")
        return replace(self, size=size)

    def scaled(self, mean: float, std: float) -> Split:
        """The same images, all channels of which are (pixel - mean) / std of pixels in 0..1."""
        return replace(self, mean=mean, std=std)

    def check(self, read: Callable[[int], None]) -> None:
        """Nothing lies in files any more."""

    def to(self, device: torch.device | str) -> Split:
        """The same split on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float images (b, channels, h, w) in channels-last layout, and labels, int64 (b,) or (b, h, w)."""
        indices = sent(indices, self.device)
        images = self.images[indices].float().div_(255.0).sub_(self.mean).div_(self.std)
        if self.size is not None:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        return images.contiguous(memory_format=torch.channels_last), self.labels[indices].long()

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `limit` images (all of them by default) in their order."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, batch_size):
            yield self.take(torch.arange(start, min(start + batch_size, count)))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set's three splits and what identifies it."""

    name: str
    train: Images
    search: Images
    test: Images
    classes: tuple[str, ...]
    fingerprint: str  # of the files and of the rule that splits them
    folder: Path | None = None  # of files that are read as they are used
    unscaled: str | None = None  # the fingerprint before `scaled`

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return self.train.image_shape

    @property
    def label_shape(self) -> tuple[int, ...]:
        """What has a label: () an image, (height, width) each of its pixels."""
        return self.train.label_shape

    @property
    def objective(self) -> Objective:
        """Loss and score of its task."""
        return self.train.objective

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set, whose batches lie on that device."""
        return replace(self, train=self.train.to(device), search=self.search.to(device), test=self.test.to(device))

    def resized(self, size: tuple[int, int]) -> Dataset:
        """The same images at another (height, width), itself where they have it. Raises as its splits do."""
        if size == self.input_shape[1:]:
            return self
        train, search, test = (split.resized(size) for split in (self.train, self.search, self.test))
        fingerprint = content_key(self.fingerprint, size)
        return replace(self, train=train, search=search, test=test, fingerprint=fingerprint)

    def scaled(self, mean: float, std: float) -> Dataset:
        """The same images, all channels of which are (pixel - mean) / std of pixels in 0..1."""
        train, search, test = (split.scaled(mean, std) for split in (self.train, self.search, self.test))
        fingerprint, unscaled = content_key(self.fingerprint, mean, std), self.unscaled or self.fingerprint
        return replace(self, train=train, search=search, test=test, fingerprint=fingerprint, unscaled=unscaled)

    def check(self, say: Callable[[str], None]) -> None:
        """Read every file once, so that none that is damaged ends a training days later; not again in this folder,
        however pixels are scaled.

        `say` is told how far it is, each minute. Raises BadFile naming a file that can't be used.
        """
        if self.folder is None:
            return
        mark = cache_dir() / "checked" / content_key(str(self.folder.resolve()), self.unscaled or self.fingerprint)
        if mark.exists():
            return
        splits = self.train, self.search, self.test
        total, done, began_s, told_s = sum(map(len, splits)), 0, time.monotonic(), 0.0

        def read(count: int) -> None:
            nonlocal done, told_s
            done += count
            taken_s = time.monotonic() - began_s
            if taken_s - told_s >= TOLD_EVERY_S:
                told_s, left_min = taken_s, taken_s * (total / done - 1) / 60
                say(f"{done:,} of {total:,} images read, about {left_min:.0f} min to go")

        say(f"reading all {total:,} images in {self.folder} once, to find damaged files now")
        for split in splits:
            split.check(read)
        atomic_write(mark, b"")


def batch_members(count: int, seed: int, batch_size: int, index: int) -> Tensor:
    """Which of `count` images training batch `index` holds; every epoch visits them in a new order."""
    epoch, place = divmod(index, count // batch_size)
    return _epoch_order(count, seed, epoch)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, "order", epoch))


class BatchStream:
    """Augmented training batches; batch i depends on (seed, i) alone, so a run can stop and go on anywhere.

    Every epoch visits the images in a new order; what is left over after the last whole batch of an epoch is dropped.
    Augmentation: a shift of up to `shift` pixels and a horizontal flip, each drawn per image, of the image and of its
    label map if it has one. What comes in from outside is zero-valued (black) and has the ignored label.
    """

    def __init__(self, split: Split, seed: int, batch_size: int, *, shift: int = 2) -> None:
        if not 0 < batch_size <= len(split):
            raise ValueError(f"expected a batch size in 1..{len(split)}, got {batch_size}; try 64")
        self.split, self.seed, self.batch_size, self.shift = split, seed, batch_size, shift

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch `index`: float images (batch, channels, h, w), labels (batch,) or (batch, h, w)."""
        images, labels = self.split.take(batch_members(len(self.split), self.seed, self.batch_size, index))
        sources = self._sources(images, generator(self.seed, "augment", index))
        black = -self.split.mean / self.split.std
        if labels.ndim > 1:
            labels = self._moved(labels[:, None], sources, self.split.objective.ignored).squeeze(1)
        return self._moved(images, sources, black), labels

    def _sources(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """Where each pixel comes from in the padded images, all pixels counted through: int64 (batch, h, w)."""
        count, _, height, width = images.shape
        top, left = sent(torch.randint(0, 2 * self.shift + 1, (2, count, 1), generator=draw), images.device)
        flip = sent(torch.rand(count, 1, generator=draw) < 0.5, images.device)
        columns = torch.arange(width, device=images.device).expand(count, width)
        columns = torch.where(flip, width - 1 - columns, columns) + left  # (batch, w)
        rows = torch.arange(height, device=images.device) + top  # (batch, h)
        image = torch.arange(count, device=images.device)[:, None, None] * (height + 2 * self.shift)
        return (image + rows[:, :, None]) * (width + 2 * self.shift) + columns[:, None, :]

    def _moved(self, maps: Tensor, sources: Tensor, outside: float) -> Tensor:
        """maps (batch, channels, h, w) with the pixels at `sources` after padding with `outside`."""
        padded = F.pad(maps, [self.shift] * 4, value=outside)
        flat = padded.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])  # a view where the maps are channels-last
        return flat[sources].permute(0, 3, 1, 2)  # (batch, channels, h, w), channels-last

"""The interface of data sets, splits in memory, and batches that are a pure function of (seed, iteration)."""

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
from shared.errors import printable
from shared.objective import CLASSIFICATION, Objective
from shared.rng import generator

REPORT_EVERY_S = 60.0  # between two progress messages of a check of files


class Images(Protocol):
    """One split, in memory (Split) or in files (FileSplit)."""

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
        """The device of its batches."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float images (b, channels, h, w) in channels-last layout, and labels, int64 (b, *label_shape)."""

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `limit` images (all by default) in order, without augmentation."""

    def stream(self, seed: int, batch_size: int) -> Batches:
        """Its augmented training batches."""

    def to(self, device: torch.device | str) -> Images:
        """The same split with batches on `device`."""

    def resized(self, size: tuple[int, int]) -> Images:
        """The same images at another (height, width). Raises ValueError where the split can't be resized."""

    def scaled(self, mean: float, std: float) -> Images:
        """The same images, all channels of which are (pixel - mean) / std of pixels in 0..1."""

    def check(self, read: Callable[[int], None]) -> None:
        """Read every file once. `read` is called with the number of images read since the last call.

        Raises BadFile naming the first file that can't be used.
        """


class Batches(Protocol):
    """Augmented training batches of a split. Batch i depends on the seed and on i alone."""

    @property
    def split(self) -> Images:
        """The split that the batches come from."""

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch `index`: float images (batch, channels, h, w), labels (batch, *label_shape)."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split, in memory.

    Attributes:
        images: uint8 (n, channels, h, w).
        labels: One per image (n,), or one per pixel (n, h, w).
        mean: Mean of the training images' pixels, scaled to 0..1.
        std: Their standard deviation.
        objective: Loss and score of the task.
        size: (height, width) that images are resized to when they are taken; None for their own.
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
        """The device of its images and labels, and so of its batches."""
        return self.images.device

    def stream(self, seed: int, batch_size: int) -> BatchStream:
        """Its augmented training batches."""
        return BatchStream(self, seed, batch_size)

    def resized(self, size: tuple[int, int]) -> Split:
        """The same images at another (height, width) by antialiased bilinear interpolation.

        Raises ValueError for labels of pixels, since class numbers can't be interpolated.
        """
        if self.label_shape:
            raise ValueError(f"expected {self.label_shape}, the size of the label maps, got {size}; try that")
        return replace(self, size=size)

    def scaled(self, mean: float, std: float) -> Split:
        """The same images, all channels of which are (pixel - mean) / std of pixels in 0..1."""
        return replace(self, mean=mean, std=std)

    def check(self, read: Callable[[int], None]) -> None:
        """Nothing to do: no file is read any more."""

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
        """The first `limit` images (all by default) in order, without augmentation."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, batch_size):
            yield self.take(torch.arange(start, min(start + batch_size, count)))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set's three splits and its identity.

    Attributes:
        name: Id of the data set.
        train: Training split.
        search: Validation split for the methods' own decisions, held out of the training images.
        test: Test split, which the harness alone uses.
        classes: Names of the classes.
        fingerprint: Hash of the files and of the rule that splits them.
        folder: Folder of files that are read while they are used; None for a data set in memory.
        unscaled: The fingerprint before `scaled`; None where it was not called.
    """

    name: str
    train: Images
    search: Images
    test: Images
    classes: tuple[str, ...]
    fingerprint: str
    folder: Path | None = None
    unscaled: str | None = None

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
        """Loss and score of the task."""
        return self.train.objective

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with batches on `device`."""
        return replace(self, train=self.train.to(device), search=self.search.to(device), test=self.test.to(device))

    def resized(self, size: tuple[int, int]) -> Dataset:
        """The same images at another (height, width). Raises ValueError where a split can't be resized."""
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
        """Read every file once, so that a damaged one does not end a training after days.

        A folder that passed is not checked again; the scaling of pixels makes no difference. `say` receives a progress
        message every minute. Raises BadFile naming the first file that can't be used.
        """
        if self.folder is None:
            return
        mark = cache_dir() / "checked" / content_key(str(self.folder.resolve()), self.unscaled or self.fingerprint)
        if mark.exists():
            return
        splits = self.train, self.search, self.test
        total, done, start_s, reported_s = sum(map(len, splits)), 0, time.monotonic(), 0.0

        def read(count: int) -> None:
            nonlocal done, reported_s
            done += count
            taken_s = time.monotonic() - start_s
            if taken_s - reported_s >= REPORT_EVERY_S:
                reported_s, left_min = taken_s, taken_s * (total / done - 1) / 60
                say(f"{done:,} of {total:,} images read, about {left_min:.0f} min to go")

        say(f"reading all {total:,} images in {printable(self.folder)} once, to find damaged files now")
        for split in splits:
            split.check(read)
        atomic_write(mark, b"")


def batch_members(count: int, seed: int, batch_size: int, index: int) -> Tensor:
    """Indices of the images, out of `count`, in training batch `index`. Every epoch has a new order."""
    epoch, place = divmod(index, count // batch_size)
    return _epoch_order(count, seed, epoch)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=4)  # all batches of an epoch share its order
def _epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, "order", epoch))


class BatchStream:
    """Augmented training batches. Batch i depends on (seed, i) alone, so a run can stop and resume anywhere.

    Every epoch visits the images in a new order and drops the last, incomplete batch. Augmentation: a shift of up to
    `shift` pixels each way and a horizontal flip, drawn per image and applied to its label map, too. Pixels that are
    shifted in from outside are black and have the ignored label.
    """

    def __init__(self, split: Split, seed: int, batch_size: int, *, shift: int = 2) -> None:
        if not 0 < batch_size <= len(split):
            raise ValueError(f"expected a batch size in 1..{len(split)}, got {batch_size}; try 64")
        self.split, self.seed, self.batch_size, self.shift = split, seed, batch_size, shift

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch `index`: float images (batch, channels, h, w), labels (batch,) or (batch, h, w)."""
        images, labels = self.split.take(batch_members(len(self.split), self.seed, self.batch_size, index))
        sources = self._sources(images, generator(self.seed, "augment", index))
        black = -self.split.mean / self.split.std  # a pixel of 0 after normalisation
        if labels.ndim > 1:
            labels = self._moved(labels[:, None], sources, self.split.objective.ignored).squeeze(1)
        return self._moved(images, sources, black), labels

    def _sources(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """For each output pixel the flat index of its source in the padded images of the batch: int64 (batch, h, w)."""
        count, _, height, width = images.shape
        top, left = sent(torch.randint(0, 2 * self.shift + 1, (2, count, 1), generator=draw), images.device)
        flip = sent(torch.rand(count, 1, generator=draw) < 0.5, images.device)
        columns = torch.arange(width, device=images.device).expand(count, width)
        columns = torch.where(flip, width - 1 - columns, columns) + left  # (batch, w)
        rows = torch.arange(height, device=images.device) + top  # (batch, h)
        image = torch.arange(count, device=images.device)[:, None, None] * (height + 2 * self.shift)
        return (image + rows[:, :, None]) * (width + 2 * self.shift) + columns[:, None, :]

    def _moved(self, maps: Tensor, sources: Tensor, outside: float) -> Tensor:
        """The pixels at `sources` of `maps` (batch, channels, h, w) padded with the value `outside`."""
        padded = F.pad(maps, [self.shift] * 4, value=outside)
        flat = padded.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])  # a view where the maps are channels-last
        return flat[sources].permute(0, 3, 1, 2)  # (batch, channels, h, w), channels-last

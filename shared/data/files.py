"""Splits whose images are files. Worker processes read, decode and augment them ahead of their use.

Workers send batches as arrays through pipes. Tensors would go through /dev/shm, which holds 64 MB in a container: less
than two batches of 256 images of ImageNet, while each worker reads two ahead.

The contents of a batch are a pure function of (seed, index), whatever the number of workers and the order of calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Pictures

from shared.data.decoding import decoded, open_image
from shared.data.images import batch_members
from shared.data.listing import checked_folder, groups, held_out, once, pictures, sizes
from shared.errors import BadFile, BadInput
from shared.host import usable_cores
from shared.objective import CLASSIFICATION, Objective
from shared.rng import derived_seed

__all__ = [
    "FileSplit",
    "FileStream",
    "Pairs",
    "Request",
    "checked_folder",
    "decoded",
    "groups",
    "held_out",
    "once",
    "open_image",
    "pictures",
    "sizes",
]

Pairs = Pictures[Any] | Sequence[tuple[Image.Image, Any]]  # (image, label) by index
Transform = Callable[[Image.Image, Any], tuple[Tensor, Tensor]]
MOST_WORKERS = 16
CHECKED_AT_ONCE = 64  # pictures per task of a worker
CPU = torch.device("cpu")


class Request(NamedTuple):
    """One image of a batch. image: its index. seed: of its augmentation; None for none."""

    image: int
    seed: int | None = None


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Images of one split, in files.

    Attributes:
        pictures: pictures[i] is (image, label); raises BadInput naming a file that can't be used.
        evaluation: Turns such a pair into tensors: image, uint8 of `image_shape`, and label, int64 of `label_shape`.
        training: The same with augmentation, drawn from torch's global CPU generator.
        image_shape: (channels, height, width).
        mean: Per channel, of the training images' pixels scaled to 0..1.
        std: Per channel, likewise.
        label_shape: () for a label per image, (height, width) for a label per pixel.
        objective: Loss and score of the task.
        device: The device of its batches.
        workers: Number of processes that read files; 0 reads in this process, None uses all cores but one.
    """

    pictures: Pairs
    evaluation: Transform
    training: Transform
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_shape: tuple[int, ...] = ()
    objective: Objective = CLASSIFICATION
    device: torch.device = CPU
    workers: int | None = None

    def __len__(self) -> int:
        return len(self.pictures)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> FileSplit:
        """The same split with batches on `device`."""
        return replace(self, device=torch.device(device))

    def resized(self, size: tuple[int, int]) -> FileSplit:
        """Raises ValueError: the size is fixed by the transforms that read the files."""
        raise ValueError(f"expected images of {self.image_shape[1:]} pixels, got {size}; try a network of that size")

    def scaled(self, mean: float, std: float) -> FileSplit:
        """The same images, all channels of which are (pixel - mean) / std of pixels in 0..1."""
        channels = len(self.mean)
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float images (b, channels, h, w) in channels-last layout, and labels, int64 (b, *label_shape).

        Raises BadFile naming a file that can't be used, as do all methods that read.
        """
        reader = _Reader(self)
        return self.finished(_together([reader[Request(index)] for index in indices.tolist()]))

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `limit` images (all by default) in order, without augmentation."""
        count = len(self) if limit is None else min(limit, len(self))
        starts = range(0, count, batch_size)
        requests = ([Request(i) for i in range(start, min(start + batch_size, count))] for start in starts)
        return map(self.finished, self.reading(requests))

    def stream(self, seed: int, batch_size: int) -> FileStream:
        """Its augmented training batches."""
        return FileStream(self, seed, batch_size)

    def check(self, read: Callable[[int], None]) -> None:
        """Read every image and its label once. `read` is called with the number of images read since the last call.

        Raises BadFile naming the first file that can't be used.
        """
        unused = replace(self, evaluation=_left_out, mean=(0.0,), std=(1.0,), device=CPU)
        for images, _ in unused.batches(CHECKED_AT_ONCE):
            read(len(images))

    def reading(self, requests: Iterable[list[Request]]) -> DataLoader:
        """The requested batches as the workers return them, read ahead. Pass each to `finished`."""
        return DataLoader(
            _Reader(self.to(CPU)),  # a forked worker can't use CUDA
            batch_sampler=requests,
            num_workers=_other_cores() if self.workers is None else self.workers,
            collate_fn=_together,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or the DataLoader would draw from torch's global generator
        )

    def finished(self, batch: _Arrays | tuple[Tensor, Tensor] | BadInput) -> tuple[Tensor, Tensor]:
        """A batch from `reading` on the device, normalised. Raises BadFile for an error that a worker returned."""
        if isinstance(batch, BadInput):
            # a new error: the traceback of `batch` would keep it and the workers alive in a reference cycle
            raise BadFile(*batch.parts)
        given = batch.tensors() if isinstance(batch, _Arrays) else batch
        images, labels = (tensor.to(self.device, non_blocking=True) for tensor in given)
        mean, std = self._scale
        return images.float().div_(255.0).sub_(mean).div_(std), labels

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """mean and std (channels, 1, 1) on the device, copied once, since each copy to it waits."""
        both = torch.tensor([self.mean, self.std], dtype=torch.float32, device=self.device)[:, :, None, None]
        return both[0], both[1]


class FileStream:
    """Augmented training batches of a `FileSplit`, in the order of `BatchStream`. Batch i depends on (seed, i) alone.

    The workers read ahead in the order of the index. A call for another index gives the right batch, after the time to
    read it.
    """

    def __init__(self, split: FileSplit, seed: int, batch_size: int) -> None:
        if not 0 < batch_size <= len(split):
            raise ValueError(f"expected a batch size in 1..{len(split)}, got {batch_size}; try 64")
        self.split, self.seed, self.batch_size = split, seed, batch_size
        self._requests = _Requests(len(split), seed, batch_size)
        self._batches: Iterator[Any] | None = None

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Batch `index`: float images (batch, channels, h, w), labels (batch, *label_shape)."""
        requests = self._requests
        if index not in requests.given:
            requests.next = index
        if self._batches is None:
            self._batches = iter(self.split.reading(requests))
        while True:  # skips batches that were read ahead before the index jumped
            batch = next(self._batches)
            if requests.given.popleft() == index:
                return self.split.finished(batch)


class _Requests:
    """The endless requests of a stream from batch `next` on. given: batches that workers have and nobody has taken."""

    def __init__(self, count: int, seed: int, batch_size: int) -> None:
        self.count, self.seed, self.batch_size = count, seed, batch_size
        self.next = 0
        self.given: deque[int] = deque()

    def __iter__(self) -> Iterator[list[Request]]:
        while True:
            index, self.next = self.next, self.next + 1
            self.given.append(index)
            members = batch_members(self.count, self.seed, self.batch_size, index).tolist()
            first = index * self.batch_size  # seeds follow the place in the stream, not the worker that reads
            yield [
                Request(image, derived_seed(self.seed, "augment", first + place)) for place, image in enumerate(members)
            ]


class _Reader(Pictures[Any]):
    """Runs in the workers. It returns BadInput as a value, since a DataLoader would change the error's message."""

    def __init__(self, split: FileSplit) -> None:
        self.split = split

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | BadInput:
        try:
            image, label = self.split.pictures[request.image]
        except BadInput as error:
            return error
        if request.seed is None:
            return self.split.evaluation(image, label)
        with torch.random.fork_rng(devices=()):  # the CPU generator alone: a forked process can't use CUDA
            torch.default_generator.manual_seed(request.seed)
            return self.split.training(image, label)


def _left_out(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
    """Nothing of a picture, where it is enough that it could be read."""
    return torch.empty(1, 0, 0), torch.empty(0)


@dataclass(frozen=True)
class _Arrays:
    """A batch on its way from a worker. images: uint8 (b, h, w, channels). labels: int64 (b, *label_shape)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images (b, channels, h, w) in channels-last layout, and labels, of the same memory."""
        return torch.from_numpy(self.images).permute(0, 3, 1, 2), torch.from_numpy(self.labels)

    def pin_memory(self) -> tuple[Tensor, Tensor]:
        """The tensors in pinned memory. A DataLoader with `pin_memory` calls it."""
        images, labels = self.tensors()
        return images.pin_memory(), labels.pin_memory()


def _together(pairs: Sequence[tuple[Tensor, Tensor] | BadInput]) -> _Arrays | BadInput:
    """One batch, or the first error."""
    for pair in pairs:
        if isinstance(pair, BadInput):
            return pair
    images, labels = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
    return _Arrays(images.permute(0, 2, 3, 1).contiguous().numpy(), labels.numpy())


def _other_cores() -> int:
    return min(usable_cores() - 1, MOST_WORKERS)

"""Splits whose images lie in files: worker processes read, decode and augment them ahead of their use.

What a batch holds is a pure function of (seed, index), whatever the number of workers and the order of asking.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Pictures

from shared.data.images import batch_members
from shared.errors import BadFile, BadInput
from shared.objective import CLASSIFICATION, Objective
from shared.rng import derived_seed

Transform = Callable[[Image.Image, Any], tuple[Tensor, Tensor]]
MOST_WORKERS = 16
CHECKED_AT_ONCE = 64  # pictures that a worker is given
CPU = torch.device("cpu")


class Request(NamedTuple):
    """One image of a batch; `seed` is of its augmentation, None for the image as it is."""

    image: int
    seed: int | None = None


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Images of one split, in files.

    pictures[i] is (image, label) and raises BadInput naming a file that can't be used. `evaluation` makes of them uint8
    (channels, h, w) = `image_shape` and int64 `label_shape`; `training` does too, augmented by draws from torch's
    global CPU generator. mean and std: per channel, of the training images scaled to 0..1. workers: processes that
    read; 0 reads in this one.
    """

    pictures: Pictures[tuple[Image.Image, Any]]
    evaluation: Transform
    training: Transform
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_shape: tuple[int, ...] = ()
    objective: Objective = CLASSIFICATION
    device: torch.device = CPU
    workers: int | None = None  # as many as there are other cores

    def __len__(self) -> int:
        return len(self.pictures)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> FileSplit:
        """The same split, whose batches lie on another device."""
        return replace(self, device=torch.device(device))

    def resized(self, size: tuple[int, int]) -> FileSplit:
        """Raises ValueError: the size is part of how the files are read."""
        raise ValueError(f"expected images of {self.image_shape[1:]} pixels, got {size}; try a network of that size")

    def scaled(self, mean: float, std: float) -> FileSplit:
        """The same images, all channels of which are (pixel - mean) / std of pixels in 0..1."""
        channels = len(self.mean)
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float images (b, channels, h, w) in channels-last layout, and labels, int64 (b, *label_shape).

        Raises BadFile naming a file that can't be used, as all reading here does.
        """
        reader = _Reader(self)
        return self.finished(_together([reader[Request(index)] for index in indices.tolist()]))

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `limit` images (all of them by default) in their order."""
        count = len(self) if limit is None else min(limit, len(self))
        starts = range(0, count, batch_size)
        requests = [[Request(i) for i in range(start, min(start + batch_size, count))] for start in starts]
        return map(self.finished, self.reading(requests))

    def stream(self, seed: int, batch_size: int) -> FileStream:
        """Its augmented training batches."""
        return FileStream(self, seed, batch_size)

    def check(self, read: Callable[[int], None]) -> None:
        """Read every image with its label; `read` is told how many more, as it goes. Raises BadFile naming one that
        can't be used.
        """
        workers = _other_cores() if self.workers is None else self.workers
        own = torch.Generator()  # as in `reading`
        faults = DataLoader(
            _Faults(self.pictures), CHECKED_AT_ONCE, num_workers=workers, collate_fn=_first, generator=own
        )
        for place, fault in enumerate(faults):
            if fault is not None:
                raise BadFile(*fault.parts)
            read(min(CHECKED_AT_ONCE, len(self) - place * CHECKED_AT_ONCE))

    def reading(self, requests: Iterable[list[Request]]) -> DataLoader:
        """What is requested, batch by batch, read ahead by the workers; to be `finished`."""
        return DataLoader(
            _Reader(self.to(CPU)),  # workers know no other device
            batch_sampler=requests,
            num_workers=_other_cores() if self.workers is None else self.workers,
            collate_fn=_together,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # of seeds that no worker uses; else they would come from the global one
        )

    def finished(self, batch: tuple[Tensor, Tensor] | BadInput) -> tuple[Tensor, Tensor]:
        """A batch on the device, images as normalised floats; raises what a worker could only return."""
        if isinstance(batch, BadInput):
            raise BadFile(*batch.parts)  # not `batch`, whose traceback would hold it and the workers in a cycle
        images, labels = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        mean, std = self._scale
        return images.float().div_(255.0).sub_(mean).div_(std), labels

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """mean and std, (channels, 1, 1) on the device: sent once, since each sending waits for it."""
        both = torch.tensor([self.mean, self.std], dtype=torch.float32, device=self.device)[:, :, None, None]
        return both[0], both[1]


class FileStream:
    """Augmented training batches of a `FileSplit`, in the order of `BatchStream`: batch i depends on (seed, i) alone.

    The workers go on with the batches behind the one that was asked last; asking for any other is right, and costs the
    time to read it.
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
        while True:  # past those that were read ahead in vain
            batch = next(self._batches)
            if requests.given.popleft() == index:
                return self.split.finished(batch)


class _Requests:
    """The batches of a stream from `next` on, without end; `given` are those handed to the workers, not yet taken."""

    def __init__(self, count: int, seed: int, batch_size: int) -> None:
        self.count, self.seed, self.batch_size = count, seed, batch_size
        self.next = 0
        self.given: deque[int] = deque()

    def __iter__(self) -> Iterator[list[Request]]:
        while True:
            index, self.next = self.next, self.next + 1
            self.given.append(index)
            members = batch_members(self.count, self.seed, self.batch_size, index).tolist()
            first = index * self.batch_size
            yield [
                Request(image, derived_seed(self.seed, "augment", first + place)) for place, image in enumerate(members)
            ]


class Blank(Pictures[tuple[Image.Image, Any]]):
    """One picture `count` times: for a plan where the files are elsewhere."""

    def __init__(self, count: int, image: Image.Image, label: Any) -> None:
        self.count, self.pair = count, (image, label)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        return self.pair


class _Reader(Pictures[Any]):
    """Runs in the workers. BadInput is handed over as a value, since a DataLoader makes other errors of it."""

    def __init__(self, split: FileSplit) -> None:
        self.split = split

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | BadInput:
        try:
            image, label = self.split.pictures[request.image]
        except BadInput as error:
            return error
        if request.seed is None:
            return self.split.evaluation(image, label)
        with torch.random.fork_rng(devices=()):  # the CPU's alone: a forked process can't ask CUDA
            torch.default_generator.manual_seed(request.seed)
            return self.split.training(image, label)


class _Faults(Pictures[Any]):
    """Runs in the workers too: what is wrong with each picture, None where nothing is."""

    def __init__(self, pictures: Pictures[Any]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> BadInput | None:
        try:
            self.pictures[index]
        except BadInput as error:
            return error
        return None


def _first(faults: Sequence[BadInput | None]) -> BadInput | None:
    return next((fault for fault in faults if fault is not None), None)


def _together(pairs: Sequence[tuple[Tensor, Tensor] | BadInput]) -> tuple[Tensor, Tensor] | BadInput:
    """One batch, images in channels-last layout; the first error where there is one."""
    for pair in pairs:
        if isinstance(pair, BadInput):
            return pair
    images, labels = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
    return images.contiguous(memory_format=torch.channels_last), labels


def _other_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores - 1, MOST_WORKERS)


def open_image(path: str | Path, mode: str | None = "RGB") -> Image.Image:
    """The decoded image in a file, converted to `mode` unless that is None.

    Raises BadInput naming a file that is missing, truncated or no image: when it is read, not before.
    """
    try:
        with Image.open(path) as image:
            if mode is None:
                image.load()
                return image
            return image.convert(mode)
    except Exception as error:  # whatever the bytes of a damaged file lead to
        line = " ".join(str(error).split())
        raise BadInput(f"a whole image in {path}", f"{type(error).__name__}: {line}", "fetching it again") from None


def sizes(folder: Path, paths: Iterable[str]) -> list[tuple[str, int]]:
    """Each file's path from `folder` on and its bytes' number, by which most changes of content show.

    Raises BadInput naming a link that leads nowhere.
    """
    try:
        return [(os.path.relpath(path, folder), os.stat(path).st_size) for path in paths]
    except OSError as error:
        raise BadInput("files that can be read", f"{error.filename} ({error.strerror})", "fetching it again") from None


def held_out(names: Sequence[str], count: int) -> list[int]:
    """The indices, in order, of `count` files that are kept out of training: those whose names hash lowest.

    So they depend on the files' names alone, and a file more or less moves at most one other.
    """
    ranked = sorted(range(len(names)), key=lambda index: hashlib.blake2b(names[index].encode()).digest())
    return sorted(ranked[:count])


def checked_folder(folder: Path | None, name: str, parts: Sequence[str], hint: str) -> Path:
    """`folder` where all `parts` of the data set `name` are folders in it; else raises BadInput naming the first."""
    if folder is None:
        raise BadInput(f"the folder of {name}", "no --data", "--data DIR")
    for part in ("", *parts):
        if not (folder / part).is_dir():
            raise BadInput(f"{name} in {folder}", f"no folder {folder / part}", hint)
    return folder

"""Data sets, each with three splits: train, search (a validation split held out of the training images) and test."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.data.images import Batches, BatchStream, Dataset, Images, Split
from shared.errors import BadInput

__all__ = [
    "BatchStream",
    "Batches",
    "Dataset",
    "Images",
    "Split",
    "in_files",
    "load",
    "names",
    "network_arguments",
    "stand_in",
    "test_images",
]


@dataclass(frozen=True)
class _Source:
    """A data set's module and its properties, which are needed before any file is read.

    Attributes:
        module: Has `load(folder) -> Dataset`, and `stand_in() -> Dataset` where `in_files` is set.
        classes: Number of classes.
        channels: Image channels.
        size: Height of square images, or (height, width).
        in_files: Whether the images are files in a folder of the user's; otherwise they ship with the suite.
    """

    module: str
    classes: int
    channels: int
    size: int | tuple[int, int]
    test_images: int
    in_files: bool = False


_SOURCES = {
    "fashion-mnist": _Source("shared.data.fashion_mnist", 10, 1, 28, 10_000),
    "garment-scenes": _Source("shared.data.garment_scenes", 11, 1, (48, 64), 2_000),
    "imagenet": _Source("shared.data.imagenet", 1000, 3, 224, 50_000, in_files=True),
    "cityscapes": _Source("shared.data.cityscapes", 20, 3, (512, 1024), 500, in_files=True),
}


def names() -> tuple[str, ...]:
    """Ids of all data sets."""
    return tuple(_SOURCES)


def network_arguments(name: str) -> dict[str, Any]:
    """Arguments of shared.networks.build for a network that fits the data set `name`."""
    source = _SOURCES[name]
    return {"num_classes": source.classes, "in_channels": source.channels, "input_size": source.size}


def test_images(name: str) -> int | None:
    """The number of images in the test split of the whole data set, without reading it; None for an unknown name."""
    return _SOURCES[name].test_images if name in _SOURCES else None


def load(name: str, folder: Path | None = None) -> Dataset:
    """The data set `name`. folder: of its files; None for a data set that ships with the suite.

    Raises BadInput for an unknown name and for missing or damaged files.
    """
    if name not in _SOURCES:
        raise BadInput(f"a data set out of {', '.join(names())}", repr(name), "python -m bench datasets")
    loader: Callable[[Path | None], Dataset] = importlib.import_module(_SOURCES[name].module).load
    return loader(folder)


def in_files(name: str) -> bool:
    """Whether the images of `name` are files in a folder of the user's, and do not ship with the suite."""
    return _SOURCES[name].in_files


def stand_in(name: str) -> Dataset:
    """A placeholder for the data set `name` without its folder: the right counts and shapes, and blank images.

    For a data set that ships with the suite, the data set itself.
    """
    module = importlib.import_module(_SOURCES[name].module)
    make: Callable[[], Dataset] = module.stand_in if in_files(name) else module.load
    return make()

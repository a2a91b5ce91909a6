"""Data sets, each split into train, search (held out of the training images) and test."""

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
    """A module with `load(folder) -> Dataset`, and what it loads: known before anything is read."""

    module: str
    classes: int
    channels: int
    size: int | tuple[int, int]  # height of square images or (height, width)
    test_images: int
    in_files: bool = False  # of a person's, else embedded


_SOURCES = {
    "fashion-mnist": _Source("shared.data.fashion_mnist", 10, 1, 28, 10_000),
    "garment-scenes": _Source("shared.data.garment_scenes", 11, 1, (48, 64), 2_000),
    "imagenet": _Source("shared.data.imagenet", 1000, 3, 224, 50_000, in_files=True),
    "cityscapes": _Source("shared.data.cityscapes", 20, 3, (512, 1024), 500, in_files=True),
}


def names() -> tuple[str, ...]:
    """Ids of the data sets that can be loaded."""
    return tuple(_SOURCES)


def network_arguments(name: str) -> dict[str, Any]:
    """What shared.networks.build takes for a network that fits the data set `name`."""
    source = _SOURCES[name]
    return {"num_classes": source.classes, "in_channels": source.channels, "input_size": source.size}


def test_images(name: str) -> int | None:
    """The number of images in the test split of the whole data set, without reading it; None for an unknown name."""
    return _SOURCES[name].test_images if name in _SOURCES else None


def load(name: str, folder: Path | None = None) -> Dataset:
    """The data set `name`; `folder` holds the files of those that are not embedded.

    Raises BadInput for an unknown name and for missing or damaged files.
    """
    if name not in _SOURCES:
        raise BadInput(f"a data set out of {', '.join(names())}", repr(name), "python -m bench datasets")
    loader: Callable[[Path | None], Dataset] = importlib.import_module(_SOURCES[name].module).load
    return loader(folder)


def in_files(name: str) -> bool:
    """Whether the data set `name` lies in a folder of a person's, and is not embedded."""
    return _SOURCES[name].in_files


def stand_in(name: str) -> Dataset:
    """What can be known of the data set `name` without its folder: counts and shapes, and no image. The data set itself
    where it is embedded.
    """
    module = importlib.import_module(_SOURCES[name].module)
    known: Callable[[], Dataset] = module.stand_in if in_files(name) else module.load
    return known()

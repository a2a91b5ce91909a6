"""Data sets, each split into train, search (held out of the training images) and test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shared.data.images import BatchStream, Dataset, Split
from shared.errors import BadInput

__all__ = ["BatchStream", "Dataset", "Split", "load", "names"]

_LOADERS: dict[str, str] = {"fashion-mnist": "shared.data.fashion_mnist"}


def names() -> tuple[str, ...]:
    """Ids of the data sets that can be loaded."""
    return tuple(_LOADERS)


def load(name: str, folder: Path | None = None) -> Dataset:
    """The data set `name`; `folder` holds the files of those that are not embedded.

    Raises BadInput for an unknown name and for missing or damaged files.
    """
    import importlib

    if name not in _LOADERS:
        raise BadInput(f"a data set out of {', '.join(names())}", repr(name), "python -m bench datasets")
    loader: Callable[[Path | None], Dataset] = importlib.import_module(_LOADERS[name]).load
    return loader(folder)

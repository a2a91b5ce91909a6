"""Miniature trees in the real layouts: few, small images with noise of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CITIES = {"train": {"aachen": 13, "bremen": 9}, "val": {"munster": 3}}  # how many images


def write_image(path: Path, size: tuple[int, int], seed: int) -> None:
    """A smooth image with some noise, of (width, height); as JPEG or PNG by its name."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (3, 3, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = draw.integers(-8, 9, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def wnid(number: int) -> str:
    return f"n{1_440_764 + 37 * number:08d}"


@pytest.fixture(scope="session")
def imagenet_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 classes: 30 training images of the first, 2 or 3 of every other, one to test; 24x20 pixels."""
    root = tmp_path_factory.mktemp("imagenet")
    seed = 0
    for number in range(1000):
        for index in range(30 if number == 0 else 2 + number % 2):
            seed += 1
            write_image(root / "train" / wnid(number) / f"{wnid(number)}_{7 * index}.JPEG", (24, 20), seed)
        seed += 1
        write_image(root / "val" / wnid(number) / f"ILSVRC2012_val_{number:08d}.JPEG", (20, 24), seed)
    return root


def label_ids(size: tuple[int, int], seed: int) -> np.ndarray:
    """All label ids of Cityscapes, 0 to 33, at random: uint8 (h, w)."""
    return np.random.default_rng(seed).integers(0, 34, (size[1], size[0]), dtype=np.uint8)


@pytest.fixture(scope="session")
def cityscapes_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 training images in two cities, three to test, 128x64 pixels, label maps with all ids."""
    root, size = tmp_path_factory.mktemp("cityscapes"), (128, 64)
    seed = 0
    for split, cities in CITIES.items():
        for city, count in cities.items():
            for index in range(count):
                seed += 1
                name = f"{city}_{index:06d}_000019"
                write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", size, seed)
                target = root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(label_ids(size, seed)).save(target)
                (target.parent / f"{name}_gtFine_polygons.json").write_text("{}")
    return root

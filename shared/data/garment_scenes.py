"""Garment scenes: several Fashion-MNIST images on one canvas with a label per pixel. Segmentation without a download.

A scene has a noisy grey background and 3 to 5 garments of different sizes. Some are mirrored, some are cut off by the
border, and later ones cover earlier ones. Pixels of a garment's image brighter than FOREGROUND belong to the garment.
The scenes of a split use images of the same split of Fashion-MNIST alone. All arithmetic is exact on integers, so every
machine makes the same scenes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shared.cache import content_key
from shared.data import fashion_mnist
from shared.data.images import Dataset, Split
from shared.errors import BadInput
from shared.objective import segmentation
from shared.rng import numpy_generator

HEIGHT, WIDTH = 48, 64
SIDES = (18, 22, 26, 30)  # side of a garment's image in pixels
FEWEST, MOST = 3, 5  # garments per scene
FOREGROUND = 24  # grey value; pixels of a garment's image up to it are background
DARKEST_GROUND, NOISE = 96, 32  # grey values: the background's level and its noise are drawn below these
SCENES = {"train": 8_000, "search": 1_000, "test": 2_000}
SEED = 117
MEAN, STD = 0.341, 0.220  # of the training scenes, scaled to 0..1
# Class weights of the background and of the garments: 1 / ln(1.1 + share of the pixels), as in ERFNet's published
# training. Without them the garments, each below 4 % of the pixels, are learnt late.
CLASS_WEIGHTS = (1.65, *(8.36,) * 10)
IGNORED = 255  # label of pixels that a shift brings in from outside; no scene has it

Bytes = NDArray[np.uint8]


def interpolation(side: int, source: int = 28) -> NDArray[np.float32]:
    """Bilinear weights (side, source) in 256ths, as whole numbers; rows sum to 256. Pixel centres as in torch."""
    centres = np.clip((2 * np.arange(side) + 1) * source - side, 0, 2 * side * (source - 1))  # in 1/(2 side) pixels
    left, rest = np.divmod(centres, 2 * side)
    share = (rest * 256 + side) // (2 * side)
    weights = np.zeros((side, source + 1), np.float32)
    weights[np.arange(side), left] += 256 - share
    weights[np.arange(side), left + 1] += share
    return weights[:, :source]


def compose(images: Bytes, labels: NDArray[np.int64], count: int, draw: np.random.Generator) -> tuple[Bytes, Bytes]:
    """`count` scenes (count, HEIGHT, WIDTH) and the class of each pixel: 0 for the background, else 1 + label.

    images (n, 28, 28) and labels (n,): the garments to draw from.
    """
    margin = max(SIDES) // 2  # up to half of a garment may be outside the scene
    shape = (count, HEIGHT + 2 * margin, WIDTH + 2 * margin)
    level = draw.integers(DARKEST_GROUND, size=(count, 1, 1), dtype=np.uint8)
    scenes = level + draw.integers(NOISE, size=shape, dtype=np.uint8)
    classes = np.zeros(shape, np.uint8)
    garments = draw.integers(FEWEST, MOST + 1, size=count)
    for layer in range(MOST):
        # drawn for all scenes at once; a scene with fewer garments ignores the rest
        chosen, kind, mirrored, middle_row, middle_column = (
            draw.integers(bound, size=count) for bound in (len(images), len(SIDES), 2, HEIGHT, WIDTH)
        )
        for index, side in enumerate(SIDES):
            scene = np.flatnonzero((kind == index) & (layer < garments))
            source = images[chosen[scene]]
            source = np.where(mirrored[scene, None, None] == 1, source[:, :, ::-1], source).astype(np.float32)
            weights = interpolation(side)
            # integers of at most 255 * 2^16 < 2^24: exact in float32, in any order of summation
            garment = ((weights @ source @ weights.T).astype(np.int32) >> 16).astype(np.uint8)
            offsets = np.arange(side) + margin - side // 2
            rows = (middle_row[scene, None] + offsets)[:, :, None]
            columns = (middle_column[scene, None] + offsets)[:, None, :]
            places = scene[:, None, None], rows, columns
            front = garment > FOREGROUND
            scenes[places] = np.where(front, garment, scenes[places])
            classes[places] = np.where(front, (1 + labels[chosen[scene], None, None]).astype(np.uint8), classes[places])
    inside = np.s_[:, margin:-margin, margin:-margin]
    return np.ascontiguousarray(scenes[inside]), np.ascontiguousarray(classes[inside])


def load(folder: Path | None = None) -> Dataset:
    """8,000 train, 1,000 search and 2,000 test scenes of 48x64 pixels with 11 classes, composed in seconds.

    folder: None, since nothing is read but Fashion-MNIST. Raises BadInput for any folder, and for damaged files of
    Fashion-MNIST.
    """
    if folder is not None:
        raise BadInput("no --data for garment-scenes, which ships with the suite", str(folder), "leaving --data out")
    garments = fashion_mnist.load()
    objective, splits, contents = segmentation(IGNORED, CLASS_WEIGHTS), {}, []
    for name, count in SCENES.items():
        split: Split = getattr(garments, name)
        draw = numpy_generator(SEED, f"garment scenes {name}")
        scenes, classes = compose(split.images.squeeze(1).numpy(), split.labels.numpy(), count, draw)
        contents += [scenes.tobytes(), classes.tobytes()]
        maps = torch.from_numpy(classes)  # (n, h, w)
        splits[name] = Split(torch.from_numpy(scenes).unsqueeze(1), maps, MEAN, STD, objective)
    return Dataset(
        name="garment-scenes",
        train=splits["train"],
        search=splits["search"],
        test=splits["test"],
        classes=("background", *garments.classes),
        fingerprint=content_key(*contents, MEAN, STD, CLASS_WEIGHTS),
    )

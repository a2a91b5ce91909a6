"""Garment scenes: against pixel-by-pixel composition, and that a split shows images of its own alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import data
from shared.data import Dataset, Split, fashion_mnist, garment_scenes
from shared.data.garment_scenes import FOREGROUND, HEIGHT, MOST, SIDES, WIDTH, compose, interpolation
from shared.errors import BadInput


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return data.load("garment-scenes")


def test_sizes_types_and_classes(dataset: Dataset) -> None:
    splits = (dataset.train, dataset.search, dataset.test)
    assert [len(split) for split in splits] == [8_000, 1_000, 2_000]
    assert dataset.input_shape == (1, HEIGHT, WIDTH) == (1, 48, 64)
    assert dataset.classes[0] == "background" and len(dataset.classes) == 11
    assert dataset.objective.score_name == "mean IoU"
    for split in splits:
        assert split.images.shape == (len(split), 1, HEIGHT, WIDTH) and split.images.dtype == torch.uint8
        assert split.labels.shape == (len(split), HEIGHT, WIDTH)
        shares = torch.bincount(split.labels.flatten(), minlength=11) / split.labels.numel()
        assert len(shares) == 11 and shares.min() > 0.01 and 0.6 < shares[0] < 0.8


def test_every_machine_makes_the_same_scenes(dataset: Dataset) -> None:
    """Shipped dense weights stand for this content; numpy's generators and integers give it everywhere."""
    assert dataset.fingerprint == "7bbe7edecef02812"


def test_mean_and_std_are_those_of_the_training_scenes(dataset: Dataset) -> None:
    values = dataset.train.images.double() / 255
    assert dataset.train.mean == pytest.approx(float(values.mean()), abs=1e-3)
    assert dataset.train.std == pytest.approx(float(values.std(correction=0)), abs=1e-3)


@pytest.mark.parametrize("side", [*SIDES, 28, 56])
def test_interpolation_is_bilinear_in_whole_256ths(side: int) -> None:
    weights = interpolation(side)
    assert (weights.sum(1) == 256).all() and (weights == weights.round()).all() and (weights >= 0).all()
    image = np.random.default_rng(side).integers(0, 256, (28, 28)).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None], (side, side), mode="bilinear")
    np.testing.assert_allclose(weights @ image @ weights.T / 2**16, expected[0, 0].numpy(), atol=2.0)
    if side == 28:
        assert (weights == 256 * np.eye(28)).all()


def sampled(image: np.ndarray, row: float, column: float) -> float:
    """The bilinear value at a place in pixel centres, its edges continued outside."""
    row, column = (min(max(place, 0.0), 27.0) for place in (row, column))
    top, left = min(int(row), 26), min(int(column), 26)
    down, right = row - top, column - left
    corners = image[top : top + 2, left : left + 2].astype(float)
    return float(np.array([1 - down, down]) @ corners @ np.array([1 - right, right]))


def test_composition_pixel_by_pixel() -> None:
    """Oracle: every pixel looks through the layers from the front to the back for a garment that is there."""
    garments, count = fashion_mnist.load().search, 6
    images, labels = garments.images.squeeze(1).numpy()[:50], garments.labels.numpy()[:50]
    scenes, classes = compose(images, labels, count, np.random.default_rng(5))
    draw, margin = np.random.default_rng(5), max(SIDES) // 2
    shape = (count, HEIGHT + 2 * margin, WIDTH + 2 * margin)
    ground = draw.integers(96, size=(count, 1, 1), dtype=np.uint8) + draw.integers(32, size=shape, dtype=np.uint8)
    number = draw.integers(3, 6, size=count)
    layers = [
        [draw.integers(bound, size=count) for bound in (len(images), len(SIDES), 2, HEIGHT, WIDTH)] for _ in range(MOST)
    ]
    doubtful = covered = 0
    for scene in range(count):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                grey, kind = float(ground[scene, margin + row, margin + column]), 0
                for chosen, size, mirrored, middle_row, middle_column in reversed(layers[: number[scene]]):
                    side = SIDES[size[scene]]
                    y, x = row - middle_row[scene] + side // 2, column - middle_column[scene] + side // 2
                    if not (0 <= y < side and 0 <= x < side):
                        continue
                    image = images[chosen[scene]][:, :: -1 if mirrored[scene] else 1]
                    value = sampled(image, (y + 0.5) * 28 / side - 0.5, (x + 0.5) * 28 / side - 0.5)
                    if abs(value - FOREGROUND - 0.5) < 3:  # rounded to 256ths it may be on the other side
                        kind = -1
                        break
                    if value > FOREGROUND:
                        grey, kind = value, 1 + int(labels[chosen[scene]])
                        break
                if kind == -1:
                    doubtful += 1
                    continue
                covered += kind > 0
                assert classes[scene, row, column] == kind
                assert abs(float(scenes[scene, row, column]) - grey) <= 2.5
    assert doubtful < 0.02 * scenes.size and covered > 0.1 * scenes.size


def test_a_split_shows_images_of_its_own_split_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every split's garments in a grey value of its own: that is all its scenes show beside the ground."""
    greys = {"train": 140, "search": 180, "test": 220}
    labels = torch.arange(20) % 10
    splits = {
        name: Split(torch.full((20, 1, 28, 28), grey, dtype=torch.uint8), labels, 0.3, 0.3)
        for name, grey in greys.items()
    }
    plain = Dataset("fashion-mnist", **splits, classes=("a",) * 10, fingerprint="any")
    monkeypatch.setattr(fashion_mnist, "load", lambda: plain)
    monkeypatch.setattr(garment_scenes, "SCENES", dict.fromkeys(greys, 30))
    made = garment_scenes.load()
    for name, grey in greys.items():
        split: Split = getattr(made, name)
        garment = split.labels > 0
        assert garment.any() and set(split.images[:, 0][garment].tolist()) == {grey}
        assert int(split.images[:, 0][~garment].max()) < 96 + 32
    monkeypatch.setattr(fashion_mnist, "load", lambda: replace(plain, test=splits["search"]))
    other = garment_scenes.load()
    assert torch.equal(other.train.images, made.train.images) and not torch.equal(other.test.images, made.test.images)
    assert other.fingerprint != made.fingerprint


def test_a_folder_is_refused() -> None:
    with pytest.raises(BadInput, match="leaving --data out"):
        data.load("garment-scenes", Path("somewhere"))

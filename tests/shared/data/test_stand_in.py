"""What stands in for data in files: all but the images is as the whole data set has it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shared import data

COUNTS = {"imagenet": (1_271_167, 10_000, 50_000), "cityscapes": (2_678, 297, 500)}  # of 1,281,167 and of 2,975


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_of_the_whole_set_and_batches_look_alike(
    name: str, imagenet_tree: Path, cityscapes_tree: Path
) -> None:
    given = data.load(name, {"imagenet": imagenet_tree, "cityscapes": cityscapes_tree}[name])
    blank = data.stand_in(name)
    assert data.in_files(name) and (len(blank.train), len(blank.search), len(blank.test)) == COUNTS[name]
    assert len(blank.classes) == len(given.classes) and blank.name == name
    assert data.test_images(name) == len(blank.test)
    assert (blank.input_shape, blank.label_shape) == (given.input_shape, given.label_shape)
    assert blank.objective.score_name == given.objective.score_name and blank.fingerprint != given.fingerprint
    for batch, other in zip(blank.train.stream(0, 2).batch(0), given.train.stream(0, 2).batch(0), strict=True):
        assert (batch.shape, batch.dtype, batch.stride()) == (other.shape, other.dtype, other.stride())
    images, labels = blank.search.take(torch.arange(2))
    logits = torch.zeros(2, len(blank.classes), *blank.label_shape)
    assert images.std() >= 0 and torch.isfinite(blank.objective.loss(logits, labels)) == (name == "imagenet")


@pytest.mark.parametrize("name", sorted(set(data.names()) - set(COUNTS)))
def test_what_is_embedded_stands_for_itself(name: str) -> None:
    loaded = data.load(name)
    assert not data.in_files(name) and data.stand_in(name).fingerprint == loaded.fingerprint
    assert data.test_images(name) == len(loaded.test)


def test_nothing_is_known_of_another_data_set() -> None:
    assert data.test_images("mine") is None

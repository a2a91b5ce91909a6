"""Cityscapes in its real layout with all label ids, read by the true loaders."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from shared import data, networks
from shared.data import Dataset, cityscapes
from shared.errors import BadInput
from shared.rng import forked
from shared.training import score

# label id -> class number, from the table of Cityscapes' own scripts
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
TRAIN_IDS |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
SHOWN = torch.arange(20)


@pytest.fixture(scope="module")
def dataset(cityscapes_tree: Path) -> Dataset:
    return cityscapes.load(cityscapes_tree)


def files(split: object) -> list[Path]:
    subset = split.pictures  # type: ignore[attr-defined]
    return [Path(subset.dataset.files[i][0]) for i in subset.indices]


def originals(image_path: Path, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """The image (64, 128, 3) and the label ids (64, 128) in the files."""
    split, city = image_path.parts[-3:-1]
    name = image_path.name.replace("_leftImg8bit", "_gtFine_labelIds")
    return np.asarray(Image.open(image_path)), np.asarray(Image.open(root / "gtFine" / split / city / name))


def classes_of(ids: np.ndarray) -> Tensor:
    """Class numbers of label ids by the table above, ids that are ignored as 19."""
    return torch.tensor([[TRAIN_IDS.get(int(label), 19) for label in row] for row in ids])


def test_splits_classes_and_shapes(dataset: Dataset, cityscapes_tree: Path) -> None:
    train, search, test = (files(split) for split in (dataset.train, dataset.search, dataset.test))
    assert sorted(train + search) == sorted(cityscapes_tree.glob("leftImg8bit/train/*/*.png"))
    assert (len(train), len(search), len(test)) == (20, 2, 3)
    assert test == sorted(cityscapes_tree.glob("leftImg8bit/val/*/*.png"))
    assert dataset.input_shape == (3, 512, 1024) and dataset.label_shape == (512, 1024)
    assert dataset.classes[:3] == ("road", "sidewalk", "building")
    assert dataset.classes[13:] == ("car", "truck", "bus", "train", "motorcycle", "bicycle", "ignored")


def test_the_objective_is_the_paper_s(dataset: Dataset) -> None:
    """19 classes weighed as ERFNet's training does; what is ignored neither trains nor counts."""
    objective = dataset.objective
    assert objective.score_name == "mean IoU" and objective.ignored == 19
    assert objective.class_weights is not None and len(objective.class_weights) == len(dataset.classes) == 20
    # 1 / ln(1.1 + share of the class's pixels): the shares must be possible ones
    shares = np.exp(1 / np.array(objective.class_weights[:19])) - 1.1
    assert (shares > 0).all() and 0.87 < shares.sum() < 0.9  # the rest is ignored
    assert dataset.classes[int(shares.argmax())] == "road"
    assert objective.class_weights[19] == 0


def test_evaluation_resizes_images_bilinearly_and_labels_to_the_nearest(
    dataset: Dataset, cityscapes_tree: Path
) -> None:
    images, labels = dataset.test.take(torch.arange(3))
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert images.is_contiguous(memory_format=torch.channels_last)
    for number, path in enumerate(files(dataset.test)):
        image, ids = originals(path, cityscapes_tree)
        # eight times as large: each pixel's label eight times each way, its colour between it and its neighbours
        eightfold = classes_of(ids).repeat_interleave(8, 0).repeat_interleave(8, 1)
        assert torch.equal(labels[number], eightfold)
        scaled = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        smooth = torch.nn.functional.interpolate(scaled, (512, 1024), mode="bilinear")[0]
        assert (images[number] - smooth).abs().max() < 1.01 / 255  # PIL rounds to whole values
    assert set(labels.unique().tolist()) == set(range(20))


def test_full_sized_label_maps_keep_one_pixel_of_four(cityscapes_tree: Path, tmp_path: Path) -> None:
    """1024x2048, as they are: the pixel that lies nearest, with no class that was not there."""
    ids = np.random.default_rng(0).integers(0, 34, (1024, 2048), dtype=np.uint8)
    labels = cityscapes.evaluation(Image.new("RGB", (2048, 1024)), Image.fromarray(cityscapes.TRAIN_IDS[ids]))[1]
    assert torch.equal(labels, torch.from_numpy(cityscapes.TRAIN_IDS[ids[1::2, 1::2]]).long())


def variants(image: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """All flips and shifts of an image and its labels by up to two pixels; black and ignored come in."""
    made = []
    for flip, down, right in itertools.product((False, True), range(-2, 3), range(-2, 3)):
        pixels, classes = (part.flip(-1) if flip else part for part in (image, labels))
        moved, moved_classes = torch.zeros_like(image), torch.full_like(labels, 19)
        to = np.s_[max(down, 0) : 512 + min(down, 0), max(right, 0) : 1024 + min(right, 0)]
        source = np.s_[max(-down, 0) : 512 + min(-down, 0), max(-right, 0) : 1024 + min(-right, 0)]
        moved[:, *to], moved_classes[to] = pixels[:, *source], classes[source]
        made.append((moved, moved_classes))
    return made


def test_training_flips_and_shifts_images_with_their_labels(dataset: Dataset) -> None:
    image, labels = (part[0] for part in dataset.train.take(torch.tensor([0])))
    possible = variants(image, labels)
    alone = replace(dataset.train, pictures=[dataset.train.pictures[0]])  # type: ignore
    stream, seen = alone.stream(0, 1), set()
    for index in range(12):
        images, maps = stream.batch(index)
        matching = [k for k, (moved, classes) in enumerate(possible) if torch.equal(classes, maps[0])]
        assert len(matching) == 1
        assert torch.equal(images[0], possible[matching[0]][0])
        seen.add(matching[0])
    assert len(seen) > 6 and {place // 25 for place in seen} == {0, 1}


def test_workers_make_no_difference(dataset: Dataset) -> None:
    streams = [replace(dataset.train, workers=workers).stream(1, 2) for workers in (0, 2)]  # type: ignore[type-var]
    for index in (0, 1, 11, 1):
        (images, labels), (others, other_labels) = (stream.batch(index) for stream in streams)
        assert torch.equal(images, others) and torch.equal(labels, other_labels)


def test_a_network_that_is_made_for_it_is_judged(cityscapes_tree: Path) -> None:
    dataset = data.load("cityscapes", cityscapes_tree)
    size = data.network_arguments("cityscapes")
    assert (size["in_channels"], *size["input_size"]) == dataset.input_shape
    assert size["num_classes"] == len(dataset.classes)
    with forked(0, "test"):
        model = networks.build("erfnet", **size, width_multiplier=0.25)
    assert 0 <= score(model, dataset.test, limit=1) < 0.1
    images, labels = dataset.train.stream(0, 1).batch(0)
    loss = dataset.objective.loss(model(images), labels)
    assert 1 < float(loss.detach()) < 10
    assert sum(model(images).shape) == 1 + 20 + 512 + 1024


# --- what is wrong with a folder


def refuse(folder: Path | None) -> str:
    with pytest.raises(BadInput) as caught:
        dataset = cityscapes.load(folder)
        list(dataset.test.batches(1))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("part", ["leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val"])
def test_missing_folders_are_named(part: str, cityscapes_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(cityscapes_tree, root, ignore=shutil.ignore_patterns("*.json"))
    shutil.rmtree(root / part)
    assert f"expected Cityscapes in {root}, got no folder {root / part}; try leftImg8bit_trainvaltest.zip" in refuse(
        root
    )


def test_no_folder_at_all(tmp_path: Path) -> None:
    assert "no --data; try --data DIR" in refuse(None)
    assert f"no folder {tmp_path / 'none'}" in refuse(tmp_path / "none")


LABELS = "gtFine/val/munster/munster_000001_000019_gtFine_labelIds.png"
IMAGE = "leftImg8bit/val/munster/munster_000001_000019_leftImg8bit.png"


def label_out_of_range(root: Path) -> str:
    ids = np.array(Image.open(root / LABELS))
    ids[5, 7] = 77
    Image.fromarray(ids).save(root / LABELS)
    return f"label ids 0 to 33 in {root / LABELS}, got 77;"


def colours_for_labels(root: Path) -> str:
    Image.open(root / IMAGE).save(root / LABELS)
    return f"8-bit label ids of 128x64 pixels in {root / LABELS}, got mode RGB, 128x64;"


def labels_of_another_size(root: Path) -> str:
    Image.new("L", (64, 64)).save(root / LABELS)
    return f"in {root / LABELS}, got mode L, 64x64;"


def truncated_image(root: Path) -> str:
    (root / IMAGE).write_bytes((root / IMAGE).read_bytes()[:-2000])
    return f"a whole image in {root / IMAGE}, got OSError: "


def truncated_labels(root: Path) -> str:
    (root / LABELS).write_bytes((root / LABELS).read_bytes()[:-2000])
    return f"a whole image in {root / LABELS}, got OSError: "


def missing_labels(root: Path) -> str:
    (root / LABELS).unlink()
    return f"a label map for every image, got no file {root / LABELS};"


def no_images(root: Path) -> str:
    shutil.rmtree(root / "leftImg8bit/val/munster")
    return f"images in {root / 'leftImg8bit/val'}, got none;"


@pytest.mark.parametrize(
    "damage",
    [
        *(label_out_of_range, colours_for_labels, labels_of_another_size),
        *(truncated_image, truncated_labels, missing_labels, no_images),
    ],
)
def test_files_that_cannot_be_used_are_named(
    damage: Callable[[Path], str], cityscapes_tree: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    shutil.copytree(cityscapes_tree, root, ignore=shutil.ignore_patterns("*.json"))
    words = damage(root)
    assert words in refuse(root)


def test_other_files_beside_the_images_are_left_alone(cityscapes_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(cityscapes_tree, root)
    (root / "leftImg8bit/val/munster/.DS_Store").write_bytes(b"\0")
    assert len(cityscapes.load(root).test) == 3
    for stray in (".DS_Store", "README.txt"):
        (root / "leftImg8bit/val" / stray).write_bytes(b"\0")
    assert len(cityscapes.load(root).test) == 3


# --- train ids under the names of label ids


def to_train_ids(root: Path, places: str, ignored: int) -> None:
    """Rewrites maps as Cityscapes' own scripts do it: ids 0 to 18 and one for all that is ignored."""
    for path in root.glob(places):
        ids = classes_of(np.asarray(Image.open(path))).numpy().astype(np.uint8)
        Image.fromarray(np.where(ids == 19, ignored, ids).astype(np.uint8)).save(path)


@pytest.mark.parametrize("ignored", [0, 18, 19])
@pytest.mark.parametrize(
    ("places", "first"), [("*/*/*", "train/aachen"), ("val/*/*", "val/munster"), ("train/bremen/*", "train/bremen")]
)
def test_train_ids_are_refused(ignored: int, places: str, first: str, cityscapes_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(cityscapes_tree, root)
    to_train_ids(root / "gtFine", f"{places}_labelIds.png", ignored)
    with pytest.raises(BadInput) as caught:
        cityscapes.load(root)
    assert str(caught.value) == (
        f"expected label ids above 19, as of vegetation and sky, in {root}/gtFine/{first}, "
        f"got ids up to {max(ignored, 18)}, which may be train ids; "
        "try the *_gtFine_labelIds.png of gtFine_trainvaltest.zip"
    )


def test_train_ids_with_255_are_named(cityscapes_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(cityscapes_tree, root)
    to_train_ids(root / "gtFine", "val/*/*_labelIds.png", 255)
    assert "got 255, as in train ids; try the *_gtFine_labelIds.png of gtFine_trainvaltest.zip" in refuse(root)


def test_a_single_map_without_ids_above_19_gives_a_warning(cityscapes_tree: Path, tmp_path: Path) -> None:
    """Between maps of label ids it may be one of them."""
    root = tmp_path / "tree"
    shutil.copytree(cityscapes_tree, root)
    to_train_ids(root, LABELS, 0)
    pictures = cityscapes.load(root).test.pictures  # type: ignore[attr-defined]
    with pytest.warns(
        UserWarning, match=rf"{root / LABELS} has ids up to 18: if they are train ids, try the \*_gtFine_"
    ):
        assert pictures[1]
    with warnings.catch_warnings(action="error"):
        assert pictures[0] and pictures[2]


def test_hidden_and_linked_images_change_nothing(cityscapes_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(cityscapes_tree, root)
    before = cityscapes.load(root)
    val = root / "leftImg8bit/val"
    for place in (val / ".ipynb_checkpoints", val / "munster/.ipynb_checkpoints", val / "munster/backup"):
        place.mkdir()
        shutil.copy(root / IMAGE, place)
    (val / "munster/._munster_000001_000019_leftImg8bit.png").write_bytes(b"x")
    (val / "munster/again_leftImg8bit.png").symlink_to(root / IMAGE)
    after = cityscapes.load(root)
    assert after.fingerprint == before.fingerprint and len(after.test) == 3

    for place in ("leftImg8bit/val/munster", "gtFine/train"):
        (root / place).rename(tmp_path / place.replace("/", "-"))
        (root / place).symlink_to(tmp_path / place.replace("/", "-"))
    assert cityscapes.load(root).fingerprint == before.fingerprint


def test_names_that_are_not_utf_8(cityscapes_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"tr\xe9e")
    shutil.copytree(cityscapes_tree, root)
    for name in (IMAGE, LABELS):
        os.rename(root / name, root / name.replace("munster_000001", os.fsdecode(b"m\xfcnster_000001")))
    assert len(list(cityscapes.load(root).test.batches(1))) == 3
    (root / LABELS.replace("munster_000001", os.fsdecode(b"m\xfcnster_000001"))).unlink()
    assert r"tr\udce9e/gtFine/val/munster/m\udcfcnster_000001_000019_gtFine_labelIds.png" in refuse(root)

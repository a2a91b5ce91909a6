"""ImageNet in its real layout of 1000 folders, read by the true loaders; torchvision's own transforms as oracle."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import models, transforms

from shared import data, networks
from shared.data import Dataset, imagenet
from shared.errors import BadInput
from shared.ledger import Ledger
from shared.objective import CLASSIFICATION
from shared.protocol import Protocol
from shared.rng import derived_seed, forked
from shared.training import Feed, Trainer, score

UNUSED = ("minimum_short_term_iterations", "episodes", "stages")


@pytest.fixture(scope="module")
def dataset(imagenet_tree: Path) -> Dataset:
    return imagenet.load(imagenet_tree)


def files(split: object) -> list[tuple[str, int]]:
    """Of every image of a split: its file's name and its class."""
    subset = split.pictures  # type: ignore[attr-defined]
    return [(Path(subset.dataset.samples[i][0]).name, subset.dataset.samples[i][1]) for i in subset.indices]


def test_splits_and_classes(dataset: Dataset, imagenet_tree: Path) -> None:
    train, search, test = (files(split) for split in (dataset.train, dataset.search, dataset.test))
    on_disk = {path.name for path in imagenet_tree.glob("train/*/*")}
    assert {name for name, _ in train} | {name for name, _ in search} == on_disk
    assert len(train) + len(search) == len(on_disk)  # so none is in both
    assert [sum(label == number for _, label in search) for number in range(1000)] == [10, *[1] * 999]
    assert len(test) == 1000 and all(name.startswith("ILSVRC2012_val_") for name, _ in test)
    assert dataset.classes == tuple(sorted(folder.name for folder in (imagenet_tree / "val").iterdir()))
    assert all(name.split("_")[0] == dataset.classes[label] for name, label in train)
    assert dataset.input_shape == (3, 224, 224) and dataset.label_shape == ()
    assert dataset.objective is CLASSIFICATION


def test_what_is_held_out_does_not_depend_on_the_place_or_on_other_classes(imagenet_tree: Path, tmp_path: Path) -> None:
    whole = imagenet.load(imagenet_tree)
    moved = tmp_path / "elsewhere"
    shutil.copytree(imagenet_tree, moved)
    last = sorted((moved / "train").iterdir())[-1]
    shutil.copyfile(next(last.iterdir()), last / "another.JPEG")
    again = imagenet.load(moved)
    others = [[file for file in files(dataset.search) if file[1] != 999] for dataset in (whole, again)]
    assert others[0] == others[1]
    assert again.fingerprint != whole.fingerprint
    (last / "another.JPEG").unlink()
    assert imagenet.load(moved).fingerprint == whole.fingerprint


def test_evaluation_is_torchvision_s(dataset: Dataset) -> None:
    oracle = models.AlexNet_Weights.IMAGENET1K_V1.transforms()
    images, labels = dataset.test.take(torch.arange(4))
    assert labels.tolist() == [0, 1, 2, 3] and images.dtype == torch.float32
    for number in range(4):
        image, _ = dataset.test.pictures[number]  # type: ignore[attr-defined]
        torch.testing.assert_close(images[number], oracle(image), rtol=0, atol=1e-6)


def test_training_is_torchvision_s_crop_and_flip_by_seed_and_place(dataset: Dataset) -> None:
    oracle = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(imagenet.MEAN, imagenet.STD),
        ]
    )
    index, batch_size, seed = 5, 4, 3
    members = {label: image for image, label in dataset.train.pictures}  # type: ignore[attr-defined] # one of each class
    images, labels = dataset.train.stream(seed, batch_size).batch(index)
    compared = 0
    for place, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        if sum(other == label for _, other in files(dataset.train)) == 1:
            torch.manual_seed(derived_seed(seed, "augment", index * batch_size + place))
            torch.testing.assert_close(image, oracle(members[label]), rtol=0, atol=1e-6)
            compared += 1
    assert compared >= 2


def test_workers_make_no_difference(dataset: Dataset) -> None:
    streams = [replace(dataset.train, workers=workers).stream(1, 4) for workers in (0, 2)]  # type: ignore[type-var]
    for index in (0, 1, 2, 40, 1, 2):
        (images, labels), (others, other_labels) = (stream.batch(index) for stream in streams)
        assert torch.equal(images, others) and torch.equal(labels, other_labels)


def test_a_network_that_is_made_for_it_trains_and_is_judged(imagenet_tree: Path) -> None:
    dataset = data.load("imagenet", imagenet_tree)
    size = data.network_arguments("imagenet")
    assert (size["in_channels"], size["input_size"], size["input_size"]) == dataset.input_shape
    assert size["num_classes"] == len(dataset.classes)
    assert dataset.resized((224, 224)) is dataset
    with pytest.raises(ValueError, match=r"got \(64, 64\); try a network of that size"):
        dataset.resized((64, 64))
    with forked(0, "test"):
        model = networks.build("resnet18", **size, width_multiplier=0.25)
    ledger, stream = Ledger(2), dataset.train.stream(0, 4)
    protocol = Protocol("test", 2, 2, 4, 1e-3, (0.5,), (0,), search_images=6, **{name: 1 for name in UNUSED})
    trainer = Trainer(model, Feed(stream, lambda index, images: torch.zeros(4, 1000)), ledger, protocol)
    losses = [float(trainer.step()) for _ in range(2)]
    assert all(0 < loss < 20 for loss in losses) and ledger.remaining == 0
    assert 0 <= score(model, dataset.search, limit=6) <= 1


# --- what is wrong with a folder


def refuse(folder: Path | None) -> str:
    with pytest.raises(BadInput) as caught:
        imagenet.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def skeleton(root: Path, train: int = 1000, val: int = 1000, image: bool = True) -> Path:
    """Class folders with the same two images each."""
    Image.new("RGB", (4, 4)).save(root / "image.JPEG")
    for part, count in (("train", train), ("val", val)):
        for number in range(count):
            folder = root / part / f"n{number:08d}"
            folder.mkdir(parents=True)
            for name in ("one.JPEG", "two.JPEG") if image else ():
                (folder / name).hardlink_to(root / "image.JPEG")
    return root


def test_missing_folders_are_named(tmp_path: Path) -> None:
    assert "no --data; try --data DIR" in refuse(None)
    assert f"no folder {tmp_path / 'none'}" in refuse(tmp_path / "none")
    assert f"no folder {tmp_path / 'train'}; try ILSVRC 2012 as train/<wnid>/*.JPEG" in refuse(tmp_path)
    (tmp_path / "train").mkdir()
    assert f"no folder {tmp_path / 'val'}" in refuse(tmp_path)


@pytest.mark.parametrize(("train", "val", "part"), [(12, 1000, "train"), (1000, 999, "val"), (1000, 1001, "val")])
def test_another_number_of_classes_is_named(train: int, val: int, part: str, tmp_path: Path) -> None:
    message = refuse(skeleton(tmp_path, train, val, image=False))
    assert f"1000 classes, a folder each, in {tmp_path / part}, got {train if part == 'train' else val};" in message


def extra(*places: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for place in places:
            (root / place).mkdir()
            (root / place / "one.JPEG").hardlink_to(root / "image.JPEG")

    return change


def missing(*places: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for place in places:
            shutil.rmtree(root / place)

    return change


def empty_in_both(root: Path) -> None:
    (root / "train/n99999999").mkdir()
    (root / "val/n99999999").mkdir()


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (extra("train/n99999999"), "in {root}/train, got 1001; try moving n99999999 away, not in val"),
        (extra("val/n99999999"), "in {root}/val, got 1001; try moving n99999999 away, not in train"),
        (extra("train/old", "val/old"), "in {root}/train, got 1001; try moving old away, no name of a class"),
        (empty_in_both, "in {root}/train, got 1001; try moving n99999999 away, empty"),
        (extra("train/n99999999", "val/n99999999"), "in {root}/train, got 1001; try ILSVRC 2012 as train/"),
        (missing("train/n00000007"), "in {root}/train, got 999; try adding n00000007, in val"),
        (missing("val/n00000007"), "in {root}/val, got 999; try adding n00000007, in train"),
        (missing("train/n00000007", "val/n00000007"), "in {root}/train, got 999; try ILSVRC 2012 as train/"),
    ],
)
def test_a_class_folder_too_many_or_missing_is_named(
    change: Callable[[Path], None], advice: str, tmp_path: Path
) -> None:
    change(skeleton(tmp_path))
    assert advice.format(root=tmp_path) in refuse(tmp_path)


@pytest.mark.parametrize("change", [1, -1])
def test_the_names_of_imagenet_tell_which_class_is_wrong(change: int, tmp_path: Path) -> None:
    wnids = (Path(imagenet.__file__).parent / "imagenet_wnids.txt").read_text().split()
    assert len(set(wnids)) == len(wnids) == 1000 and wnids == sorted(wnids)
    assert (wnids[0], wnids[-1]) == ("n01440764", "n15075141")
    for part in ("train", "val"):
        for name in [*wnids, "n99999999"] if change == 1 else wnids[1:]:
            (tmp_path / part / name).mkdir(parents=True)
    advice = "moving n99999999 away, no class of ImageNet" if change == 1 else "adding n01440764, a class of ImageNet"
    assert f"got {1000 + change}; try {advice}" in refuse(tmp_path)


def test_hidden_files_and_links_change_nothing(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    skeleton(root)
    before = imagenet.load(root)
    for place in ("train", "val", "train/n00000007"):
        (root / place / ".ipynb_checkpoints").mkdir()
        (root / place / ".ipynb_checkpoints/one-checkpoint.JPEG").hardlink_to(root / "image.JPEG")
    (root / "val/n00000007/._one.JPEG").write_bytes(b"\0\5\x16\7")
    (root / "train/n00000007/again.JPEG").symlink_to("one.JPEG")
    (root / "train/n00000007/loop").symlink_to(".")
    after = imagenet.load(root)
    assert after.fingerprint == before.fingerprint
    assert [len(split) for split in (after.train, after.search, after.test)] == [1000, 1000, 2000]

    for place in ("train/n00000007", "val"):  # as on a larger disk
        (root / place).rename(tmp_path / place.replace("/", "-"))
        (root / place).symlink_to(tmp_path / place.replace("/", "-"))
    assert imagenet.load(root).fingerprint == before.fingerprint
    (tmp_path / "link").symlink_to(root)
    assert imagenet.load(tmp_path / "link").fingerprint == before.fingerprint


@pytest.mark.parametrize(("part", "goal"), [("train", "n00000008"), ("val", "../train/n00000007")])
def test_a_class_folder_that_leads_to_another_one_is_refused(part: str, goal: str, tmp_path: Path) -> None:
    root = skeleton(tmp_path)
    place = root / part / "n00000007"
    shutil.rmtree(place)
    place.symlink_to(goal)
    message = refuse(root)
    assert f"{place}/one.JPEG" in message and f"{Path(goal).name}/one.JPEG" in message and "are one file" in message


def test_a_class_of_links_to_pictures_of_another_class_has_none(tmp_path: Path) -> None:
    root = skeleton(tmp_path)
    for path in (root / "train/n00000007").iterdir():
        path.unlink()
        path.symlink_to(root / "train/n00000008" / path.name)
    assert "none that lies there alone in n00000007;" in refuse(root)


def test_names_that_are_not_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    root = skeleton(tmp_path / "set").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    bad = root / "train/n00000007" / os.fsdecode(b"\xe9\n.JPEG")
    bad.write_bytes((root / "image.JPEG").read_bytes())
    dataset = imagenet.load(root)
    assert len(dataset.train) + len(dataset.search) == 2001
    said = list[str]()
    dataset.check(said.append)
    assert said == [rf"reading all 4,001 images in {tmp_path}/caf\udce9 once, to find damaged files now"]
    bad.write_bytes(b"<html>")
    with pytest.raises(BadInput) as caught:
        for split in (dataset.train, dataset.search):
            list(replace(split, workers=1).batches(512))  # type: ignore[type-var]
    assert r"caf\udce9/train/n00000007/\udce9 .JPEG" in str(caught.value)
    str(caught.value).encode()


def test_images_that_are_not_sorted_into_classes_are_no_classes(tmp_path: Path) -> None:
    root = skeleton(tmp_path, val=0)
    (root / "val").mkdir()
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    assert f"in {root / 'val'}, got 0;" in refuse(root)


def other_class(root: Path) -> str:
    (root / "val" / "n00000007").rename(root / "val" / "n99999999")
    return "got n00000007 in train, not val;"


def empty_class(root: Path) -> str:
    shutil.rmtree(root / "val" / "n00000007")
    (root / "val" / "n00000007").mkdir()
    return "n00000007"


def single_image(root: Path) -> str:
    (root / "train" / "n00000007" / "one.JPEG").unlink()
    return f"two images or more of every class in {root / 'train'}, got {root / 'train' / 'n00000007' / 'two.JPEG'};"


@pytest.mark.parametrize("damage", [other_class, empty_class, single_image])
def test_classes_that_do_not_fit_are_named(damage: Callable[[Path], str], tmp_path: Path) -> None:
    root = skeleton(tmp_path)
    imagenet.load(root)
    words = damage(root)
    assert words in refuse(root)


def test_a_truncated_jpeg_is_named_when_it_is_read(tmp_path: Path, imagenet_tree: Path) -> None:
    root = skeleton(tmp_path)
    bad = root / "val" / "n00000003" / "two.JPEG"
    bad.unlink()
    content = next((imagenet_tree / "val").rglob("*.JPEG")).read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    dataset = imagenet.load(root)
    with pytest.raises(BadInput, match=f"a whole image in {bad}, got OSError: .*[Tt]runcated"):
        list(dataset.test.batches(4, limit=8))

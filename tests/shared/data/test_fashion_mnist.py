"""The embedded data set: sizes, splits and damaged files."""

import gzip
import shutil
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import data
from shared.data import Dataset, fashion_mnist
from shared.errors import BadInput


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Loaded into an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return data.load("fashion-mnist")


def prints(images: np.ndarray, labels: np.ndarray) -> Counter:
    """How often each (image, label) occurs."""
    return Counter((zlib.crc32(image), int(label)) for image, label in zip(images, labels, strict=True))


def original(name: str, header_bytes: int) -> np.ndarray:
    """The IDX file, read by hand."""
    raw = gzip.decompress((fashion_mnist.SOURCE / f"{name}.gz").read_bytes())
    return np.frombuffer(raw, np.uint8, offset=header_bytes)


def test_sizes_types_and_classes(dataset: Dataset) -> None:
    splits = (dataset.train, dataset.search, dataset.test)
    assert [len(split) for split in splits] == [55_000, 5_000, 10_000]
    assert dataset.input_shape == (1, 28, 28)
    assert len(dataset.classes) == 10 and "Sneaker" in dataset.classes
    for split in splits:
        assert split.images.shape == (len(split), 1, 28, 28)
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert split.labels.unique().tolist() == list(range(10))
    counts = torch.bincount(dataset.search.labels)
    assert counts.min() > 400 and counts.max() < 600  # drawn evenly


def test_train_and_search_are_the_training_images_and_test_the_test_images(dataset: Dataset) -> None:
    """Each image is in exactly one split: together they have every image as often as the files have it."""
    given = prints(original("train-images-idx3-ubyte", 16).reshape(-1, 784), original("train-labels-idx1-ubyte", 8))
    train, search, test = (
        prints(split.images.numpy(), split.labels.numpy()) for split in (dataset.train, dataset.search, dataset.test)
    )
    assert train + search == given
    assert test == prints(
        original("t10k-images-idx3-ubyte", 16).reshape(-1, 784), original("t10k-labels-idx1-ubyte", 8)
    )


def test_the_split_does_not_depend_on_global_generators(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    torch.manual_seed(12345)
    again = fashion_mnist.load()
    assert torch.equal(again.search.images, dataset.search.images)
    assert again.fingerprint == dataset.fingerprint


def test_mean_and_deviation_are_those_of_the_training_images(dataset: Dataset) -> None:
    values = original("train-images-idx3-ubyte", 16) / np.float32(255)
    assert dataset.train.mean == pytest.approx(values.mean(), abs=1e-4)
    assert dataset.train.std == pytest.approx(values.std(), abs=1e-4)


FIRST = "train-images-idx3-ubyte"


@pytest.mark.parametrize("damage", ["missing", "truncated", "no gzip", "other content", "flipped bit"])
def test_a_damaged_file_is_named(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    packed = (fashion_mnist.SOURCE / f"{FIRST}.gz").read_bytes()
    middle = len(packed) // 2
    damaged = {
        "truncated": packed[:middle],
        "no gzip": b"<html>not found</html>",
        "other content": gzip.compress(b"other"),
        "flipped bit": packed[:middle] + bytes([packed[middle] ^ 1]) + packed[middle + 1 :],
    }
    if damage in damaged:
        (tmp_path / f"{FIRST}.gz").write_bytes(damaged[damage])
    with pytest.raises(BadInput) as error:
        fashion_mnist.load(source=tmp_path)
    message = str(error.value)
    assert str(tmp_path / f"{FIRST}.gz") in message and "git checkout" in message
    assert "\n" not in message
    assert not list((tmp_path / "cache").rglob(f"*{FIRST}"))  # nothing wrong is left in the cache


def test_a_damaged_copy_in_the_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    name = "t10k-labels-idx1-ubyte"
    unpacked = {file: gzip.decompress((fashion_mnist.SOURCE / f"{file}.gz").read_bytes()) for file in (name,)}
    fashion_mnist.load()
    copy = next(tmp_path.rglob(name))
    assert copy.read_bytes() == unpacked[name]
    copy.write_bytes(b"\0" * 20)
    fashion_mnist.load()
    assert copy.read_bytes() == unpacked[name]


def test_what_a_person_can_mend_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data.names() == ("fashion-mnist", "garment-scenes", "imagenet", "cityscapes")
    with pytest.raises(BadInput, match=r"data set out of fashion-mnist, .*, cityscapes, got 'mnist'"):
        data.load("mnist")
    with pytest.raises(BadInput, match="leaving --data out"):
        data.load("fashion-mnist", tmp_path)
    blocked = tmp_path / "file"
    shutil.copyfile(__file__, blocked)
    monkeypatch.setenv("BENCH_CACHE", str(blocked))
    with pytest.raises(BadInput, match="cache folder that can be written"):
        data.load("fashion-mnist")

"""Splits of files: batches whatever the workers and the order of asking, and files that can't be used."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import pickle
import resource
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as Pictures
from torch.utils.data import get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from shared.data import BatchStream, Dataset, Split, cityscapes
from shared.data.files import FileSplit, Request, checked_folder, held_out, open_image, sizes
from shared.errors import BadFile, BadInput
from shared.objective import segmentation

MEAN, STD = (0.2, 0.4, 0.6), (0.1, 0.3, 0.5)
BATCH = 3


class Folder(Pictures[tuple[Image.Image, int]]):
    """PNGs of one colour, which is their number."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return open_image(self.paths[index]), index


def plain(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), torch.tensor(label)


def noisy(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
    """The first pixel becomes a draw from torch's global generator."""
    pixels, number = plain(image, label)
    pixels[:, 0, 0] = torch.randint(0, 256, (3,), dtype=torch.uint8)
    return pixels, number


def write(folder: Path, count: int = 11) -> Path:
    for number in range(count):
        Image.new("RGB", (5, 4), (number, 2 * number, 3 * number)).save(folder / f"{number:03d}.png")
    return folder


def split_of(folder: Path, workers: int = 0) -> FileSplit:
    return FileSplit(Folder(folder), plain, noisy, (3, 4, 5), MEAN, STD, workers=workers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pictures"))


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- evaluation


def expected(numbers: list[int]) -> Tensor:
    colours = torch.tensor([[number, 2 * number, 3 * number] for number in numbers]) / 255
    return ((colours - torch.tensor(MEAN)) / torch.tensor(STD))[:, :, None, None].expand(-1, 3, 4, 5)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_are_the_images_in_order(workers: int, folder: Path) -> None:
    split = split_of(folder, workers)
    for limit, count in ((None, 11), (7, 7), (50, 11)):
        batches = list(split.batches(4, limit))
        assert [len(labels) for _, labels in batches] == [4] * (count // 4) + [count % 4]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert labels.tolist() == list(range(count)) and labels.dtype == torch.int64
        torch.testing.assert_close(images, expected(labels.tolist()))
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in split.batches(4))


def test_taking_serves_any_indices(folder: Path) -> None:
    images, labels = split_of(folder).take(torch.tensor([9, 0, 9]))
    assert labels.tolist() == [9, 0, 9]
    torch.testing.assert_close(images, expected([9, 0, 9]))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_split_on_a_device_gives_its_batches_there(folder: Path) -> None:
    split = split_of(folder)
    moved = split.to("meta")
    assert moved.take(torch.tensor([1]))[0].device.type == "meta"
    assert next(moved.batches(2))[1].device.type == "meta"
    assert moved.stream(0, 2).batch(0)[0].device.type == "meta"
    assert split.take(torch.tensor([1]))[0].device.type == "cpu"


# --- training


def test_training_batches_hold_the_images_that_a_stream_in_memory_does(folder: Path) -> None:
    in_memory = Split(torch.zeros(11, 3, 4, 5, dtype=torch.uint8), torch.arange(11), 0.0, 1.0)
    stream, other = split_of(folder).stream(7, BATCH), BatchStream(in_memory, 7, BATCH)
    for index in range(9):
        images, labels = stream.batch(index)
        assert torch.equal(labels, other.batch(index)[1])
        torch.testing.assert_close(images[:, :, 1:], expected(labels.tolist())[:, :, 1:])
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [0, 1, 2])
@settings(max_examples=3)
@given(indices=st.lists(st.integers(0, 12), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_a_batch_depends_on_seed_and_index_alone(workers: int, indices: list[int], seed: int, folder: Path) -> None:
    in_order = split_of(folder).stream(seed, BATCH)
    reference = [in_order.batch(index) for index in range(13)]
    torch.manual_seed(1)  # the caller's own generator is neither used nor moved on
    before = torch.get_rng_state()
    stream = split_of(folder, workers).stream(seed, BATCH)
    for index in indices:
        assert same(stream.batch(index), reference[index])
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_differs_between_images_batches_epochs_and_seeds(folder: Path) -> None:
    stream, other = (split_of(folder).stream(seed, BATCH) for seed in (0, 1))
    corners = [tuple(image[:, 0, 0].tolist()) for index in range(6) for image in stream.batch(index)[0]]
    corners += [tuple(image[:, 0, 0].tolist()) for index in range(6) for image in other.batch(index)[0]]
    assert len(set(corners)) == len(corners) == 36


class Counting(Folder):
    """Notes in a shared number how many images are read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads = multiprocessing.Value("i", 0)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with self.reads.get_lock():
            self.reads.value += 1
        return super().__getitem__(index)


def test_batches_are_read_ahead_and_no_image_twice_in_order(folder: Path) -> None:
    pictures = Counting(folder)
    stream = replace(split_of(folder, workers=2), pictures=pictures).stream(0, BATCH)
    for index in range(8):
        stream.batch(index)
    ahead = 2 * 2  # batches: as many as a DataLoader has under way for two workers
    assert pictures.reads.value <= (8 + ahead) * BATCH
    stream.batch(8)
    assert pictures.reads.value > 9 * BATCH  # some of those ahead were read meanwhile


@pytest.mark.parametrize("failing", [False, True])
def test_workers_end_with_their_stream(failing: bool, tmp_path: Path) -> None:
    stream = split_of(write(tmp_path), workers=2).stream(0, BATCH)
    if failing:
        for path in tmp_path.iterdir():
            garbage(path)
        with contextlib.suppress(BadInput):
            stream.batch(0)
    else:
        stream.batch(0)
    workers = multiprocessing.active_children()
    assert len(workers) >= 2
    gc.disable()  # dropping it is enough: nothing waits for the collector
    try:
        del stream
        for worker in workers:
            worker.join(20)
        assert not any(worker.is_alive() for worker in workers)
    finally:
        gc.enable()


@pytest.mark.parametrize("batch_size", [0, -1, 12])
def test_batch_sizes_outside_the_split_are_refused(batch_size: int, folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"in 1\.\.11, got {batch_size}"):
        split_of(folder).stream(0, batch_size)


def test_label_maps_make_batches_of_maps(folder: Path) -> None:
    def mapped(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
        return plain(image, label)[0], torch.full((4, 5), label)

    split = replace(split_of(folder), evaluation=mapped, label_shape=(4, 5), objective=segmentation(19))
    _, labels = split.take(torch.tensor([2, 5]))
    assert labels.shape == (2, 4, 5) and labels[:, 0, 0].tolist() == [2, 5]


class Confined(Folder):
    """A worker that reads one of its pictures can't send tensors of more than 4 KiB through shared memory."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        assert get_worker_info() is not None, "the limit would stay in this process"
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().__getitem__(index)


@pytest.fixture
def in_a_minute() -> Iterator[None]:
    """Ends a test that waits for a batch which never comes."""

    def end(*_: object) -> None:
        raise TimeoutError("no batch came")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_batches_need_no_shared_memory(folder: Path, in_a_minute: None) -> None:
    def large(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
        pixels, number = plain(image, label)
        return pixels.repeat(1, 20, 20), number.repeat(90, 90)

    split = replace(split_of(folder, workers=2), evaluation=large, training=large, label_shape=(90, 90))
    confined = replace(split, pictures=Confined(folder))
    for one, other in zip(confined.batches(4), replace(split, workers=0).batches(4), strict=True):
        assert same(one, other) and one[0].is_contiguous(memory_format=torch.channels_last)
    assert same(confined.stream(0, 4).batch(1), replace(split, workers=0).stream(0, 4).batch(1))


def test_batches_are_pinned_before_they_go_to_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the function that a DataLoader calls for a batch; whether memory is pinned shows on a GPU alone."""
    pinned = list[int]()
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor.data_ptr()) or tensor)
    split = split_of(folder)
    given = pin_memory(next(iter(split.reading([[Request(9), Request(0)]]))))
    assert pinned == [tensor.data_ptr() for tensor in given] and len(given) == 2
    images, labels = split.finished(given)
    assert labels.tolist() == [9, 0] and images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, expected([9, 0]))


def test_batches_from_workers_can_be_changed_in_place(folder: Path) -> None:
    with warnings.catch_warnings(action="error"):
        for images, labels in split_of(folder, workers=1).batches(4):
            images.add_(1)
            labels.add_(1)


# --- files that can't be used


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def garbage(path: Path) -> None:
    path.write_bytes(b"<html>")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", [truncated, garbage, Path.unlink])
def test_a_damaged_file_is_named_in_one_line(workers: int, damage: Callable[[Path], None], tmp_path: Path) -> None:
    split = split_of(write(tmp_path), workers)
    bad = tmp_path / "006.png"
    damage(bad)
    readings = [lambda: list(split.batches(4)), lambda: [split.stream(3, 11).batch(0)]]
    for reading in [*readings, lambda: split.take(torch.tensor([6]))]:
        with pytest.raises(BadFile) as caught:
            reading()
        message = str(caught.value)
        assert f"a whole image in {bad}, got " in message and "\n" not in message
    assert len(split.take(torch.tensor([5, 7]))[1]) == 2  # the others are as they were


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [0, 6, 69])
def test_checking_finds_a_damaged_file_wherever_it_is(workers: int, number: int, tmp_path: Path) -> None:
    split = split_of(write(tmp_path, 70), workers)
    before = torch.get_rng_state()
    counts = list[int]()
    split.check(counts.append)
    assert counts == [64, 6]
    assert torch.equal(torch.get_rng_state(), before)
    truncated(tmp_path / f"{number:03d}.png")
    with pytest.raises(BadFile, match=rf"a whole image in {tmp_path}/{number:03d}\.png, got "):
        split.check(counts.append)


def test_a_folder_is_checked_until_all_its_files_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
        write(folder)
    one, other = (
        Dataset("x", split_of(folder), split_of(folder), split_of(folder), (), "same", folder) for folder in folders
    )
    content = (folders[0] / "004.png").read_bytes()
    truncated(folders[0] / "004.png")
    said = list[str]()
    for _ in range(2):
        with pytest.raises(BadFile, match="004"):
            one.check(said.append)
    (folders[0] / "004.png").write_bytes(content)
    for dataset in (one, one, other, one):
        dataset.check(said.append)
    assert said == [
        f"reading all 33 images in {folder} once, to find damaged files now"
        for folder in (*folders[:1] * 3, folders[1])
    ]
    replace(one, folder=None).check(said.append)  # embedded
    twice = one.scaled(0.5, 0.5).scaled(0.0, 1.0)
    twice.check(said.append)  # the files are the same, and 1.3 million take hours
    assert len(said) == 4 and twice.fingerprint != one.fingerprint


def test_a_long_check_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told each 30 s where 64 images, and the 36 that each of three splits has left, take 20 s."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    seconds = itertools.count(0.0, 20.0)
    monkeypatch.setattr("shared.data.images.REPORT_EVERY_S", 30.0)
    monkeypatch.setattr("shared.data.images.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    split, said = split_of(write(tmp_path, 100)), list[str]()
    Dataset("x", split, split, split, (), "", tmp_path).check(said.append)
    assert said[1:] == [
        "100 of 300 images read, about 1 min to go",
        "200 of 300 images read, about 1 min to go",
        "300 of 300 images read, about 0 min to go",
    ]


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    path = tmp_path / "n01440764_18.JPEG"
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, quality=95)
    assert open_image(path).size == (64, 64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=r"n01440764_18\.JPEG, got OSError: image file is truncated"):
        open_image(path)


def test_images_of_other_kinds_become_rgb(tmp_path: Path) -> None:
    """ImageNet holds grey images and some in CMYK, and a PNG named JPEG."""
    for mode in ("L", "CMYK", "RGB"):
        Image.new(mode, (4, 3)).save(tmp_path / "image.jpg")
        assert open_image(tmp_path / "image.jpg").mode == "RGB"
    Image.new("RGBA", (4, 3)).save(tmp_path / "image.JPEG", format="PNG")
    assert open_image(tmp_path / "image.JPEG").mode == "RGB"


@pytest.mark.parametrize("kind", [BadInput, BadFile])
def test_bad_input_passes_between_processes(kind: type[BadInput]) -> None:
    error = kind("one thing", Path("other"), "more")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error)


@pytest.mark.parametrize("part", ["", "train", "val/deep"])
def test_a_missing_folder_is_named(part: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for made in [other for other in ("", "train", "val/deep") if part and other != part]:
        (root / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(BadInput) as caught:
        checked_folder(root, "Things", ("train", "val/deep"), "the archive")
    assert str(caught.value) == f"expected Things in {root}, got no folder {root / part}; try the archive"
    with pytest.raises(BadInput, match="expected the folder of Things, got no --data; try --data DIR"):
        checked_folder(None, "Things", (), "the archive")


# --- which files are held out


@given(names=st.lists(st.text(min_size=1), min_size=1, max_size=30, unique=True), data=st.data())
def test_what_is_held_out_depends_on_names_alone(names: list[str], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(names)))
    chosen = held_out(names, count)
    assert len(chosen) == count and chosen == sorted(set(chosen))
    shuffled = data.draw(st.permutations(names))
    assert {names[i] for i in chosen} == {shuffled[i] for i in held_out(shuffled, count)}

    fewer = {names[1:][i] for i in held_out(names[1:], min(count, len(names) - 1))}
    assert len(fewer - {names[i] for i in chosen}) <= 1  # a file less moves at most one other in


def test_what_is_held_out_is_no_block(folder: Path) -> None:
    names = [f"n01440764_{number}.JPEG" for number in range(1000)]
    chosen = held_out(names, 100)
    assert chosen == held_out(names, 100)
    assert min(np.histogram(chosen, bins=4, range=(0, 1000))[0]) > 10


def test_a_file_of_another_size_changes_the_fingerprint(cityscapes_tree: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(cityscapes_tree, tmp_path / "moved"))
    before = cityscapes.load(moved).fingerprint
    assert before == cityscapes.load(cityscapes_tree).fingerprint
    for pattern in ("*_leftImg8bit.png", "*_labelIds.png"):
        changed = sorted(moved.rglob(pattern))[0]
        changed.write_bytes(changed.read_bytes() + b"\0")
        assert before != (before := cityscapes.load(moved).fingerprint)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone.JPEG").symlink_to(tmp_path / "away")
    with pytest.raises(BadInput, match=r"gone\.JPEG"):
        sizes(tmp_path, [str(tmp_path / "gone.JPEG")])

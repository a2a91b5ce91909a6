"""The table of the dense network's logits: bit for bit what a forward pass gives, and whole or absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import dense, teacher
from bench.dense import DenseWeights
from bench.plan import Ground
from shared.cache import cache_dir
from shared.data import BatchStream


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(teacher, "CHUNK", 4)  # of the fixture's 4 + 2 iterations


@pytest.fixture(scope="module")
def weights(ground: Ground) -> DenseWeights:
    """Trained ones: the logits of initial weights hardly depend on the image."""
    return dense.obtain(ground.workload, ground.dataset, lambda *_: None)


def files() -> list[Path]:
    return sorted(file for file in (cache_dir() / "teacher").rglob("*") if file.is_file())


def test_table_is_the_live_logits_bit_for_bit(ground: Ground, weights: DenseWeights) -> None:
    table, live = teacher.teacher(ground, weights, 3), teacher.live(weights.network)
    assert len(files()) == 2
    again = teacher.teacher(ground, weights, 3)  # from the files
    stream = BatchStream(ground.dataset.train, 3, ground.protocol.batch_size)
    for index in range(6):
        images, _ = stream.batch(index)
        expected = live(index, images)
        assert torch.equal(table(index, images), expected) and torch.equal(again(index, images), expected)
    assert not torch.equal(table(0, images), table(1, images))


def test_what_is_handed_out_is_the_callers_own(ground: Ground, weights: DenseWeights) -> None:
    table, images = teacher.teacher(ground, weights, 3), torch.zeros(())
    before = table(0, images).clone()
    table(0, images).zero_()
    assert torch.equal(table(0, images), before) and before.any()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-7],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    ],
)
def test_a_damaged_file_is_computed_anew(
    damage: Callable[[bytes], bytes], ground: Ground, weights: DenseWeights
) -> None:
    teacher.prepare(ground, weights, 3, 0)
    (file,) = files()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    teacher.prepare(ground, weights, 3, 0)
    assert file.read_bytes() == whole
    file.write_bytes(damage(whole))
    teacher.teacher(ground, weights, 3)  # damaged between the two
    assert file.read_bytes() == whole


def test_a_whole_file_is_read(ground: Ground, weights: DenseWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher.teacher(ground, weights, 3)
    monkeypatch.delattr(type(ground.dataset.train), "stream")
    teacher.teacher(ground, weights, 3)


@pytest.mark.parametrize(("pixels", "fits"), [((), True), ((48, 64), False), ((8, 8), True)])
def test_logits_of_every_pixel_count_towards_the_largest_table(
    ground: Ground, pixels: tuple[int, ...], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 batches of 16 images with 10 float32 logits each, per pixel: 3.8 kB, 11.8 MB, 246 kB."""
    monkeypatch.setattr(teacher, "LARGEST_TABLE_BYTES", 4 * 6 * 16 * 10 * 64)
    train = ground.dataset.train
    labelled = replace(train, labels=torch.zeros(1, dtype=torch.int64).expand(len(train), *pixels))
    files = teacher.chunks(replace(ground, dataset=replace(ground.dataset, train=labelled)))
    assert bool(files) == fits and list(files) == ([0, 4] if fits else [])


def test_all_that_decides_the_logits_is_in_the_key(
    ground: Ground, weights: DenseWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path(ground: Ground = ground, weights: DenseWeights = weights, seed: int = 3) -> Path:
        return teacher._path(ground, weights, seed, 0)

    found = {
        path(),
        path(seed=4),
        path(weights=replace(weights, fingerprint="others")),
        path(ground=replace(ground, protocol=replace(ground.protocol, batch_size=8))),
        path(ground=replace(ground, dataset=replace(ground.dataset, fingerprint="other images"))),
    }
    for module in (teacher.batches, teacher.rng):  # an edit of the code that makes batches
        with monkeypatch.context() as patch:
            (tmp_path / "edited.py").write_text(Path(str(module.__file__)).read_text() + "EDITED = 1\n")
            patch.setattr(module, "__file__", str(tmp_path / "edited.py"))
            found.add(path())
    assert len(found) == 7

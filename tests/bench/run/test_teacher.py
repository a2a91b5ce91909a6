"""The table of the dense network's logits: bit for bit what a forward pass gives, and whole or absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.run import teacher
from bench.setup import dense
from bench.setup.setup import Setup
from shared.cache import cache_dir
from shared.computing import Computing
from shared.data import BatchStream


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(teacher, "CHUNK", 4)  # of the fixture's 4 + 2 iterations


@pytest.fixture(scope="module")
def trained(setup: Setup) -> Setup:
    """With trained weights: the logits of initial ones hardly depend on the image."""
    return replace(setup, weights=dense.obtain(setup.workload, setup.dataset, lambda *_: None))


def files() -> list[Path]:
    return sorted(file for file in (cache_dir() / "teacher").rglob("*") if file.is_file())


def test_table_is_the_live_logits_bit_for_bit(trained: Setup) -> None:
    table, live = teacher.teacher(trained, 3), teacher.live(trained.dense.network)
    assert len(files()) == 2
    again = teacher.teacher(trained, 3)  # from the files
    stream = BatchStream(trained.dataset.train, 3, trained.protocol.batch_size)
    for index in range(6):
        images, _ = stream.batch(index)
        expected = live(index, images)
        assert torch.equal(table(index, images), expected) and torch.equal(again(index, images), expected)
    assert not torch.equal(table(0, images), table(1, images))


def test_what_is_handed_out_is_the_callers_own(trained: Setup) -> None:
    table, images = teacher.teacher(trained, 3), torch.zeros(())
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
def test_a_damaged_file_is_computed_anew(damage: Callable[[bytes], bytes], trained: Setup) -> None:
    teacher.prepare(trained, 3, 0)
    (file,) = files()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    teacher.prepare(trained, 3, 0)
    assert file.read_bytes() == whole
    file.write_bytes(damage(whole))
    teacher.teacher(trained, 3)  # damaged between the two
    assert file.read_bytes() == whole


def test_a_whole_file_is_read(trained: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher.teacher(trained, 3)
    monkeypatch.delattr(type(trained.dataset.train), "stream")
    teacher.teacher(trained, 3)


@pytest.mark.parametrize(("pixels", "fits"), [((), True), ((48, 64), False), ((8, 8), True)])
def test_logits_of_every_pixel_count_towards_the_largest_table(
    setup: Setup, pixels: tuple[int, ...], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 batches of 16 images with 10 float32 logits each, per pixel: 3.8 kB, 11.8 MB, 246 kB."""
    monkeypatch.setattr(teacher, "LARGEST_TABLE_BYTES", 4 * 6 * 16 * 10 * 64)
    train = setup.dataset.train
    labelled = replace(train, labels=torch.zeros(1, dtype=torch.int64).expand(len(train), *pixels))
    files = teacher.chunks(replace(setup, dataset=replace(setup.dataset, train=labelled)))
    assert bool(files) == fits and list(files) == ([0, 4] if fits else [])


def test_all_that_decides_the_logits_is_in_the_key(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path(seed: int = 3, **changes: object) -> Path:
        return teacher._path(replace(setup, **changes), seed, 0)  # type: ignore[arg-type]

    found = {
        path(),
        path(seed=4),
        path(weights=replace(setup.dense, fingerprint="others")),
        path(protocol=replace(setup.protocol, batch_size=8)),
        path(dataset=replace(setup.dataset, fingerprint="other images")),
        path(computing=Computing(torch.device("cpu"), autocast=torch.bfloat16)),
    }
    for module in (teacher.batches, teacher.file_batches, teacher.rng):  # an edit of the code that makes batches
        with monkeypatch.context() as patch:
            (tmp_path / "edited.py").write_text(Path(str(module.__file__)).read_text() + "EDITED = 1\n")
            patch.setattr(module, "__file__", str(tmp_path / "edited.py"))
            found.add(path())
    assert len(found) == 9

"""Dense weights: the shipped ones belong to the code and data as they are now; training goes on where it stopped."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from bench.cli import app as cli
from bench.setup import dense, workload
from bench.setup.setup import Setup
from shared.cache import content_key
from shared.checkpoints import Checkpoints
from shared.data import Dataset, Split
from shared.errors import BadInput
from shared.networks import build
from shared.rng import forked
from shared.training import score
from tests.bench.conftest import head


# the least that the shipped network reaches on all test images, and on the first 1,000
@pytest.mark.parametrize(
    ("network", "dataset", "reached", "reached_by_1000"),
    [
        ("mobilenet", "fashion-mnist", 0.92, 0.90),
        ("alexnet", "fashion-mnist", 0.91, 0.89),
        ("erfnet", "garment-scenes", 0.50, 0.48),
    ],
)
def test_shipped_weights_are_current_and_as_good_as_told(
    network: str, dataset: str, reached: float, reached_by_1000: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.delattr(dense, "train")  # found, not made now
    work = workload.get(network, dataset)
    images = work.load_data()
    shipped = dense.obtain(work, images, lambda *_: None)
    assert shipped.accuracy >= reached
    assert not shipped.network.training
    assert score(shipped.network, images.test, 1_000) >= reached_by_1000
    assert build(**shipped.network.config).state_dict().keys() == shipped.network.state_dict().keys()  # type: ignore[arg-type]
    assert (dense.SHIPPED / f"{network}-{dataset}.safetensors").stat().st_size <= 10_000_000


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Seven iterations, a state kept after each."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    recipe = dense.Recipe(iterations=7, batch_size=8)
    monkeypatch.setattr(dense, "RECIPES", {("mobilenet", "fashion-mnist"): recipe})
    monkeypatch.setattr(dense, "Checkpoints", partial(Checkpoints, every_s=0.0))


@pytest.mark.parametrize("stops", [(1,), (4,), (2, 6), (7,)])
def test_a_stopped_training_goes_on_with_the_same_outcome(setup: Setup, short: None, stops: tuple[int, ...]) -> None:
    def stopping(at: int):  # type: ignore[no-untyped-def]
        def progress(what: str, done: int, total: int) -> None:
            counted.append(done)
            if done == at:
                raise KeyboardInterrupt

        return progress

    counted: list[int] = []
    whole, record = dense.train(setup.workload, setup.dataset, lambda *_: None)
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            dense.train(setup.workload, setup.dataset, stopping(stop))
    resumed, again = dense.train(setup.workload, setup.dataset, stopping(0))
    assert counted == list(range(1, 8))  # no iteration twice
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    times = ("seconds", "environment")
    assert {k: v for k, v in record.items() if k not in times} == {k: v for k, v in again.items() if k not in times}


@pytest.mark.parametrize("work", ["train", "test"])
def test_dense_weights_take_no_more_threads_than_usable_cores(
    work: str, setup: Setup, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, seen = torch.get_num_threads(), []
    monkeypatch.setattr("shared.computing.usable_cores", lambda: 2)
    monkeypatch.setattr(dense, "score", lambda *_: float(seen.append(torch.get_num_threads()) or 0.5))
    torch.set_num_threads(3)
    try:
        if work == "train":
            dense.train(setup.workload, setup.dataset, lambda *_: None)
        else:
            path, network = checkpoint(tmp_path)
            dense.load(network, path, setup.workload, setup.dataset)
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {2}


@pytest.mark.parametrize(("largest", "dtype"), [(10_000_000, torch.float32), (100_000, torch.float16)])
def test_the_network_in_use_is_the_one_in_the_file(
    setup: Setup, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(dense, "LARGEST_FLOAT32_BYTES", largest)
    trained, record = dense.train(setup.workload, setup.dataset, lambda *_: None)
    folder = tmp_path / os.fsdecode(b"\xe9")
    tensors = load(dense.write(dense.stored(trained), record, folder).read_bytes())
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {dtype}
    monkeypatch.setattr(dense, "SHIPPED", folder)
    monkeypatch.delattr(dense, "train")
    found = dense.obtain(setup.workload, setup.dataset, lambda *_: None)
    for name, tensor in found.network.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])
        assert not tensor.is_floating_point() or tensor.dtype == torch.float32
    assert found.accuracy == record["test_accuracy"] == score(found.network, setup.dataset.test)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"{}", b'{"key": ', b"\xff\xfe", b'{"key": 1, "test_accuracy": {}}']
)
def test_a_damaged_record_is_named(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    name = f"{setup.workload.network}-{setup.workload.dataset}"
    (tmp_path / f"{name}.json").write_bytes(content)
    monkeypatch.setattr(dense, "SHIPPED", tmp_path)
    with pytest.raises(BadInput, match=rf"a record of dense weights at .*{name}\.json, got a damaged one"):
        dense.find(setup.workload, setup.dataset)


def test_recipes_belong_to_pairs_that_exist() -> None:
    for network, dataset in dense.RECIPES:
        assert workload.get(network, dataset)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`bench dense` within this process, on 200 test images: (exit code, stdout, stderr)."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    real = workload.Workload.load_data

    def few(self: workload.Workload, folder: Path | None = None) -> Dataset:
        whole = real(self, folder)
        assert isinstance(whole.test, Split)
        return replace(whole, test=head(whole.test, 200))

    monkeypatch.setattr(workload.Workload, "load_data", few)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", "dense", *arguments])
        code = cli.main()
        return code, *capsys.readouterr()

    return call


def checkpoint(folder: Path, network: str = "mobilenet", **changes: Any) -> tuple[Path, nn.Module]:
    """A state dict in a file, of a network that nobody trained."""
    arguments = dict(workload.get(network, "fashion-mnist").arguments)
    with forked(1, "checkpoint"):
        model = build(network, **arguments | changes).eval()
    torch.save({"state_dict": model.state_dict()}, folder / "other.pth")
    return folder / "other.pth", model


def fingerprint(model: nn.Module) -> str:
    """The hash of all tensors with their names, types and shapes."""
    return content_key(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def test_a_checkpoint_is_tested_kept_and_found(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, theirs = checkpoint(tmp_path)
    monkeypatch.delattr(dense, "train")
    monkeypatch.setattr(dense, "LARGEST_FLOAT32_BYTES", 0)  # what a person brings is not rounded
    work = workload.get("mobilenet", "fashion-mnist")
    images = work.load_data()
    shipped = dense.obtain(work, images, lambda *_: None)
    code, out, error = command("--weights", str(path))
    assert (code, error) == (0, "")
    found = dense.obtain(work, images, lambda *_: None)
    assert found.fingerprint == fingerprint(theirs) != shipped.fingerprint
    assert found.fingerprint in out and f"{100 * found.accuracy:.2f} % top-1 accuracy on test" in out
    assert found.accuracy == score(theirs, images.test)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor)
    assert command()[1].splitlines()[0] == out.splitlines()[0]

    kept = re.search(r"kept in (\S+);", out)
    assert kept is not None
    shutil.rmtree(kept[1])
    assert dense.obtain(work, images, lambda *_: None).fingerprint == shipped.fingerprint


def test_a_second_checkpoint_takes_the_place_of_the_first(command: Command, tmp_path: Path) -> None:
    path, theirs = checkpoint(tmp_path)
    with torch.no_grad():
        next(theirs.parameters()).mul_(2)
    first = command("--weights", str(path))
    torch.save(theirs.state_dict(), path)
    second = command("--weights", str(path))
    assert first[0] == second[0] == 0 and fingerprint(theirs) in second[1] and fingerprint(theirs) not in first[1]


class RunsCode:
    """A pickle of this writes a file when it is read carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def _pickle(folder: Path) -> Path:
    torch.save({"state_dict": RunsCode(folder / "harm")}, folder / "code.pth")
    return folder / "code.pth"


def _damaged(folder: Path) -> Path:
    path, _ = checkpoint(folder)
    path.write_bytes(path.read_bytes()[:5_000])
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nowhere.pth", "expected a checkpoint file"),
        (lambda folder: folder, "expected a checkpoint file"),
        (lambda folder: checkpoint(folder, "alexnet")[0], "got one of alexnet; try --network alexnet"),
        (lambda folder: checkpoint(folder, num_classes=11)[0], "expected 10 classes"),
        (lambda folder: checkpoint(folder, width_multiplier=0.5)[0], "width multiplier 0.25"),
        (_pickle, "a pickle that asks for"),
        (_damaged, "expected a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_of_the_network_is_one_line_and_leaves_nothing(
    make: Callable[[Path], Path], words: str, command: Command, tmp_path: Path
) -> None:
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, error = command("--weights", str(path))
    assert (code, out) == (2, "")
    assert len(error.splitlines()) == 1 and words in error, error
    assert sorted(tmp_path.rglob("*")) == before


def test_weights_are_either_given_or_trained(command: Command, tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    code, _, error = command("--weights", str(path), "--to", str(tmp_path / "to"))
    assert code == 2 and error == "expected either --weights or --to, got both; " + error.partition("; ")[2]
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(("network", "dataset"), [("alexnet", "imagenet"), ("erfnet", "cityscapes")])
def test_data_in_files_are_named_after_the_checkpoint(
    network: str, dataset: str, command: Command, tmp_path: Path
) -> None:
    names = ("--network", network, "--dataset", dataset)
    code, _, error = command(*names, "--weights", str(tmp_path / "nowhere.pth"))
    assert code == 2 and "expected a checkpoint file" in error
    code, _, error = command(*names, "--data", str(tmp_path / "nowhere"))
    assert code == 2 and len(error.splitlines()) == 1 and str(tmp_path / "nowhere") in error

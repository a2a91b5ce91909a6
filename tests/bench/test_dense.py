"""Dense weights: the shipped ones belong to the code and data as they are now; training goes on where it stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bench import dense, workload
from bench.plan import Ground
from shared.checkpoints import Checkpoints
from shared.networks import build
from shared.training import score


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
def test_a_stopped_training_goes_on_with_the_same_outcome(ground: Ground, short: None, stops: tuple[int, ...]) -> None:
    def stopping(at: int):  # type: ignore[no-untyped-def]
        def progress(what: str, done: int, total: int) -> None:
            counted.append(done)
            if done == at:
                raise KeyboardInterrupt

        return progress

    counted: list[int] = []
    whole, record = dense.train(ground.workload, ground.dataset, lambda *_: None)
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            dense.train(ground.workload, ground.dataset, stopping(stop))
    resumed, again = dense.train(ground.workload, ground.dataset, stopping(0))
    assert counted == list(range(1, 8))  # no iteration twice
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    times = ("seconds", "environment")
    assert {k: v for k, v in record.items() if k not in times} == {k: v for k, v in again.items() if k not in times}


@pytest.mark.parametrize(("largest", "dtype"), [(10_000_000, torch.float32), (100_000, torch.float16)])
def test_the_network_in_use_is_the_one_in_the_file(
    ground: Ground, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(dense, "LARGEST_FLOAT32_BYTES", largest)
    trained, record = dense.train(ground.workload, ground.dataset, lambda *_: None)
    path = dense.write(trained, record, tmp_path)
    tensors = load_file(path)
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {dtype}
    monkeypatch.setattr(dense, "SHIPPED", tmp_path)
    monkeypatch.delattr(dense, "train")
    found = dense.obtain(ground.workload, ground.dataset, lambda *_: None)
    for name, tensor in found.network.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])
        assert not tensor.is_floating_point() or tensor.dtype == torch.float32
    assert found.accuracy == record["test_accuracy"] == score(found.network, ground.dataset.test)


def test_recipes_belong_to_pairs_that_exist() -> None:
    for network, dataset in dense.RECIPES:
        assert workload.get(network, dataset)

"""The store holds whole runs or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import bench
from bench import harness
from bench.dense import DenseWeights
from bench.plan import Budget, Ground, Job
from bench.record import NETWORK_FILE, RECORD_FILE, Record, to_json
from bench.store import Store
from bench.teacher import live
from shared.errors import BadInput


@pytest.fixture(scope="module")
def result(ground: Ground, weights: DenseWeights) -> harness.Result:
    job = Job("uniform", Budget(0.5, 0.5 * ground.dense_reading), seed=0)
    return harness.execute(job, "key", ground, weights, live(weights.network), lambda *_: None, "command")


def test_round_trip_and_network(result: harness.Result, tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    put = store.put("page/run", result.record, result.weights)
    folder = store.folder("page/run")
    found = store.find("page/run", "key")
    assert found is not None and found.network_sha256 is not None
    assert found.measures == put.measures and found.cost == put.cost and found.network_sha256 == put.network_sha256
    assert to_json(found) == (folder / RECORD_FILE).read_bytes()
    assert store.find("page/run", "another key") is None
    assert sorted(os.listdir(folder)) == [NETWORK_FILE, RECORD_FILE]

    model = bench.load_compressed(folder)
    assert result.weights is not None
    assert all(torch.equal(tensor, result.weights[name]) for name, tensor in model.state_dict().items())
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize("damage", [lambda f: f.write_bytes(b"x"), lambda f: f.unlink()])
@pytest.mark.parametrize("name", [NETWORK_FILE, RECORD_FILE])
def test_a_damaged_run_counts_as_none(
    result: harness.Result, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    store = Store(tmp_path)
    store.put("page/run", result.record, result.weights)
    folder = store.folder("page/run")
    damage(folder / name)
    assert store.find("page/run", "key") is None
    with pytest.raises(BadInput, match="expected"):
        bench.load_compressed(folder)
    store.put("page/run", result.record, result.weights)
    assert store.find("page/run", "key") is not None


def test_an_interrupted_write_leaves_the_old_run(
    result: harness.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.put("page/run", result.record, result.weights)

    def interrupt(record: Record) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.store.to_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.put("page/run", result.record.model_copy(update={"key": "new"}), result.weights)
    assert store.find("page/run", "key") is not None
    assert os.listdir(tmp_path / "page") == ["run"]


@pytest.mark.parametrize("renames", range(4))
def test_a_kill_between_any_two_renames_loses_no_finished_run(
    result: harness.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    store = Store(tmp_path)
    store.put("page/run", result.record, result.weights)
    rename, left = os.replace, iter(range(renames))

    def killed(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(source, target)

    new = result.record.model_copy(update={"key": "new"})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # a dead process tidies nothing
        if renames < 3:
            with pytest.raises(KeyboardInterrupt):
                store.put("page/run", new, result.weights)
        else:
            store.put("page/run", new, result.weights)
    store.sweep("page")
    assert store.find("page/run", "new" if renames else "key") is not None
    assert os.listdir(tmp_path / "page") == ["run"]


def test_one_plan_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.working("page"):
        (tmp_path / "page" / ".draft-live").mkdir()
        with pytest.raises(BadInput, match="another plan that is at work"), Store(tmp_path).working("page"):
            pass
        assert (tmp_path / "page" / ".draft-live").is_dir()
        with store.working("another page"):
            pass
    with store.working("page"):  # free again, and swept
        assert not (tmp_path / "page" / ".draft-live").exists()


def test_sweep_removes_drafts_and_nothing_else(tmp_path: Path) -> None:
    for name in (".draft-abc", ".git", "run"):
        (tmp_path / "page" / name).mkdir(parents=True)
    Store(tmp_path).sweep("page")
    assert sorted(os.listdir(tmp_path / "page")) == [".git", "run"]


def test_unwritable_output_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="output folder"):
        Store(tmp_path / "file" / "runs").check_writable()
    Store(tmp_path / "new" / "runs").check_writable()
    assert os.listdir(tmp_path) == ["file"]

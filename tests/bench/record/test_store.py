"""The store holds whole runs or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import bench
from bench.record.model import NETWORK_FILE, RECORD_FILE, Record, to_json
from bench.record.store import Store
from bench.run import stages
from bench.run.describe import describe
from bench.run.stages import Run
from bench.setup.budgets import Budget
from bench.setup.plan import Job
from bench.setup.setup import Setup
from shared.errors import BadInput

NAME = "page/run"


class Made(NamedTuple):
    """A record with the content key "key", and its network."""

    record: Record
    weights: dict[str, Tensor]

    def put(self, store: Store, key: str = "key") -> Record:
        """Store it, with another content key where one is given."""
        return store.put(NAME, self.record.model_copy(update={"key": key}), self.weights)


@pytest.fixture(scope="module")
def made(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Made:
    budget = Budget(0.5, 0.5 * setup.reach.dense_reading)
    run = Run(Job("uniform", budget, seed=0), setup, "key", tmp_path_factory.mktemp("stages"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("teacher")))
        for stage in stages.STAGES:
            stages.do(stage, [run])
    record, weights = describe(run)
    assert weights is not None
    return Made(record, weights)


@pytest.mark.parametrize("name", [b"out", b"\xe9"])
def test_what_was_put_is_found_and_loaded(name: bytes, made: Made, tmp_path: Path) -> None:
    store = Store(tmp_path / os.fsdecode(name))
    put = made.put(store)
    folder = store.folder(NAME)
    found = store.find(NAME, "key")
    assert found == put and found is not None and found.network_sha256 is not None
    assert found == made.record.model_copy(update={"network_sha256": found.network_sha256})
    assert to_json(found) == (folder / RECORD_FILE).read_bytes()
    assert sorted(os.listdir(folder)) == [NETWORK_FILE, RECORD_FILE]

    model = bench.load_compressed(folder)
    assert all(torch.equal(tensor, made.weights[name]) for name, tensor in model.state_dict().items())
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_a_run_of_another_key_or_name_is_not_found_and_nothing_is_said(made: Made, tmp_path: Path) -> None:
    store, said = Store(tmp_path), list[str]()
    made.put(store)
    assert store.find(NAME, "another key", said.append) is None
    assert store.find("page/another", "key", said.append) is None
    assert said == []


def older(content: bytes) -> bytes:
    """The record as an older schema would have it."""
    return json.dumps(json.loads(content) | {"schema_version": 2}).encode()


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        (RECORD_FILE, lambda content: b"x", "no JSON"),
        (RECORD_FILE, lambda content: content[:-20], "no JSON"),
        (RECORD_FILE, lambda content: content.replace(b'"macs": ', b'"macs": -'), "at measures.macs"),
        (RECORD_FILE, older, "got schema 2; try the command that made it once more, which repeats the run"),
        (NETWORK_FILE, lambda content: b"x", "as its record hashes it, got other bytes or no file"),
        (
            NETWORK_FILE,
            lambda content: content[:-1] + bytes([content[-1] ^ 1]),
            "as its record hashes it, got other bytes or no file",
        ),
        (NETWORK_FILE, None, "as its record hashes it, got other bytes or no file"),
    ],
)
def test_a_damaged_run_counts_as_none_and_its_file_is_named(
    name: str, damage: Callable[[bytes], bytes] | None, words: str, made: Made, tmp_path: Path
) -> None:
    store, said = Store(tmp_path), list[str]()
    made.put(store)
    file = store.folder(NAME) / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    assert store.find(NAME, "key", said.append) is None
    (line,) = said
    assert line.startswith(f"{NAME} is run again: expected ") and str(file) in line and words in line
    assert "\n" not in line
    with pytest.raises(BadInput, match="expected"):
        bench.load_compressed(store.folder(NAME))
    made.put(store)
    assert store.find(NAME, "key") is not None


def test_a_miss_has_no_network(made: Made, tmp_path: Path) -> None:
    store = Store(tmp_path)
    made.put(store)
    miss = made.record.model_copy(update={"status": "miss", "reason": "too little", "measures": None})
    store.put(NAME, miss, None)
    assert store.find(NAME, "key") == miss
    assert os.listdir(store.folder(NAME)) == [RECORD_FILE]


class Killed(BaseException):
    """The process is dead."""


STEPS = 5  # of `put`: both old files go, both new ones come, the stages' files go


@pytest.mark.parametrize("before", ["nothing", "an older run"])
@pytest.mark.parametrize("steps", range(STEPS + 1))
def test_killed_at_any_point_put_leaves_no_record_or_a_whole_one(
    steps: int, before: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    if before == "an older run":
        made.put(store, "old")
    files = store.stages(NAME, "key")
    files.mkdir(parents=True)
    done = 0

    def killing(step: Callable[..., Any]) -> Callable[..., Any]:
        def until_killed(*arguments: Any, **kinds: Any) -> Any:
            nonlocal done
            if done == steps:
                raise Killed
            done += 1
            return step(*arguments, **kinds)

        return until_killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killing(Path.unlink))
        patch.setattr(os, "replace", killing(os.replace))
        patch.setattr(shutil, "rmtree", killing(shutil.rmtree))
        try:
            made.put(store)
        except Killed:
            assert steps < STEPS
        else:
            assert steps == STEPS
    said = list[str]()
    whole = store.find(NAME, "key", said.append)
    assert (whole is not None) == (steps >= 4)
    assert files.exists() == (steps < STEPS)  # from which the same command goes on
    # what is there is the older run as it was, nothing, or this one: never half of one
    assert (store.find(NAME, "old", said.append) is not None) == (steps == 0 and before == "an older run")
    assert said == []
    put = made.put(store)
    assert store.find(NAME, "key") == put and not files.exists()


def test_stages_files_are_bound_to_the_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mine, other = store.stages(NAME, "mine"), store.folder(NAME) / "kept"
    for folder in (mine, other):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    assert store.stages(NAME, "mine") == mine and (mine / "file").exists()
    theirs = store.stages(NAME, "theirs")
    assert theirs != mine and not mine.exists() and not theirs.exists()
    (theirs / "below").mkdir(parents=True)
    assert store.stages(NAME, "theirs", fresh=True) == theirs and not theirs.exists()
    assert (other / "file").exists()


def test_one_plan_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.working("page"):
        with pytest.raises(BadInput, match="another plan that is at work"), Store(tmp_path).working("page"):
            pass
        with store.working("another page"):
            pass
    with store.working("page"):  # free again
        pass


def test_the_store_stays_where_it_was_when_a_method_changes_the_folder(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("runs"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    made.put(store)
    assert (tmp_path / "runs" / NAME / RECORD_FILE).exists() and not os.listdir(tmp_path / "elsewhere")

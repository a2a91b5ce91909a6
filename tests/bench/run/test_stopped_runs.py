"""A run that is stopped goes on, and its record comes out the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench.record.model import NETWORK_FILE, Record, read
from bench.run import stages
from bench.run.describe import describe
from bench.run.stages import Run
from bench.run.teacher import live
from bench.run.trouble import MachineTrouble
from bench.setup.budgets import Budget
from bench.setup.plan import Job
from bench.setup.setup import Setup
from methods import registry
from shared.checkpoints import Checkpoints

ROOT = Path(__file__).parents[3]
Stop = tuple[str, float]  # stage, share of its iterations


def comparable(record: Record) -> dict[str, Any]:
    """The record without times and host."""
    fields = record.model_dump(mode="json")
    for name in ("method_s", "fine_tune_s", "distillation_step_s", "forward_s_per_image"):
        del fields["cost"][name]
    del fields["environment"]
    return fields


class Stopped(MachineTrouble):
    """The process ends: nothing that a stage catches."""


@pytest.fixture
def go(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Stop | None], list[Stop]]:
    """Works on an ECC run in a named folder until it is stopped or done; returns its progress."""
    monkeypatch.setattr(stages, "unit_costs", lambda *_: (0.06, 0.0002))
    monkeypatch.setattr(stages, "teacher", lambda setup, seed: live(setup.dense.network))
    monkeypatch.setattr(Run, "states", lambda run, stage: Checkpoints(run.folder / stage, every_s=0.0))

    def work(name: str, stop: Stop | None) -> list[Stop]:
        progress: list[Stop] = []

        def report(stage: str, share: float) -> None:
            progress.append((stage, share))
            if stop is not None and stage == stop[0] and share >= stop[1]:
                raise MemoryError

        run = run_of(setup, tmp_path / name, report)
        for stage in stages.STAGES:
            stages.do(stage, [run])
        return progress

    return work


def run_of(setup: Setup, folder: Path, report: stages.Report = lambda *_: None) -> Run:
    return Run(Job("ecc", Budget(0.5, 0.5 * setup.reach.dense_reading), 0), setup, "key", folder, report)


@pytest.mark.parametrize(
    ("stops", "first"),
    [
        ([("compress", 0.75)], ("compress", 0.75)),  # two of four iterations were saved
        ([("compress", 0.25)], ("compress", 0.25)),  # none was
        ([("tune", 0.5)], ("tune", 0.5)),
        ([("tune", 1.0)], ("tune", 1.0)),
        ([("compress", 0.5), ("compress", 1.0), ("tune", 0.5), ("tune", 1.0)], ("tune", 1.0)),
    ],
)
def test_goes_on_where_it_was_stopped(
    stops: list[Stop], first: Stop, go: Callable[[str, Stop | None], list[Stop]], setup: Setup, tmp_path: Path
) -> None:
    go("whole", None)
    for stop in stops:
        with pytest.raises((MachineTrouble, MemoryError)):
            go("stopped", stop)
    assert go("stopped", None)[0] == first
    whole, stopped = (describe(run_of(setup, tmp_path / name)) for name in ("whole", "stopped"))
    assert comparable(stopped[0]) == comparable(whole[0]) and stopped[0].status == "ok"
    assert whole[0].environment["resumed"] is False
    assert stopped[1] is not None and whole[1] is not None
    for name, tensor in whole[1].items():
        assert torch.equal(stopped[1][name], tensor), name


def test_a_stage_is_not_done_again(go: Callable[[str, Stop | None], list[Stop]], setup: Setup, tmp_path: Path) -> None:
    go("run", None)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*.safetensors")}
    assert {path.stem for path in files} == set(stages.STAGES)
    assert go("run", None) == []
    assert {path: path.stat().st_mtime_ns for path in files} == files
    (tmp_path / "run/tune.safetensors").write_bytes(b"damaged")
    assert run_of(setup, tmp_path / "run").missing() == ("tune",)
    before = describe_tuned(tmp_path / "run/land.safetensors")
    go("run", None)
    assert describe_tuned(tmp_path / "run/land.safetensors") == before  # a stage never edits another's file


def describe_tuned(path: Path) -> bytes:
    return path.read_bytes()


def test_seconds_before_the_stop_count(
    go: Callable[[str, Stop | None], list[Stop]], setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def ticking() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr("shared.checkpoints.time.monotonic", ticking)
    for stop in (("compress", 1.0), ("tune", 1.0)):
        with pytest.raises((MachineTrouble, MemoryError)):
            go("run", stop)
        now += 10_000.0  # nobody works
    go("run", None)
    cost = describe(run_of(setup, tmp_path / "run"))[0].cost
    assert cost is not None and 5 < cost.method_s < 1000 and 2 < cost.fine_tune_s < 1000


@pytest.mark.parametrize(("platform", "killed_in"), [("simulated", stages.STAGES), ("played", ("land", "read"))])
def test_a_plan_that_is_killed_in_each_stage_ends_in_the_same_records(
    platform: str, killed_in: Sequence[str], tmp_path: Path
) -> None:
    """`kill -9` while the first file of a stage is about to be written, once for each stage.

    All built-in methods on a simulated platform; on a played meter those stages that read it.
    """
    environment = os.environ | {"BENCH_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    channels = [name for name in registry.BUILT_IN if registry.get(name).granularity == "channels"]
    methods = ",".join(channels) if platform == "simulated" else "ecc,uniform"

    def records(out: str) -> dict[str, tuple[Record, Path]]:
        paths = (tmp_path / out).glob("*/*/record.json")
        return {path.parent.name: (read(path.parent), path.parent / NETWORK_FILE) for path in paths}

    plans = ["whole:none", *(f"killed:{stage}" for stage in killed_in), "killed:none"]
    command = [
        sys.executable,
        "-m",
        "tests.bench.run.killing",
        methods,
        platform,
        *(str(tmp_path / one) for one in plans),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    codes = [int(line) for line in done.stdout.splitlines() if line.lstrip("-").isdigit()]
    assert codes == [0, *(-signal.SIGKILL for _ in killed_in), 0], done.stdout + done.stderr
    whole, killed = records("whole"), records("killed")
    assert killed.keys() == whole.keys() and len(whole) == len(methods.split(","))
    for name, (record, network) in whole.items():
        assert comparable(killed[name][0]) == comparable(record), name
        if record.status == "ok":
            ours, theirs = load_file(network), load_file(killed[name][1])
            assert all(torch.equal(ours[key], theirs[key]) for key in ours), name

"""A run that is interrupted in its method or in fine-tuning goes on, and its record tells the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import harness
from bench.dense import DenseWeights
from bench.harness import Result
from bench.plan import Budget, Ground, Job
from bench.store import Store
from bench.teacher import live
from shared.checkpoints import Checkpoints

Execute = Callable[[Path | None, tuple[str, float] | None], Result]


@pytest.fixture
def execute(ground: Ground, weights: DenseWeights, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """A run of ECC with a folder for its states, interrupted when a step has reached a share of its iterations."""
    monkeypatch.setattr(harness, "unit_costs", lambda *_: (0.06, 0.0002))
    monkeypatch.setattr(harness, "_phase", lambda folder, name: Checkpoints(folder and folder / name, every_s=0.0))
    job = Job("ecc", Budget(0.5, 0.5 * ground.dense_reading), seed=0)

    def run(folder: Path | None, stop: tuple[str, float] | None) -> Result:
        told: list[tuple[str, float]] = []

        def report(step: str, share: float) -> None:
            told.append((step, share))
            if stop is not None and step == stop[0] and share >= stop[1]:
                raise KeyboardInterrupt

        result = harness.execute(job, "key", ground, weights, live(weights.network), report, "command", folder)
        result.record.notes["told"] = told
        return result

    return run


def comparable(result: Result) -> dict[str, Any]:
    """The record without times, host and what this test noted."""
    told = result.record.model_dump(mode="json")
    for name in ("method_s", "fine_tune_s", "distillation_step_s", "forward_s_per_image"):
        del told["cost"][name]
    del told["environment"], told["notes"]["told"]
    return told


@pytest.mark.parametrize(
    ("stops", "first"),
    [
        ([("compress", 0.75)], ("compress", 0.75)),  # two of four iterations were kept
        ([("compress", 0.25)], ("compress", 0.25)),  # nothing was
        ([("fine-tune", 0.5)], ("fine-tune", 0.5)),  # the cut network was
        ([("fine-tune", 1.0)], ("fine-tune", 1.0)),
        ([("compress", 0.5), ("compress", 1.0), ("fine-tune", 0.5), ("fine-tune", 1.0)], ("fine-tune", 1.0)),
    ],
)
def test_goes_on_where_it_was_stopped(
    stops: list[tuple[str, float]], first: tuple[str, float], execute: Execute, tmp_path: Path
) -> None:
    whole = execute(None, None)
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            execute(tmp_path / "states", stop)
    result = execute(tmp_path / "states", None)
    assert result.record.notes["told"][0] == first
    assert comparable(result) == comparable(whole) and result.record.status == "ok"
    assert result.record.environment["resumed"] is (first != ("compress", 0.25))
    assert whole.record.environment["resumed"] is False
    assert result.weights is not None and whole.weights is not None
    for name, tensor in whole.weights.items():
        assert torch.equal(result.weights[name], tensor), name


def test_seconds_before_the_stop_count(execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def ticking() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr("shared.checkpoints.time.monotonic", ticking)
    for stop in (("compress", 1.0), ("fine-tune", 1.0)):
        with pytest.raises(KeyboardInterrupt):
            execute(tmp_path / "states", stop)
        now += 10_000.0  # nobody works
    result = execute(tmp_path / "states", None)
    assert result.record.cost is not None
    assert 5 < result.record.cost.method_s < 1000 and 2 < result.record.cost.fine_tune_s < 1000


def test_states_belong_to_a_key_and_end_with_the_run(execute: Execute, tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = store.states("plan/ecc-0.5-s0", "old")
    with pytest.raises(KeyboardInterrupt):
        execute(old, ("compress", 0.75))
    assert old.is_dir() and store.states("plan/ecc-0.5-s0", "old") == old and old.is_dir()
    assert not store.states("plan/ecc-0.5-s0", "old", fresh=True).exists()
    with pytest.raises(KeyboardInterrupt):
        execute(old, ("compress", 0.75))
    new = store.states("plan/ecc-0.5-s0", "key")
    assert new != old and not old.exists()
    result = execute(new, None)
    store.put("plan/ecc-0.5-s0", result.record, result.weights)
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["ecc-0.5-s0"]

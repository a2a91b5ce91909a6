"""A plan goes on after a miss, even one that takes its process along, and does nothing twice."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import plan, runner
from bench.plan import Job, Plan, Request
from bench.store import Store


class Deadly:
    """Ends the worker process which unpickles it, as the kernel does when memory runs out."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


class DeadlyKey(Deadly, str):
    pass


class DeadlyIndex(Deadly, int):
    """Of a batch."""


class Begun(Exception):
    """The jobs that were about to start."""


def test_a_job_that_kills_its_worker_is_a_miss_and_the_others_go_on(
    in_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan.make(Request(methods="random,uniform", protocol="smoke", budgets="0.4"))
    key = Plan.key

    def some_deadly(self: Plan, job: Job, *rest: str) -> str:
        return (DeadlyKey if job.method == "random" else str)(key(self, job, *rest))

    monkeypatch.setattr(Plan, "key", some_deadly)
    store, console = Store(tmp_path / "out"), Console(file=(tmp_path / "log").open("w"), width=200)
    records = runner.run(made, store, jobs=1, fresh=False, command="command", console=console)
    assert [record.method for record in records] == ["random", "uniform"]
    assert [record.status for record in records] == ["miss", "ok"]
    assert records[0].reason == "the worker process died twice (killed, out of memory?)"
    assert records[1].measures is not None and records[1].cost is not None
    assert records[1].cost.training_iterations == 60

    monkeypatch.setattr(runner, "_work", None)  # nothing is left to do
    again = runner.run(made, store, jobs=1, fresh=False, command="another", console=console)
    assert [record.key for record in again] == [record.key for record in records]
    assert [record.measures for record in again] == [record.measures for record in records]

    def begun(_plan: Plan, _weights: Any, waiting: list[Job], *_: Any, **__: Any) -> None:
        raise Begun(waiting)

    monkeypatch.setattr(runner, "_work", begun)
    longer = replace(made, ground=replace(made.ground, protocol=replace(made.ground.protocol, iterations=61)))
    for changed, fresh in ((longer, False), (made, True)):
        with pytest.raises(Begun) as caught:
            runner.run(changed, store, jobs=1, fresh=fresh, command="", console=console)
        assert caught.value.args == (list(made.jobs),)  # all of it is to be done again


def test_a_worker_that_dies_over_the_logits_takes_no_run_along(
    in_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.4"))
    monkeypatch.setattr(runner.teacher, "chunks", lambda ground: [DeadlyIndex(0)])
    with (tmp_path / "log").open("w") as log:
        console = Console(file=log, width=200)
        (record,) = runner.run(made, Store(tmp_path / "out"), jobs=1, fresh=False, command="command", console=console)
    assert record.status == "ok"

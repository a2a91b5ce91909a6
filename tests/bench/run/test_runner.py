"""A plan goes on after misses and after trouble, ends where nothing can be written, and does nothing twice."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.record.model import Record, read
from bench.record.store import Store
from bench.run import runner
from bench.run.processes import Piece, Processes, _end
from bench.run.runner import Finished
from bench.run.trouble import FullDisk
from bench.setup import plan
from bench.setup.request import Request
from bench.setup.setup import Setup
from shared.errors import BadInput
from shared.meters import MeterError
from tests.bench.run import odd_methods as odd

Run = Callable[..., Finished]


@pytest.fixture
def odd_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Registers the odd methods as a package of someone else's; returns the file with their starts."""
    site = tmp_path / "site"
    (site / "odd-1.dist-info").mkdir(parents=True)
    (site / "odd_methods.py").write_text(Path(odd.__file__).read_text())
    (site / "odd-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    points = "".join(f"{method.name} = odd_methods:{method.__name__}\n" for method in odd.METHODS)
    (site / "odd-1.dist-info/entry_points.txt").write_text(f"[bench.methods]\n{points}")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv(odd.ATTEMPTS, str(tmp_path / "attempts"))
    return tmp_path / "attempts"


@pytest.fixture
def run(in_cache: Path, short_runs: None, tmp_path: Path) -> Run:
    def go(methods: str, out: str = "out", *, fresh: bool = False, **options: Any) -> Finished:
        made = plan.make(Request(methods=methods, protocol="smoke", **options), to_train=True)
        with (tmp_path / "log").open("a") as log:
            console = Console(file=log, width=200, markup=False)
            return runner.run(made, Store(tmp_path / out), jobs=2, fresh=fresh, console=console)

    return go


def of(finished: Finished, method: str) -> Record:
    return next(record for record in finished.records if record.method == method)


def test_a_runs_figures_do_not_depend_on_what_ran_before(odd_methods: Path, run: Run, tmp_path: Path) -> None:
    """Nor on what its own method leaves behind: threads, settings of torch, the environment, the current folder."""
    both = run("odd-leaks,uniform", "both")
    alone = run("odd-plain,uniform", "alone")
    assert both.open == alone.open == {}
    assert of(both, "uniform").measures == of(alone, "uniform").measures
    assert of(both, "odd-leaks").measures == of(alone, "odd-plain").measures
    for finished, out in ((both, "both"), (alone, "alone")):
        assert [record.status for record in finished.records] == ["ok", "ok"]
        stored = [read(path.parent) for path in sorted((tmp_path / out).glob("*/*/record.json"))]
        assert stored == sorted(finished.records, key=lambda record: record.method)
    names = {path.name for path in (tmp_path / "both").glob("*/uniform-*/*")}
    assert names == {"record.json", "network.safetensors"}  # the stages' files are gone


def test_trouble_leaves_runs_open_and_the_others_go_on(odd_methods: Path, run: Run, tmp_path: Path) -> None:
    methods = "odd-killed,odd-exits,odd-memory,odd-interrupts,uniform"
    finished = run(methods)
    assert {job.method: reason for job, reason in finished.open.items()} == {
        "odd-killed": "its process was ended by SIGKILL (as when memory runs out)",
        "odd-exits": "its process ended itself with code 5",
        "odd-memory": "MemoryError",
    }
    assert [(record.method, record.status) for record in finished.records] == [
        ("odd-interrupts", "miss"),  # what a method raises is its own, a KeyboardInterrupt too
        ("uniform", "ok"),
    ]
    assert of(finished, "odd-interrupts").reason == "KeyboardInterrupt (odd_methods.py:76)"
    starts = odd_methods.read_text().split()
    assert [starts.count(name) for name in ("odd-killed", "odd-exits", "odd-memory", "odd-interrupts")] == [2, 2, 2, 1]
    stored = {path.parent.name for path in (tmp_path / "out").glob("*/*/record.json")}
    assert stored == {"odd-interrupts-0.4-s0", "uniform-0.4-s0"}
    again = run(methods)  # tries those that are open, and nothing else
    assert [record.key for record in again.records] == [record.key for record in finished.records]
    assert again.open.keys() == finished.open.keys()
    assert [odd_methods.read_text().split().count(name) for name in ("odd-killed", "odd-interrupts")] == [4, 1]


def test_a_full_disk_ends_the_plan_and_stores_nothing(odd_methods: Path, run: Run, tmp_path: Path) -> None:
    with pytest.raises(FullDisk, match="No space left on device"):
        run("odd-disk")
    assert not list((tmp_path / "out").glob("*/*/record.json"))
    assert odd_methods.read_text().split() == ["odd-disk"]


def test_nothing_is_done_twice_unless_it_is_asked_for(run: Run, odd_methods: Path, tmp_path: Path) -> None:
    first = run("odd-plain")
    assert run("odd-plain").records == first.records and len(odd_methods.read_text().split()) == 1
    assert "1 of 1 runs are finished already" in (tmp_path / "log").read_text()
    fresh = run("odd-plain", fresh=True)
    assert len(odd_methods.read_text().split()) == 2 and fresh.records[0].measures == first.records[0].measures


def test_a_damaged_record_is_named_and_its_run_repeated(run: Run, odd_methods: Path, tmp_path: Path) -> None:
    first = run("odd-plain").records[0]
    (path,) = (tmp_path / "out").glob("*/*/record.json")
    path.write_text(re.sub(r'"accuracy_after": [0-9.]+', '"accuracy_after": NaN', path.read_text()))
    assert run("odd-plain").records[0].measures == first.measures
    log = (tmp_path / "log").read_text()
    assert f"odd-plain-0.4-s0 is run again: expected a record in {path}" in log and "NaN" in log
    assert len(odd_methods.read_text().split()) == 2


class Deadly(int):
    """A batch index that ends the process which unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_a_process_that_dies_over_the_logits_takes_no_run_along(
    odd_methods: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.teacher, "chunks", lambda setup: [Deadly(0)])
    assert [record.status for record in run("odd-plain").records] == ["ok"]


def raise_(setup: Setup, report: object, error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [BadInput("a", "b", "c"), MeterError("a", "b", "c")])
def test_what_a_person_can_mend_comes_out_of_a_process(error: Exception, in_cache: Path) -> None:
    pieces = [Piece("raises", raise_, (error,))]
    with pytest.raises(type(error), match="expected a, got b; try c"):
        list(Processes(Request(protocol="smoke"), 1, [], lambda *_: None).results(pieces))


def test_a_fault_of_ours_is_reported_with_its_place(in_cache: Path) -> None:
    pieces = [Piece("raises", raise_, (KeyError("x"),))]
    ((_, trouble),) = Processes(Request(protocol="smoke"), 1, [], lambda *_: None).results(pieces)
    assert trouble is not None and trouble.kind == "fault"
    assert trouble.text.startswith("KeyError: 'x' (test_runner.py:")


def hold(setup: Setup, report: object, place: str) -> None:
    Path(place).write_text(str(os.getpid()))
    signal.pause()


def test_processes_end_when_the_caller_stops_asking(in_cache: Path, tmp_path: Path) -> None:
    """A BadInput out of one process ends the others, even those that hold on."""
    place = tmp_path / "pid"

    def wait(setup: str, stage: str, share: float) -> None: ...

    pieces = [Piece("holds", hold, (str(place),)), Piece("raises", raise_when, (str(place),))]
    with pytest.raises(BadInput):
        list(Processes(Request(protocol="smoke"), 2, [], wait).results(pieces))
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)


def raise_when(setup: Setup, report: object, place: str) -> None:
    while not (Path(place).exists() and Path(place).read_text()):
        pass
    raise BadInput("a", "b", "c")


def test_how_processes_end() -> None:
    assert _end(-signal.SIGSEGV) == "its process was ended by SIGSEGV" and _end(3).endswith("with code 3")

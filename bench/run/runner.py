"""Works through a plan: the stages of its runs in processes of their own, without repeating what is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.record.model import Record
from bench.record.store import Store
from bench.run import cost, stages, teacher
from bench.run.describe import describe
from bench.run.processes import Piece, Processes
from bench.run.progress import PlanProgress
from bench.run.stages import Report, Run
from bench.run.trouble import FullDisk, Trouble
from bench.setup import dense
from bench.setup.plan import Job, Plan
from bench.setup.setup import Setup
from methods import registry
from shared.meters import device_lock
from shared.platforms.measured import WAIT_S

# The method has a process of its own, so that nothing it leaves behind there changes a later stage.
COMPRESS, REST = ("compress",), ("land", "tune", "read", "score")


@dataclass
class Finished:
    """The result of working through a plan."""

    records: list[Record]  # of the finished runs, in the plan's order
    open: dict[Job, str] = field(default_factory=dict)  # job -> trouble of the machine; the same command tries it again


def run(plan: Plan, store: Store, *, jobs: int, fresh: bool, console: Console) -> Finished:
    """Do the runs that the store does not hold yet. Neither a miss nor trouble with a single run stops the plan.

    After Ctrl-C the same command goes on from the files of finished stages, and from the states of those that were
    running, which are at most a minute old where the method saves them. Raises FullDisk.
    """
    with store.working(plan.slug):  # first, since a folder that is refused after the training would be told late
        with _computing(plan, console):
            plan = replace(plan, setup=plan.setup.with_dense_weights())
        return _Runner(plan, store, jobs, console).work(fresh=fresh)


def stored_records(plan: Plan, store: Store, console: Console) -> dict[Job, Record]:
    """The records of the plan's finished runs; none where there are no dense weights yet."""
    if plan.setup.weights is None:
        if dense.find(plan.setup.workload, plan.setup.dataset) is None:
            return {}
        plan = replace(plan, setup=plan.setup.with_dense_weights())
    say = partial(console.print, soft_wrap=True)
    candidates = {job: store.find(f"{plan.slug}/{job.name}", plan.key(job), say) for job in plan.jobs}
    records = {job: record for job, record in candidates.items() if record is not None}
    if records:
        say(f"{len(records)} of {len(plan.jobs)} runs are finished already (--fresh repeats them)")
    return records


class _Runner:
    """Works through a plan once."""

    _progress: PlanProgress  # set while runs are worked on

    def __init__(self, plan: Plan, store: Store, jobs: int, console: Console) -> None:
        self._plan, self._store, self._jobs, self._console = plan, store, jobs, console
        self._setup = plan.setup
        self._records: dict[Job, Record] = {}
        self._open: dict[Job, str] = {}

    def work(self, *, fresh: bool) -> Finished:
        runs = self._waiting(fresh=fresh)
        if runs:
            estimate = cost.estimate(self._plan, [run.job for run in runs])
            self._say(estimate.describe(self._jobs))
            work = {job.name: seconds for job, seconds in estimate.job_seconds.items()}
            with PlanProgress(work, self._console) as self._progress:
                runs.sort(key=lambda run: -work[run.job.name])  # longest first
                self._prepare_teacher(runs)
                if self._setup.platform.readings_need_quiet:  # all runs finish a stage before the next one begins
                    self._each(runs, [COMPRESS])
                    self._each(runs, [("land",)], quiet=True)
                    self._each(runs, [("tune", "score")])
                    self._read(runs)
                else:
                    self._each(runs, [COMPRESS, REST])
        records = [self._records[job] for job in self._plan.jobs if job in self._records]
        return Finished(records, self._open)

    def _waiting(self, *, fresh: bool) -> list[Run]:
        """The unfinished runs, some of whose stages may be done."""
        if not fresh:
            self._records = stored_records(self._plan, self._store, self._console)
        keys = {job: self._plan.key(job) for job in self._plan.jobs if job not in self._records}
        return [
            Run(job, self._setup, key, self._store.stages(f"{self._plan.slug}/{job.name}", key, fresh=fresh))
            for job, key in keys.items()
        ]

    def _prepare_teacher(self, runs: Sequence[Run]) -> None:
        """Compute the files of the dense network's logits, which all runs of a seed share."""
        seeds = dict.fromkeys(run.job.seed for run in runs if "compress" in run.missing())
        parts = [(seed, first) for seed in seeds for first in teacher.chunks(self._setup)]
        if not parts:
            return
        self._say("computing the dense network's logits for distillation")
        pieces = [
            Piece(f"logits {place}", _prepare, (parts[place :: self._jobs],))
            for place in range(min(self._jobs, len(parts)))
        ]
        with _computing(self._plan, self._console):
            for _ in self._ended(pieces, self._jobs):
                pass

    def _each(self, runs: Sequence[Run], groups: list[tuple[str, ...]], *, quiet: bool = False) -> None:
        """Take each run through groups of stages, with a process for each group.

        quiet: one run at a time while no other process of the suite computes, since the platform is read.
        """
        by_name = {run.job.name: run for run in self._pending(runs)}
        pieces = [piece for run in by_name.values() if (piece := _next(run, groups))]
        with contextlib.nullcontext() if quiet else _computing(self._plan, self._console):
            for piece, trouble in self._ended(pieces, 1 if quiet else self._jobs):
                run = by_name[piece.name]
                if trouble is not None:
                    self._leave_open(run, trouble)
                elif (following := _next(run, groups)) and following.arguments[0] == piece.arguments[0]:
                    self._leave_open(run, Trouble("fault", "a stage left no file that can be read"))
                elif following:
                    pieces.insert(0, following)
                else:
                    self._finish([run])
        self._finish(list(by_name.values()))  # and those that were killed before their record was written

    def _read(self, runs: Sequence[Run]) -> None:
        """Read all networks in turns with the dense one, in one process."""
        due = [run for run in self._pending(runs) if "read" in run.missing()]
        for _, trouble in self._ended([_piece("readings", ("read",), due)] if due else [], 1):
            if trouble is not None:
                for run in due:
                    self._leave_open(run, trouble)
        self._finish(runs)

    def _pending(self, runs: Sequence[Run]) -> list[Run]:
        """The runs that have neither a record nor trouble."""
        return [run for run in runs if run.job not in self._records and run.job not in self._open]

    def _ended(self, pieces: list[Piece], jobs: int) -> Iterator[tuple[Piece, Trouble | None]]:
        """Pieces that have ended, with their trouble. Trouble other than a fault is retried once, after all others."""
        tried: set[str] = set()
        modules = [type(registry.get(job.method)).__module__ for job in self._plan.jobs]
        for piece, trouble in Processes(self._setup.request, jobs, modules, self._progress.step).results(pieces):
            if trouble is not None and trouble.kind == "disk":
                raise FullDisk(trouble.text)
            attempt = f"{piece.name}: {piece.arguments[0]}"
            if trouble is not None and trouble.kind != "fault" and attempt not in tried:
                tried.add(attempt)  # memory may have been short
                pieces.append(piece)
                continue
            yield piece, trouble

    def _leave_open(self, run: Run, trouble: Trouble) -> None:
        self._open[run.job] = trouble.text
        self._progress.finish(run.job.name, f"{run.job.name}: still open, {trouble.text}")

    def _finish(self, runs: Sequence[Run]) -> None:
        """Store the records of the runs whose stages are all done."""
        for run in self._pending(runs):
            if not run.missing():
                record, network = describe(run)
                self._records[run.job] = record = self._store.put(f"{self._plan.slug}/{run.job.name}", record, network)
                self._progress.finish(run.job.name, _line(run.job, record))

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


@contextlib.contextmanager
def _computing(plan: Plan, console: Console) -> Iterator[None]:
    """Hold the locks of the processor and the training GPU in shared mode, so that no process reads them meanwhile."""
    purpose = f"training {plan.slug}"
    with contextlib.ExitStack() as locks:
        for device in sorted({"cpu", str(plan.setup.computing.device)}):
            locks.enter_context(device_lock(device, purpose, shared=True, wait_s=WAIT_S, say=console.print))
        yield


def _next(run: Run, groups: list[tuple[str, ...]]) -> Piece | None:
    """The run's first group with a stage that is not done; None when there is none."""
    missing = run.missing()
    return next((_piece(run.job.name, group, [run]) for group in groups if set(group) & set(missing)), None)


def _piece(name: str, group: tuple[str, ...], runs: Sequence[Run]) -> Piece:
    return Piece(name, _stages, (group, [(run.job, run.key, run.folder) for run in runs]))


def _line(job: Job, record: Record) -> str:
    if record.measures is None:
        return f"{job.name}: miss, {record.reason}"
    removed = record.landing.removed_channels if record.landing else 0
    landing = f", landed by {removed} channels" if removed else ""
    accuracy = f"{100 * record.measures.accuracy_after:.2f} %"
    return f"{job.name}: {accuracy} after fine-tuning at {record.measures.reading:.4g} {record.platform.unit}{landing}"


# What follows runs in the processes.


def _prepare(setup: Setup, _report: Report, parts: list[tuple[int, int]]) -> None:
    for seed, first in parts:
        teacher.prepare(setup, seed, first)


def _stages(setup: Setup, report: Report, group: tuple[str, ...], jobs: list[tuple[Job, str, Path]]) -> None:
    runs = [Run(job, setup, key, folder, report) for job, key, folder in jobs]
    for stage in group:
        stages.do(stage, runs)

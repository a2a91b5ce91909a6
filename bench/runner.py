"""Works through a plan in parallel processes of one thread each, so that figures do not depend on how many run at
once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench import cost, dense, fingerprints, harness, readings, teacher
from bench.plan import Ground, Job, Plan, Request, lay_ground
from bench.progress import PlanProgress
from bench.record import Record
from bench.store import Store
from methods import registry
from shared.memory import keep_freed_memory
from shared.meters import device_lock
from shared.platforms.measured import WAIT_S

REPORT_EVERY_S = 0.5


def run(plan: Plan, store: Store, *, jobs: int, fresh: bool, command: str, console: Console) -> list[Record]:
    """Do what the store does not hold yet; returns all records in the plan's order. A miss does not stop the plan.

    Ctrl-C leaves whole records behind, and states of the runs that were at work, a minute old at most where the method
    saves them; the same command goes on from there.
    """

    def say(line: str) -> None:
        console.print(line, highlight=False)

    with _computing(plan, say):
        weights = dense.obtain(plan.ground.workload, plan.ground.dataset, lambda *_: None)
    code = fingerprints.code_fingerprint()
    keys = {
        job: plan.key(job, weights.fingerprint, code, fingerprints.method_fingerprint(registry.get(job.method)))
        for job in plan.jobs
    }
    folders = {job: f"{plan.slug}/{job.name}" for job in plan.jobs}
    with store.working(plan.slug):
        found = {} if fresh else {job: store.find(folders[job], keys[job]) for job in plan.jobs}
        done = {job: record for job, record in found.items() if record is not None}
        waiting = [job for job in plan.jobs if job not in done]

        def keep(job: Job, result: harness.Result) -> Record:
            done[job] = store.put(folders[job], result.record, result.weights)
            return done[job]

        if done:
            say(f"{len(done)} of {len(plan.jobs)} runs are finished already (--fresh repeats them)")
        if waiting:
            states = {job: store.states(folders[job], keys[job], fresh=fresh) for job in waiting}
            with _computing(plan, say):
                _work(plan, weights, waiting, keys, states, keep, jobs=jobs, command=command, console=console)
        due = [job for job in plan.jobs if readings.is_due(plan, done[job])]
        if due:
            trained = {job: harness.Result(done[job], store.weights(folders[job])) for job in due}
            for job, result in readings.read_again(plan, weights, trained, say).items():
                keep(job, result)
    return [done[job] for job in plan.jobs]


def _work(
    plan: Plan,
    weights: dense.DenseWeights,
    waiting: list[Job],
    keys: dict[Job, str],
    states: dict[Job, Path],
    keep: Callable[[Job, harness.Result], Record],
    *,
    jobs: int,
    command: str,
    console: Console,
) -> None:
    estimate = cost.estimate(plan, waiting)
    console.print(estimate.describe(jobs), highlight=False)
    queued = deque(sorted(waiting, key=lambda job: -estimate.job_seconds[job]))  # longest first
    context = multiprocessing.get_context("spawn")
    messages: Queue[tuple[str, str, float]] = context.Queue()
    died: set[Job] = set()

    def start() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, context, _start_worker, (plan.request, messages))

    pools = [start() for _ in range(min(jobs, len(waiting)))]  # of one process each: who dies takes no other job along
    try:
        seeds = dict.fromkeys(job.seed for job in waiting)
        pieces = [(seed, first) for seed in seeds for first in teacher.chunks(plan.ground)]
        if pieces:
            console.print("computing the dense network's logits for distillation", highlight=False)
        parts = [pool.submit(_prepare, pieces[place :: len(pools)]) for place, pool in enumerate(pools)]
        for place, part in enumerate(parts):
            try:
                part.result()
            except BrokenProcessPool:  # the runs compute what is missing
                pools[place] = start()
        work = {job.name: estimate.job_seconds[job] for job in waiting}
        with PlanProgress(work, console) as progress:
            running: dict[Future[harness.Result], tuple[int, Job]] = {}
            idle = list(range(len(pools)))
            while queued or running:
                while queued and idle:
                    place, job = idle.pop(), queued.popleft()
                    running[pools[place].submit(_execute, job, keys[job], command, states[job])] = place, job
                ready, _ = wait(running, timeout=REPORT_EVERY_S, return_when=FIRST_COMPLETED)
                _drain(messages, progress)
                for future in ready:
                    place, job = running.pop(future)
                    idle.append(place)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        pools[place] = start()
                        if job not in died:  # memory may have been short: once more, after all others
                            died.add(job)
                            queued.append(job)
                            continue
                        reason = "the worker process died twice (killed, out of memory?)"
                        result = harness.failed(job, keys[job], plan.ground, weights, reason, command)
                    progress.finish(job.name, _line(job, keep(job, result)))
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        raise
    for pool in pools:
        pool.shutdown()


@contextlib.contextmanager
def _computing(plan: Plan, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the processor, and the GPU that trains, as one that computes on them, so that nobody of ours reads them
    meanwhile.
    """
    purpose = f"training {plan.slug}"
    with contextlib.ExitStack() as held:
        for device in sorted({"cpu", str(plan.ground.computing.device)}):
            held.enter_context(device_lock(device, purpose, shared=True, wait_s=WAIT_S, say=say))
        yield


def _line(job: Job, record: Record) -> str:
    if record.measures is None:
        return f"{job.name}: miss, {record.reason}"
    accuracy = f"{100 * record.measures.accuracy_after:.2f} %"
    return f"{job.name}: {accuracy} after fine-tuning at {record.measures.estimate:.4g} {record.platform.unit}"


def _drain(messages: Queue[tuple[str, str, float]], progress: PlanProgress) -> None:
    while True:
        try:
            progress.step(*messages.get_nowait())
        except queue.Empty:
            return


# What follows runs in the worker processes.

_worker: dict[str, Any] = {}


def _end_with_parent() -> None:
    """A parent that is killed frees its locks: nobody may compute on in its name."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _start_worker(request: Request, messages: Queue[tuple[str, str, float]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()
    messages.cancel_join_thread()  # a process that dies within a message must not keep the others from ending
    _worker.update(request=request, messages=messages)


@cache
def _ground() -> tuple[Ground, dense.DenseWeights]:
    ground = lay_ground(_worker["request"], may_read=False)  # this process computes, and would wait for itself
    weights = dense.obtain(ground.workload, ground.dataset, lambda *_: None)
    return ground, weights.to(ground.computing.device)


@cache
def _teacher(seed: int) -> harness.Teacher:
    return teacher.teacher(*_ground(), seed)


def _prepare(pieces: list[tuple[int, int]]) -> None:
    for seed, first in pieces:
        teacher.prepare(*_ground(), seed, first)


def _execute(job: Job, key: str, command: str, states: Path) -> harness.Result:
    ground, weights = _ground()
    last = 0.0

    def report(step: str, share: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > REPORT_EVERY_S:
            last = now
            _worker["messages"].put((job.name, step, share))

    return harness.execute(job, key, ground, weights, _teacher(job.seed), report, command, states)

"""Runs each piece of work in a process of its own, so that no piece can affect another.

A method may change torch's settings, leave threads behind or kill its process. The processes are forked from a server
that has imported everything and computed nothing, so they start at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from bench.run import rules, trouble
from bench.run.trouble import Trouble
from bench.setup.request import Request
from bench.setup.setup import reopen
from shared.errors import BadInput
from shared.memory import keep_freed_memory
from shared.meters import MeterError

REPORT_EVERY_S = 0.5
PRELOADED = ("bench.run.stages", "bench.run.describe", "torchvision.datasets", "scipy.stats", "scipy.optimize")

Progress = Callable[[str, str, float], None]  # (name of the work, stage, share of it that is done)


@dataclass(frozen=True)
class Piece:
    """Work for one process, which calls `function(setup, report, *arguments)`. Its results are files."""

    name: str  # for progress and errors
    function: Callable[..., None]  # of a module, so that it can be pickled
    arguments: tuple[Any, ...]


@dataclass
class _Worker:
    piece: Piece
    process: BaseProcess
    messages: Connection


class Processes:
    """At most `jobs` processes at a time, on the setup of one request.

    methods: modules of the plan's methods, imported before the first process starts.
    """

    def __init__(self, request: Request, jobs: int, methods: Sequence[str], progress: Progress) -> None:
        self._request, self._jobs, self._progress = request, jobs, progress
        self._context = _context((*PRELOADED, *methods))

    def results(self, pieces: list[Piece]) -> Iterator[tuple[Piece, Trouble | None]]:
        """Do `pieces` in order; yields each when its process has ended, with the trouble that stopped it or None.

        The caller may append to `pieces` meanwhile. Raises BadInput and MeterError from a process. Then, and when the
        caller stops iterating, all processes are killed.
        """
        workers: dict[Connection, _Worker] = {}
        try:
            while pieces or workers:
                while pieces and len(workers) < self._jobs:
                    worker = self._start(pieces.pop(0))
                    workers[worker.messages] = worker
                for connection in wait(list(workers), timeout=REPORT_EVERY_S):
                    assert isinstance(connection, Connection)
                    worker = workers[connection]
                    ended, problem = self._receive(worker)
                    if ended:
                        del workers[connection]
                        connection.close()
                        yield worker.piece, problem
        finally:
            for worker in workers.values():
                worker.process.kill()
                worker.process.join()

    def _start(self, piece: Piece) -> _Worker:
        own, theirs = self._context.Pipe(duplex=False)
        place = dict(os.environ), os.getcwd()
        process = self._context.Process(target=_work, args=(self._request, piece, theirs, place))  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        return _Worker(piece, process, own)

    def _receive(self, worker: _Worker) -> tuple[bool, Trouble | None]:
        """Whether the process has ended, and the trouble that stopped it."""
        try:
            message = worker.messages.recv()
        except (EOFError, OSError):  # no last message: it was killed, or has ended itself
            worker.process.join()
            return True, Trouble("killed", _end(worker.process.exitcode))
        match message:
            case ("progress", stage, share):
                self._progress(worker.piece.name, stage, share)
                return False, None
            case ("error", error):
                raise error
        worker.process.join()
        return True, message[1]


def _context(modules: tuple[str, ...]) -> BaseContext:
    """A fork server that imports `modules` where the system has one, else fresh processes."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (as when memory runs out)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended itself with code {code}"


# What follows runs in the processes.


def compute_on_one_thread() -> None:
    """Prepare this process, so that its figures do not depend on how many others share the machine."""
    torch.set_num_threads(1)
    keep_freed_memory()


def _end_with_parent() -> None:
    """End this process when its parent dies, since the locks that the parent held are then free."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(request: Request, piece: Piece, messages: Connection, place: tuple[dict[str, str], str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its processes
    threading.Thread(target=_end_with_parent, daemon=True).start()
    environment, folder = place
    os.environ.clear()  # the fork server's may be older
    os.environ.update(environment)
    os.chdir(folder)
    compute_on_one_thread()
    try:
        piece.function(reopen(request), _reporter(messages), *piece.arguments)
        last: tuple[str, Any] = ("ended", None)
    except (BadInput, MeterError) as error:
        last = ("error", error)
    except BaseException as error:
        last = ("ended", trouble.of(error) or Trouble("fault", rules.reason(error)))
    with contextlib.suppress(OSError):
        messages.send(last)
        messages.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)  # threads that a method has left behind would keep the process alive


def _reporter(messages: Connection) -> Callable[[str, float], None]:
    last = 0.0

    def report(stage: str, share: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > REPORT_EVERY_S:
            last = now
            with contextlib.suppress(OSError):
                messages.send(("progress", stage, share))

    return report

"""Runs work in processes of their own: each begins as if nothing had run before it, and takes nothing along if it dies.

The processes are forked from a server that has imported everything and computed nothing, so each starts at once. A
method can therefore change torch's settings, leave threads behind or kill its process: no other run notices.
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
    """Work for one process: `function(setup, report, *arguments)`, a function of a module, and what it takes.

    name: for progress and errors. Nothing comes back: what the function makes it writes to files.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]


@dataclass
class _Running:
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
        """Work through `pieces` in order; yields each when it has ended, with what hindered it.

        `pieces` may be added to meanwhile. Raises BadInput and MeterError out of a process; then, and when the caller
        stops asking, all processes are killed.
        """
        running: dict[Connection, _Running] = {}
        try:
            while pieces or running:
                while pieces and len(running) < self._jobs:
                    started = self._start(pieces.pop(0))
                    running[started.messages] = started
                for connection in wait(list(running), timeout=REPORT_EVERY_S):
                    assert isinstance(connection, Connection)
                    one = running[connection]
                    ended, hindered = self._heard(one)
                    if ended:
                        del running[connection]
                        connection.close()
                        yield one.piece, hindered
        finally:
            for one in running.values():
                one.process.kill()
                one.process.join()

    def _start(self, piece: Piece) -> _Running:
        own, theirs = self._context.Pipe(duplex=False)
        place = dict(os.environ), os.getcwd()
        process = self._context.Process(target=_work, args=(self._request, piece, theirs, place))  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        return _Running(piece, process, own)

    def _heard(self, one: _Running) -> tuple[bool, Trouble | None]:
        """Whether the process has ended, and what hindered it."""
        try:
            message = one.messages.recv()
        except (EOFError, OSError):  # no last word: it was killed, or has ended itself
            one.process.join()
            return True, Trouble("killed", _end(one.process.exitcode))
        match message:
            case ("progress", stage, share):
                self._progress(one.piece.name, stage, share)
                return False, None
            case ("error", error):
                raise error
            case ("trouble", hindered):
                one.process.join()
                return True, hindered
        one.process.join()
        return True, None


def _context(modules: tuple[str, ...]) -> BaseContext:
    """Processes from a fork server where the system has one, else fresh ones."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (memory that ends looks like this)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended itself with code {code}"


# What follows runs in the processes.


def _end_with_parent() -> None:
    """A parent that is killed frees its locks: nobody may compute on in its name."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(request: Request, piece: Piece, messages: Connection, place: tuple[dict[str, str], str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    environment, folder = place
    os.environ.clear()  # the server's may be older
    os.environ.update(environment)
    os.chdir(folder)
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        piece.function(reopen(request), _reporter(messages), *piece.arguments)
        last: tuple[Any, ...] = ("done",)
    except (BadInput, MeterError) as error:
        last = ("error", error)
    except BaseException as error:
        last = ("trouble", trouble.of(error) or Trouble("fault", rules.reason(error)))
    with contextlib.suppress(OSError):
        messages.send(last)
        messages.close()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)  # threads that a method has left behind would keep the process


def _reporter(messages: Connection) -> Callable[[str, float], None]:
    last = 0.0

    def report(stage: str, share: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > REPORT_EVERY_S:
            last = now
            with contextlib.suppress(OSError):
                messages.send(("progress", stage, share))

    return report

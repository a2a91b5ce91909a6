"""A short plan that is killed as `kill -9` does, in a chosen stage; run as a process of its own by test_stopped_runs.

    python -m tests.bench.run.killing "ecc,uniform" simulated|played OUT:STAGE OUT:STAGE …

For each OUT:STAGE a plan begins or goes on in the folder OUT, in a process of its own. STAGE is the stage whose first
file is about to be written when the whole plan is killed; "none" lets it end. Prints the exit code of each. The server
that forks the plan's processes imports this module too, so that its changes hold in all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.record.store import Store
from bench.run import processes, runner, stages
from bench.setup import plan
from bench.setup.request import Request
from shared.meters import Reading
from shared.platforms import MeasuredPlatform
from tests.bench import short
from tests.shared.platforms.played import reading_of

KILL_AT = "KILLING_STAGE"
os.environ[short.SHORT] = "1"
write = stages.Run.write


def killing(self: stages.Run, stage: str, *arguments: Any) -> None:
    """Kills the plan and this process instead of writing the stage's file."""
    if stage == os.environ.get(KILL_AT):
        if (parent := multiprocessing.parent_process()) is not None:
            os.kill(parent.pid or 0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, stage, *arguments)


stages.Run.write = killing  # type: ignore[method-assign]


def played(self: MeasuredPlatform, subject: Any, rows: Sequence[Any], batch: int, settings: Any) -> list[Reading]:
    """A network takes as long as it has multiply-adds, and a tenth of the dense one for launches."""
    table = subject.structure
    dense = float(table.macs(table.upper_bounds))
    seconds = [1e-4 * (0.1 + 0.9 * float(table.macs(list(row))) / dense) for row in rows]
    return [reading_of(each) for each in seconds]


MeasuredPlatform.read = played  # type: ignore[method-assign]
MeasuredPlatform.inference_batch = lambda self, subject: 16  # type: ignore[method-assign]


def plan_in(out: str, methods: str, stage: str, platform: str) -> None:
    os.environ[KILL_AT] = stage
    where = {"device": "cpu", "metric": "latency"} if platform == "played" else {"device": "1080ti"}
    made = plan.make(Request(methods=methods, protocol="smoke", budgets="0.45", **where), print, to_train=True)
    console = Console(width=200, markup=False)
    finished = runner.run(made, Store(Path(out)), jobs=2, fresh=False, console=console)
    sys.exit(1 if finished.open else 0)


def main(methods: str, platform: str, *plans: str) -> None:
    # All plans share what is imported by now, and a server.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*processes.PRELOADED, "tests.bench.run.killing"])
    forkserver.ensure_running()
    for each in plans:
        out, stage = each.rsplit(":", 1)
        if not (child := os.fork()):
            forkserver._forkserver.ensure_running = lambda: None  # which looks for it among its own children
            plan_in(out, methods, stage, platform)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    from tests.bench.run import killing as this  # the module that the server imports, not this file's __main__

    this.main(*sys.argv[1:])

"""Methods of a third party that misbehave, each in one way; the fixture `odd_methods` registers them."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path

import torch

from methods.contract import Method, Outcome, Task, spend_remaining
from shared.networks import importance, zero_channels
from shared.networks.ranking import weakest_channels

ATTEMPTS = "ODD_METHODS_ATTEMPTS"  # environment variable: a file to which each start adds a line


class Plain(Method):
    """Uniform widths; `before` and `after` misbehave."""

    name, title, paper = "odd-plain", "Plain", "none"

    def run(self, task: Task) -> Outcome:
        if place := os.environ.get(ATTEMPTS):
            with Path(place).open("a") as file:
                file.write(f"{self.name}\n")
        self.before()
        network, table = task.copy_of_dense(), task.structure
        trainer = task.trainer(network)
        dead = weakest_channels(importance(network, table), task.uniform_widths(), table.upper_bounds)
        zero_channels(network, table, dead, trainer.optimizer)
        spend_remaining(task, trainer)
        self.after()
        return Outcome(network)

    def before(self) -> None: ...

    def after(self) -> None: ...


class Killed(Plain):
    name = title = "odd-killed"

    def before(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Exits(Plain):
    name = title = "odd-exits"

    def before(self) -> None:
        os._exit(5)


class NoMemory(Plain):
    name = title = "odd-memory"

    def before(self) -> None:
        raise MemoryError


class NoDisk(Plain):
    name = title = "odd-disk"

    def before(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class Interrupts(Plain):
    name = title = "odd-interrupts"

    def before(self) -> None:
        raise KeyboardInterrupt


class Leaks(Plain):
    """Leaves a thread, settings of torch, signals, the environment and the current folder behind."""

    name = title = "odd-leaks"

    def after(self) -> None:
        threading.Thread(target=time.sleep, args=(10_000,), daemon=False).start()
        torch.set_num_threads(2)
        torch.set_flush_denormal(True)
        torch.set_float32_matmul_precision("medium")
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        torch.manual_seed(1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.environ["BENCH_CACHE"] = "/nonexistent"
        os.chdir("/")


METHODS = (Plain, Killed, Exits, NoMemory, NoDisk, Interrupts, Leaks)

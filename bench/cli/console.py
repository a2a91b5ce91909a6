"""Output that several commands share. Imports of torch and of rich happen inside, so that `--help` answers at once."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from bench.setup.setup import Setup
    from shared.data import Dataset


def console() -> Console:
    """The console that a command prints to: as wide as the terminal, or 200 columns where it is redirected."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    return Console(width=width, markup=False, highlight=False)  # "[/x]" in a path is no markup


def computing(purpose: str) -> AbstractContextManager[None]:
    """Hold the processor's lock in shared mode: others may compute meanwhile, but no process of the suite reads it."""
    from shared.meters import device_lock
    from shared.platforms.measured import WAIT_S

    return device_lock("cpu", purpose, shared=True, wait_s=WAIT_S, say=lambda line: print(line, flush=True))


def check_files(dataset: Dataset, console: Console) -> None:
    """Read all files of a data set that lies in files, and say so. Raises as Dataset.check does."""
    if dataset.folder is not None:
        with computing(f"checking {dataset.name}"):
            dataset.check(lambda line: console.print(line, soft_wrap=True))


def first_line(setup: Setup) -> str:
    """The first line of a run: which platform answers, and how."""
    from bench.report.text import AMOUNTS

    platform, batch = setup.platform, setup.inference_batch
    shape = "×".join(map(str, setup.dataset.input_shape))
    instead = f" (instead of its sensor: {platform.instead_of})" if platform.instead_of else ""
    host = f" of {platform.host}" if platform.host else ""
    return (
        f"{platform.name}: {platform.source} {AMOUNTS[platform.unit]} per image by {platform.meter}{host} "
        f"(calibration {platform.calibration}), inference batch {batch} at {shape}; "
        f"dense network {setup.reach.dense_reading:.4g} {platform.unit}{instead}"
    )

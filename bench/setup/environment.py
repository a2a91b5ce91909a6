"""The environment of a run, for its record: commit, versions, class of the host."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from shared.computing import ON_CPU, Computing
from shared.host import processor

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "gymnasium", "stable-baselines3")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _checkout() -> tuple[str | None, bool | None]:
    """Commit, and whether tracked files differ from it; (None, None) unless ROOT is the top of a git checkout.

    An installed copy may lie inside another project's checkout, whose commit says nothing about this code.
    """
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        return None, None
    status = _git("status", "--porcelain", "--untracked-files=no")
    return _git("rev-parse", "HEAD"), None if status is None else bool(status)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


@cache
def environment(computing: Computing = ON_CPU) -> dict[str, Any]:
    """Commit and dirty flag (None outside a git checkout), versions, the class of the host and where training ran.

    No host or user names.
    """
    commit, dirty = _checkout()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "compute": computing.label,
    } | ({} if computing.driver is None else {"driver": computing.driver})

"""What kind of machine this is and what of it this process may use; never which one: no host or user names.

root: where the machine's file system begins, so that a folder can stand in for it.
"""

from __future__ import annotations

import io
import math
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path("/")
# Files of Docker, of Podman, of what systemd detects (LXC, nspawn) and of Singularity.
CONTAINER_FILES = (".dockerenv", "run/.containerenv", "run/systemd/container", ".singularity.d")
# Others show in the name of the control group or in the layers of the root's file system, as containerd does.
RUNTIMES = re.compile("docker|containerd|containers/storage|crio|cri-o|kubepods|libpod|lxc")


def processor() -> str:
    """The processor's model, such as "Intel(R) Xeon(R) CPU E5-2690"; elsewhere than on Linux what Python reports."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def usable_cores(root: Path = HERE) -> int:
    """Number of cores that this process may use, at least 1: those it may run on, or fewer by its quota of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, max(1, math.ceil(min(quota_cores(root), cores))))


def quota_cores(root: Path = HERE) -> float:
    """Cores whose whole time the quotas of this process' control groups allow; infinite where there is no quota.

    A quota of a parent binds, too. Both versions of control groups count, also side by side. A mount that does not
    show the process' group counts with the group that it shows, as in containers whose paths are those of the host.
    """
    own: dict[str, str] = {}  # type of the file system -> path of the process' group in its hierarchy
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            own["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            own["cgroup"] = path
    quotas = [math.inf]
    for mount in _mounts(root):
        if mount.kind == "cgroup2" or (mount.kind == "cgroup" and "cpu" in mount.options.split(",")):
            below = _below(own.get(mount.kind, ""), mount.root)
            top = root / mount.point.lstrip("/")
            quotas += [_quota(top.joinpath(*below[:depth])) for depth in range(len(below) + 1)]
    return min(quotas)


def in_container(root: Path = HERE) -> bool:
    """Whether this process runs in a container, as far as files tell."""
    layers = (mount.options for mount in _mounts(root) if (mount.point, mount.kind) == ("/", "overlay"))
    return any((root / file).exists() for file in CONTAINER_FILES) or any(
        RUNTIMES.search(text) for text in (_text(root / "proc/self/cgroup"), *layers)
    )


class _Mount(NamedTuple):
    """A line of mountinfo. root: the folder of the file system that is seen at `point`. options: of the file system."""

    root: str
    point: str
    kind: str
    options: str


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _text(root / "proc/self/mountinfo").splitlines():
        place, _, system = line.partition(" - ")
        places, systems = place.split(" "), system.split(" ")
        if len(places) > 4 and len(systems) > 2:
            yield _Mount(_plain(places[3]), _plain(places[4]), systems[0], systems[2])


def _plain(path: str) -> str:
    """Spaces and the like stand in mountinfo as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda number: chr(int(number[1], 8)), path)


def _below(path: str, root: str) -> tuple[str, ...]:
    """The folders from the group that a mount shows to the process' own; none where it is not below."""
    parts, start = Path(path).parts, Path(root).parts
    inside = parts[: len(start)] == start and ".." not in parts
    return parts[len(start) :] if inside else ()


def _quota(group: Path) -> float:
    versions = [
        _text(group / "cpu.max").split(),
        [_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")],
    ]
    quota, period = next((texts for texts in versions if len(texts) == 2), ("", ""))
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):  # "max", -1, or nothing
        return math.inf
    return int(quota) / int(period)


def _text(path: Path) -> str:
    """The text of a file, which may hold any bytes; nothing where it can't be read."""
    try:
        return os.fsdecode(path.read_bytes())
    except OSError:
        return ""


def print_any_text() -> None:
    """From now on "?" stands for what the encoding of the output lacks: neither a dash nor a path's bytes raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

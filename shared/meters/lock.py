"""Who uses a device: many at a time that only compute on it, or one alone that reads what it takes.

So nothing of ours trains on a device while it is measured.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from shared.cache import atomic_write, checked_cache_dir
from shared.meters.meter import MeterError

_LOOK_EVERY_S = 0.2


@contextmanager
def device_lock(
    device: str, purpose: str, *, shared: bool = False, wait_s: float = 0.0, folder: Path | None = None
) -> Iterator[None]:
    """Hold `device` among the processes of this user; freed also when the process dies.

    device: any name that all users agree on. purpose: what for, as others read it. shared: beside others that share it
    too, else alone. wait_s: how long to wait for who is in the way. folder: of the locks, in the cache folder when
    None. Raises MeterError naming who holds it.
    """
    folder = folder or checked_cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    stem = quote(device, safe="")
    deadline_s = time.monotonic() + wait_s
    door = _acquired(folder / stem, device, purpose, deadline_s)
    try:
        if shared:
            own = folder / f"{stem}.user-{uuid.uuid4().hex}"
            held = _acquired(own, device, purpose, deadline_s)
            door.release()
        else:
            own, held = folder / stem, door
            for user in folder.glob(f"{stem}.user-*.lock"):
                _acquired(
                    user.with_name(user.name.removesuffix(".lock")), device, purpose, deadline_s
                ).release()  # it is gone, or died
                user.unlink(missing_ok=True)
        holder = _holder(own)  # a file of its own: trying to lock empties the lock file
        try:
            atomic_write(holder, f"process {os.getpid()} ({purpose})".encode())
            yield
        finally:
            holder.unlink(missing_ok=True)
            if shared:
                held.release()
                own.with_name(f"{own.name}.lock").unlink(missing_ok=True)
    finally:
        door.release()


def _holder(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.holder")


def _acquired(stem: Path, device: str, purpose: str, deadline_s: float) -> FileLock:
    lock = FileLock(stem.with_name(f"{stem.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=0)
            return lock
        except Timeout:
            if time.monotonic() >= deadline_s:
                try:
                    who = _holder(stem).read_text()
                except FileNotFoundError:  # it has only just come, or is about to go
                    who = "another process"
                got = f"{device} held by {who}"
                raise MeterError(f"{device} for {purpose} alone", got, "again when it is done") from None
            time.sleep(_LOOK_EVERY_S)

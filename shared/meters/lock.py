"""A readers-writer lock per device between processes: many may compute on it, or one measures it alone.

So no run of this suite trains on a device while it is measured.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from shared import locks
from shared.cache import atomic_write, checked_cache_dir
from shared.meters.meter import MeterError


@contextmanager
def device_lock(
    device: str,
    purpose: str,
    *,
    shared: bool = False,
    wait_s: float = 0.0,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Hold `device` against other processes of this user. The lock is released when the process ends, too.

    device: a name that all processes use. purpose: text for the messages of other processes. shared: hold it together
    with others that share it, instead of alone. wait_s: longest wait for the present holder; `say` receives one message
    about it. folder: of the lock files, by default in the cache folder. Raises MeterError naming the holder,
    and BadInput where the folder has no locks.
    """
    folder = folder or checked_cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    stem = quote(device, safe="")
    acquired = partial(_acquired, device, purpose, time.monotonic() + wait_s, say)
    # There is one lock file of the device (`door`), and one more of each process that shares the device. Who shares it
    # holds the door only until its own file is locked. Who wants the device alone keeps the door, so that nobody enters
    # any more, and then waits for each of the other files.
    door = own = folder / stem
    lock_held = acquired(door)
    try:
        if shared:
            own = folder / f"{stem}.user-{uuid.uuid4().hex}"
            inside = acquired(own)
            lock_held.release()
            _holder(door).unlink(missing_ok=True)
            lock_held = inside
        else:
            for lock in folder.glob(f"{stem}.user-*.lock"):  # once locked, its process has left or died
                acquired(lock.with_name(lock.name.removesuffix(".lock"))).release()
                lock.unlink(missing_ok=True)
                lock.with_suffix(".holder").unlink(missing_ok=True)
        yield
    finally:
        _holder(own).unlink(missing_ok=True)
        lock_held.release()
        if own != door:
            own.with_name(f"{own.name}.lock").unlink(missing_ok=True)


def _holder(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.holder")  # not in the lock file, which each attempt to lock truncates


def _acquired(device: str, purpose: str, deadline_s: float, say: Callable[[str], None], stem: Path) -> locks.FileLock:
    """The lock, with its holder written beside it. Waits until `deadline_s`."""
    path, announced = stem.with_name(f"{stem.name}.lock"), False
    while (lock := locks.taken(path)) is None:
        try:
            holder = _holder(stem).read_text()
        except FileNotFoundError:  # the holder has just locked it, or is about to release it
            holder = f"another process that has locked {path}"
        got = f"{device} held by {holder}"
        if time.monotonic() >= deadline_s:
            raise MeterError(f"{device} for {purpose} alone", got, "again when it is done")
        if not announced:
            say(f"waiting: {got}")
            announced = True
        time.sleep(locks.RETRY_S)
    atomic_write(_holder(stem), f"process {os.getpid()} ({purpose})".encode())
    return lock

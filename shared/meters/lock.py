"""Who uses a device: many at a time that only compute on it, or one alone that reads what it takes.

So nothing of ours trains on a device while it is measured.
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

from filelock import FileLock, Timeout

from shared.cache import atomic_write, checked_cache_dir
from shared.meters.meter import MeterError

_LOOK_EVERY_S = 0.2


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
    """Hold `device` among the processes of this user; freed also when the process dies.

    device: any name that all users agree on. purpose: what for, as others read it. shared: beside others that share it
    too, else alone. wait_s: how long to wait for who is in the way; `say` is told once. folder: of the locks, in the
    cache folder when None. Raises MeterError naming who holds it.
    """
    folder = folder or checked_cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    stem = quote(device, safe="")
    acquired = partial(_acquired, device, purpose, time.monotonic() + wait_s, say)
    door = own = folder / stem
    held = acquired(door)
    try:
        if shared:
            own = folder / f"{stem}.user-{uuid.uuid4().hex}"
            inside = acquired(own)
            held.release()
            _holder(door).unlink(missing_ok=True)
            held = inside
        else:
            for lock in folder.glob(f"{stem}.user-*.lock"):  # once each is held, who had it is gone, or died
                acquired(lock.with_name(lock.name.removesuffix(".lock"))).release()
                lock.unlink(missing_ok=True)
                lock.with_suffix(".holder").unlink(missing_ok=True)
        yield
    finally:
        _holder(own).unlink(missing_ok=True)
        held.release()
        if own != door:
            own.with_name(f"{own.name}.lock").unlink(missing_ok=True)


def _holder(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.holder")  # a file of its own: trying to lock empties the lock file


def _acquired(device: str, purpose: str, deadline_s: float, say: Callable[[str], None], stem: Path) -> FileLock:
    """The lock, signed with who holds it; waits until `deadline_s`."""
    lock, told = FileLock(stem.with_name(f"{stem.name}.lock")), False
    while True:
        try:
            lock.acquire(timeout=0)
            atomic_write(_holder(stem), f"process {os.getpid()} ({purpose})".encode())
            return lock
        except Timeout:
            try:
                who = _holder(stem).read_text()
            except FileNotFoundError:  # it has only just come, or is about to go
                who = "another process"
            got = f"{device} held by {who}"
            if time.monotonic() >= deadline_s:
                raise MeterError(f"{device} for {purpose} alone", got, "again when it is done") from None
            if not told:
                say(f"waiting: {got}")
                told = True
            time.sleep(_LOOK_EVERY_S)

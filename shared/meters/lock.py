"""One user of a device at a time, so that nothing of ours trains on it while joules are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from shared.cache import atomic_write, checked_cache_dir
from shared.meters.meter import MeterError


@contextmanager
def device_lock(device: str, purpose: str, *, wait_s: float = 0.0, folder: Path | None = None) -> Iterator[None]:
    """Hold `device` alone among the processes of this user; freed also when the process dies.

    device: any name that all users agree on. purpose: what for, as others read it. wait_s: how long to wait for who
    holds it. folder: of the locks, in the cache folder when None. Raises MeterError naming who holds it.
    """
    folder = folder or checked_cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    stem = quote(device, safe="")
    holder = folder / f"{stem}.holder"  # a file of its own: trying to lock empties the lock file
    lock = FileLock(folder / f"{stem}.lock")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        try:
            who = holder.read_text()
        except FileNotFoundError:  # it has only just come, or is about to go
            who = "another process"
        raise MeterError(f"{device} for {purpose} alone", f"{device} held by {who}", "again when it is done") from None
    try:
        atomic_write(holder, f"process {os.getpid()} ({purpose})".encode())
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()

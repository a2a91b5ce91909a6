"""Locks between processes, each a file. The system releases a lock when its process ends, however it ends."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from shared.errors import BadInput

RETRY_S = 0.2
TOLD_AFTER_S = 2.0
CACHE_HINT = "BENCH_CACHE=FOLDER on another file system"
_FULL = (errno.ENOSPC, errno.EDQUOT)  # trouble that passes, with a line of its own


def taken(path: Path, hint: str = CACHE_HINT) -> FileLock | None:
    """The lock `path`, held until `release()`; None where another process holds it.

    hint: what to try where the folder's file system has no locks. Raises BadInput there.
    """
    # filelock's soft lock is only a file. One that was left behind, by a killed process or a lock of the system, would
    # be waited for without end.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise BadInput("a folder whose files can be locked", f"{path.parent} ({error.strerror})", hint) from None
    return lock


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock `path` of the cache folder, after a wait for its present holder. Raises BadInput as `taken` does.

    A wait of more than a moment is told on stderr.
    """
    told_at_s = time.monotonic() + TOLD_AFTER_S
    while (lock := taken(path)) is None:
        if time.monotonic() >= told_at_s:
            print(f"waiting for the process that has locked {path}", file=sys.stderr, flush=True)
            told_at_s = float("inf")
        time.sleep(RETRY_S)
    try:
        yield
    finally:
        lock.release()

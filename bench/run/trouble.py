"""Trouble of the machine: a full disk, no memory left, a dead GPU context, a killed process.

It is not the method's fault, so it is never stored as a miss. The run stays open and is tried again.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from shared.errors import BadFile, printable
from shared.meters import MeterError

Kind = Literal["disk", "memory", "device", "killed", "fault"]

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
_MEMORY = {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}
# Messages of torch and its libraries, most of them of bare RuntimeErrors. Shared memory comes first, since a full
# /dev/shm also says "No space left on device".
_WORDS: tuple[tuple[Kind, str], ...] = (
    ("memory", r"shared memory|insufficient shm|bus error|file </torch_"),
    ("disk", r"no space left on device|disk quota exceeded|input/output error|read-only file system"),
    ("memory", r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|too many open files"),
    ("memory", r"dataloader worker .*(killed|exited unexpectedly)"),
    ("device", r"cuda error|cuda driver error|cudnn error|cublas_status|cudnn_status|nccl error|device-side assert"),
)


class Trouble(NamedTuple):
    """Trouble of the machine."""

    kind: Kind  # decides whether the work is retried, or the plan stopped
    text: str  # one line


class MachineTrouble(Exception):
    """Replaces an error that is the machine's fault and not the method's."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble


class FullDisk(Exception):
    """Nothing can be written any more, as on a full disk; what was written before is kept."""


def of(error: BaseException) -> Trouble | None:
    """The trouble behind an error or one of its causes; None where it is not the machine's fault."""
    for cause in _chain(error):
        if isinstance(cause, MachineTrouble):
            return cause.trouble
        if (kind := _kind(cause)) is not None:
            text = " ".join(f"{type(cause).__name__}: {cause}".split()).removesuffix(":")
            return Trouble(kind, printable(text)[:300])
    return None


def is_of_input(error: BaseException) -> bool:
    """Whether a file of the data set or a sensor failed, which a user has to repair before the plan can go on."""
    return isinstance(error, BadFile | MeterError)


def _kind(error: BaseException) -> Kind | None:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError) and error.errno is not None:
        if str(error.filename).startswith("/dev/shm/"):  # a full /dev/shm is a lack of memory
            return "memory" if error.errno in _DISK | _MEMORY else None
        return "disk" if error.errno in _DISK else "memory" if error.errno in _MEMORY else None
    if isinstance(error, RuntimeError | OSError) or type(error).__name__ in ("SafetensorError", "AcceleratorError"):
        return next((kind for kind, words in _WORDS if re.search(words, str(error), re.IGNORECASE)), None)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause or context, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__

"""Which errors are the machine's, and of which kind; all others are a method's own."""

from __future__ import annotations

import errno
import os
import pickle

import pytest
import torch
from safetensors import SafetensorError

from bench.run import trouble
from bench.run.trouble import MachineTrouble, Trouble
from shared.errors import BadFile, BadInput
from shared.meters import MeterError


def from_system(number: int, path: str = "/somewhere/file") -> OSError:
    return OSError(number, os.strerror(number), path)


class AcceleratorError(Exception):
    """As newer torch has it, which derives from RuntimeError there."""


DISK = [
    from_system(errno.ENOSPC),
    from_system(errno.EDQUOT),
    from_system(errno.EIO),
    from_system(errno.EROFS),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos; Disk quota exceeded"),
]
MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    from_system(errno.ENOMEM),
    from_system(errno.EMFILE),
    from_system(errno.EAGAIN),  # no more processes or threads
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("unable to mmap 4096 bytes from file </torch_12_34>: Cannot allocate memory (12)"),
    # shared memory that is full is no disk that is full
    from_system(errno.ENOSPC, "/dev/shm/psm_1234"),
    RuntimeError("unable to allocate shared memory(shm) for file </torch_12_34>: No space left on device (28)"),
    RuntimeError("unable to write to file </torch_12_34>: No space left on device (28)"),
    RuntimeError("DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers"),
    RuntimeError("DataLoader worker (pid(s) 12, 34) exited unexpectedly"),
    RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed."),
]
DEVICE = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    AcceleratorError("CUDA error: unspecified launch failure"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]
KINDS = [("disk", error) for error in DISK] + [("memory", error) for error in MEMORY] + [("device", e) for e in DEVICE]


@pytest.mark.parametrize(("kind", "error"), KINDS, ids=str)
def test_each_trouble_has_its_kind_and_its_words_in_a_line(kind: str, error: Exception) -> None:
    found = trouble.of(error)
    assert found is not None and found.kind == kind
    assert found.text == (f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/home/me/table.json"),
        from_system(errno.ENOENT, "/dev/shm/psm_1234"),
        PermissionError(errno.EACCES, "Permission denied"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        ValueError("CUDA error: out of memory, no space left on device"),  # words alone are no trouble
        KeyError("out of memory"),
        AssertionError("not enough memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (64x512 and 256x10)"),
        RuntimeError("Expected all tensors to be on the same device, cpu and cuda:0"),
        SafetensorError("Error while deserializing header: HeaderTooLarge"),
        ZeroDivisionError(),
        SystemExit(1),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_what_the_machine_is_not_to_blame_for_is_no_trouble(error: BaseException) -> None:
    assert trouble.of(error) is None


def raised(*errors: Exception, cause: bool) -> Exception:
    """The last of `errors`, each raised from, or while handling, the one before it."""
    before: Exception | None = None
    for error in errors:
        try:
            try:
                if before is not None:
                    raise before
            except Exception as handled:
                if cause:
                    raise error from handled
                raise error  # noqa: B904
            raise error
        except Exception as caught:
            before = caught
    assert before is not None
    return before


@pytest.mark.parametrize("cause", [True, False])
def test_the_trouble_that_an_error_came_from_is_found(cause: bool) -> None:
    full = from_system(errno.ENOSPC)
    wrapped = raised(full, KeyError("a"), ValueError("states can't be saved"), cause=cause)
    assert trouble.of(wrapped) == trouble.of(full) == Trouble("disk", f"OSError: {full}")
    assert trouble.of(raised(KeyError("a"), ValueError("b"), cause=cause)) is None


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert trouble.of(one) is None


def test_what_was_told_apart_already_keeps_its_kind() -> None:
    known = Trouble("killed", "its process was ended by SIGKILL")
    assert trouble.of(MachineTrouble(known)) == known
    assert trouble.of(raised(MachineTrouble(known), RuntimeError("CUDA error"), cause=True)) == Trouble(
        "device", "RuntimeError: CUDA error"
    )
    assert str(MachineTrouble(known)) == known.text


def test_words_are_one_line_of_300_characters_at_most() -> None:
    found = trouble.of(MemoryError("a\nb\t" * 1000))
    assert found is not None and len(found.text) == 300 and found.text.startswith("MemoryError: a b a b ")
    assert pickle.loads(pickle.dumps(found)) == found  # it comes from another process


def test_data_and_sensors_are_input() -> None:
    for error in (BadFile("a whole image", "half of one", "fetching it"), MeterError("a power", "none", "another")):
        assert trouble.is_of_input(error)
    for other in (BadInput("a budget", "none", "0.5"), MemoryError(), from_system(errno.EIO)):
        assert not trouble.is_of_input(other)

"""Which GPU is meant, and whether the installed torch runs on it."""

from __future__ import annotations

import re

import pytest

from shared.meters import MeterError
from shared.meters.nvml.devices import cuda_device
from shared.meters.nvml.library import Library, NvmlFault
from shared.torch_builds import missing_code
from tests.shared.meters.nvml.nvml_stub.fake import Board, FakeNvml

A, B, C = "GPU-aa11-0001", "GPU-aa22-0002", "GPU-bb33-0003"
GPUS = (A, B, C)


def library(mig: int = -1) -> Library:
    return Library(FakeNvml(Board([(0, 1)], gpus=[(uuid, "GTX 1080 Ti", mig) for uuid in GPUS]), lambda: 0.0))


def test_slices_are_refused() -> None:
    with pytest.raises(MeterError, match=r"a whole GPU.*MIG mode on"):
        cuda_device(library(mig=1), cuda_uuid=lambda: A)
    assert cuda_device(library(mig=0), cuda_uuid=lambda: A).uuid == A


def test_the_uuid_that_cuda_names_decides() -> None:
    for named, uuid in ((B.removeprefix("GPU-"), B), (C.upper().replace("GPU-", ""), C)):  # torch leaves the prefix out
        device = cuda_device(library(), cuda_uuid=lambda named=named: named)
        assert (device.uuid, device.handle) == (uuid, GPUS.index(uuid))
    with pytest.raises(MeterError, match="GPU-aa11-0001"):
        cuda_device(library(), cuda_uuid=lambda: "ffff-0000")


def test_no_gpu_and_a_lost_gpu_are_told() -> None:
    board = Board([(0, 1)], gpus=[])
    with pytest.raises(MeterError, match="none from NVML"):
        cuda_device(Library(FakeNvml(board, lambda: 0.0)), cuda_uuid=lambda: A)
    board = Board([(0, 1)]).lacking("nvmlDeviceGetHandleByIndex", code=15)
    with pytest.raises(NvmlFault, match=r"GPU 0.*GPU_IS_LOST"):
        cuda_device(Library(FakeNvml(board, lambda: 0.0)), cuda_uuid=lambda: A)


CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("arch_list", "capability", "wheel"),
    [
        (CU126, (6, 1), None),  # a GTX 1080 Ti runs sm_60
        (CU130, (6, 1), "whl/cu126"),
        ([], (6, 1), "whl/cu126"),
        (CU126, (5, 2), None),
        (CU130, (7, 0), "whl/cu126"),
        (CU126, (3, 5), "another GPU"),
        (CU130, (7, 5), None),
        (CU130, (8, 9), None),
        (CU126, (12, 0), "pip install --upgrade torch"),
        (CU130, (12, 1), None),
        (CU130, (13, 0), None),  # PTX
        ([], (8, 6), "pip install --upgrade torch"),
        (["sm_61"], (6, 0), "whl/cu126"),  # not backwards
        (["sm_90a"], (9, 0), None),
        (["sm_90a"], (9, 1), "--upgrade"),
        (["compute_90a"], (10, 0), "--upgrade"),
        (["compute_61"], (6, 1), None),
        (["compute_61"], (9, 0), None),
        (["compute_75"], (6, 1), "whl/cu126"),
        (["sm_100f"], (10, 3), None),
        (["sm_100f"], (11, 0), "--upgrade"),
        (["gfx90a"], (9, 0), "--upgrade"),
    ],
)
def test_wheels(arch_list: list[str], capability: tuple[int, int], wheel: str | None) -> None:
    problem = missing_code(arch_list, capability)
    if wheel is None:
        assert problem is None
        return
    told = str(problem)
    assert wheel in told and f"sm_{capability[0]}{capability[1]}" in told
    assert all(arch in told for arch in arch_list) and re.match(r"expected .*, got .*; try ", told)
    assert ("2.14" in told) == ("cu126" in wheel)

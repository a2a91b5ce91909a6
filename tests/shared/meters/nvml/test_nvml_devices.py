"""Which GPU is meant, and whether the installed torch runs on it."""

from __future__ import annotations

import itertools
import re

import pytest

from shared.errors import BadInput
from shared.meters import MeterError
from shared.meters.nvml.devices import cuda_device, visible
from shared.meters.nvml.library import Library, NvmlFault
from shared.torch_builds import missing_code
from tests.shared.meters.nvml.nvml_stub.fake import Board, FakeNvml

A, B, C = "GPU-aa11-0001", "GPU-aa22-0002", "GPU-bb33-0003"
TWINS = [(A, "GTX 1080 Ti"), (B, "GTX 1080 Ti"), (C, "GTX 1080 Ti")]
MIXED = [(A, "GTX 1080 Ti"), (B, "RTX 4090"), (C, "GTX 1080 Ti")]
PCI = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def library(mig: int = -1) -> Library:
    return Library(FakeNvml(Board([(0, 1)], gpus=[(uuid, name, mig) for uuid, name in TWINS]), lambda: 0.0))


@pytest.mark.parametrize(
    ("variable", "uuids"),
    [
        (None, (A, B, C)),
        ("2,0", (C, A)),
        (" 1 , 2 ", (B, C)),
        (C, (C,)),
        ("GPU-bb,GPU-aa22", (C, B)),
        ("GPU-BB33", (C,)),
        ("GPU-bb,0", (C, A)),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", (A,)),  # the first that fits none ends the list
        ("1,7,0", (B,)),
        ("GPU-aa", ()),  # fits two
        ("GPU-zz,0", ()),
        ("bb33", ()),  # no number, no UUID
        ("0,0", ()),
        (f"1,{B}", ()),
    ],
)
def test_visible_devices_are_read_as_cuda_does(variable: str | None, uuids: tuple[str, ...]) -> None:
    environ = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert visible(TWINS, environ) == uuids
    assert visible(MIXED, environ | PCI) == uuids


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_choice_by_number_is_every_choice_by_uuid(size: int) -> None:
    for chosen in itertools.permutations(range(3), size):
        expected = tuple((A, B, C)[index] for index in chosen)
        for spelled in (map(str, chosen), expected, (uuid[:8] for uuid in expected)):
            assert visible(TWINS, {"CUDA_VISIBLE_DEVICES": ",".join(spelled)}) == expected


def test_numbers_of_unlike_gpus_mean_nothing_without_an_order() -> None:
    for environ in ({}, {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}):
        with pytest.raises(MeterError, match="PCI_BUS_ID"):
            visible(MIXED, environ)
    assert visible(MIXED, {"CUDA_VISIBLE_DEVICES": "GPU-aa22"}) == (B,)


@pytest.mark.parametrize("name", ["MIG-0a1b", "MIG-GPU-aa11-0001/1/0"])
def test_slices_are_refused(name: str) -> None:
    with pytest.raises(MeterError, match=f"whole GPU.*{name}"):
        visible(TWINS, {"CUDA_VISIBLE_DEVICES": name})
    with pytest.raises(MeterError, match="whole GPU"):
        cuda_device(library(), cuda_uuid=lambda index: name)
    with pytest.raises(MeterError, match="MIG mode on"):
        cuda_device(library(mig=1), cuda_uuid=lambda index: A)
    assert cuda_device(library(mig=0), cuda_uuid=lambda index: A).uuid == A


def test_the_uuid_that_cuda_names_decides() -> None:
    named = {0: B.removeprefix("GPU-"), 1: C.upper().replace("GPU-", "")}  # torch leaves the prefix out
    for index, uuid in ((0, B), (1, C)):
        device = cuda_device(library(), index, environ={"CUDA_VISIBLE_DEVICES": "0"}, cuda_uuid=named.get)
        assert (device.uuid, device.handle) == (uuid, TWINS.index((uuid, "GTX 1080 Ti")))
    with pytest.raises(MeterError, match="GPU-aa11-0001"):
        cuda_device(library(), cuda_uuid=lambda index: "ffff-0000")


def test_without_cuda_the_environment_decides() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "2,GPU-aa11"}
    found = [cuda_device(library(), index, environ=environ, cuda_uuid=lambda index: None).uuid for index in (0, 1)]
    assert found == [C, A]
    with pytest.raises(BadInput, match="below 2, got cuda:2"):
        cuda_device(library(), 2, environ=environ, cuda_uuid=lambda index: None)


def test_no_gpu_and_a_lost_gpu_are_told() -> None:
    board = Board([(0, 1)], gpus=[])
    with pytest.raises(MeterError, match="none from NVML"):
        cuda_device(Library(FakeNvml(board, lambda: 0.0)), cuda_uuid=lambda index: None)
    board = Board([(0, 1)]).lacking("nvmlDeviceGetHandleByIndex", code=15)
    with pytest.raises(NvmlFault, match=r"GPU 0.*GPU_IS_LOST"):
        cuda_device(Library(FakeNvml(board, lambda: 0.0)), cuda_uuid=lambda index: None)


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

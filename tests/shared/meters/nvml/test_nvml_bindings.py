"""The real bindings on a library that is compiled here and plays the made-up board: layouts, sizes, names, faults."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.meters import MeterError, probing
from shared.meters.nvml.devices import cuda_device, devices
from shared.meters.nvml.library import Library
from shared.meters.nvml.meter import NvmlMeter
from tests.shared.meters.nvml.nvml_stub.fake import COUNTER, INSTANT, SAMPLES, USAGE, WALL_S, Board, FakeNvml
from tests.shared.meters.simulated import SimulatedClock

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
STUB = Path(__file__).parent / "nvml_stub" / "stub.c"
NAME = "libnvidia-ml.so.1"
SOURCES = [(), (COUNTER,), (COUNTER, SAMPLES), (COUNTER, SAMPLES, INSTANT)]
TRACE = [(0.0, 60.0), (0.5, 61.0), (1.0, 60.0), (6.0, 75.0), (9.0, 60.0), (9.0, 220.0), (9.7, 240.0), (10.0, 90.0)]


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library, in a folder of its own."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler named cc, or not Linux: the stand-in for libnvidia-ml can't be built")
    built = tmp_path_factory.mktemp("nvml") / NAME
    options = ["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", built, STUB, "-lm"], check=True)
    return built


@pytest.fixture
def clock(stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedClock:
    """Leads the bindings' search to the stub, whose board runs on this clock and is read from tmp_path/board."""
    clock, library = SimulatedClock(0.1), ctypes.CDLL(str(stub))
    told = ctypes.CFUNCTYPE(ctypes.c_double)(clock.now_s)
    library.nvml_stub_clock(told)
    clock.told = told  # kept alive as long as the clock
    monkeypatch.setattr(pynvml, "CDLL", {NAME: library}.__getitem__)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setenv("NVML_STUB", str(tmp_path / "board"))
    return clock


def window_of(library: Library, clock: SimulatedClock) -> tuple[NvmlMeter, object]:
    meter = NvmlMeter(devices(library)[0], clock=clock, wall_s=lambda: WALL_S + clock.now_s())
    clock.sleep(8.9 - clock.now_s())
    meter.start()
    clock.sleep(1.2)
    return meter, meter.stop()


@pytest.mark.parametrize("lacking", SOURCES)
def test_bindings_and_made_up_object_agree(lacking: tuple[str, ...], clock: SimulatedClock, tmp_path: Path) -> None:
    board = Board(TRACE, phase_s=0.0037, reasons=[(0x4, 9.2, 9.6)], dropouts=[(9.3, 9.4)]).lacking(*lacking)
    board.write(tmp_path / "board")
    meter, window = window_of(Library(), clock)
    fake_clock = SimulatedClock(0.1)
    fake_meter, fake_window = window_of(Library(FakeNvml(board, fake_clock.now_s)), fake_clock)
    assert window.amount == pytest.approx(fake_window.amount, abs=1e-4)  # the last bit of a reading is rounding
    assert (window.samples, window.flags) == (fake_window.samples, fake_window.flags) and window.flags
    assert meter.facts() == fake_meter.facts()
    assert window.amount == pytest.approx(board.joules(10.1) - board.joules(8.9), rel=0.02)
    meter.close()


def test_the_devices_of_the_library(clock: SimulatedClock, tmp_path: Path) -> None:
    board = Board(TRACE, gpus=[("GPU-aa", "GTX 1080 Ti", -1), ("GPU-bb", "NVIDIA A100", 1), ("GPU-cc", "GTX 1080", 0)])
    board.write(tmp_path / "board")
    library = Library()
    assert [(device.uuid, device.name) for device in devices(library)] == [gpu[:2] for gpu in board.gpus]
    assert cuda_device(library, cuda_uuid=lambda: "aa").uuid == "GPU-aa"
    assert cuda_device(library, cuda_uuid=lambda: "cc").name == "GTX 1080"
    with pytest.raises(MeterError, match="MIG mode on"):
        cuda_device(library, cuda_uuid=lambda: "bb")
    assert len(probing.gpu_sources(clock=clock, wall_s=lambda: WALL_S + clock.now_s())) == 1 + 3 * 4


@pytest.mark.parametrize(
    ("function", "code", "word"),
    [
        ("nvmlInit", 9, "DRIVER_NOT_LOADED"),
        ("nvmlInit", 18, "LIB_RM_VERSION_MISMATCH"),
        ("nvmlInit", 999, "UNKNOWN"),
        ("nvmlDeviceGetHandleByIndex", 15, "GPU_IS_LOST"),
        ("nvmlDeviceGetUUID", 4, "NO_PERMISSION"),
    ],
)
def test_faults_of_the_library(function: str, code: int, word: str, clock: SimulatedClock, tmp_path: Path) -> None:
    Board(TRACE).lacking(function, code=code).write(tmp_path / "board")
    with pytest.raises(MeterError, match=word):
        devices(Library())


def test_a_jetson_starts_and_tells_no_power(clock: SimulatedClock, tmp_path: Path) -> None:
    board = Board(TRACE, gpus=[("GPU-0", "Orin (nvgpu)", -1)]).lacking(COUNTER, SAMPLES, INSTANT, USAGE)
    board.write(tmp_path / "board")
    with pytest.raises(MeterError, match=r"Orin.*NOT_SUPPORTED.*ina3221"):
        window_of(Library(), clock)


def test_a_gpu_lost_within_a_window(clock: SimulatedClock, tmp_path: Path) -> None:
    board = Board(TRACE, faults=[(COUNTER, 15, 9.5, 1e9)])
    board.write(tmp_path / "board")
    with pytest.raises(MeterError, match="GPU_IS_LOST"):
        window_of(Library(), clock)


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(pynvml, "CDLL", missing)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    with pytest.raises(MeterError, match="LIBRARY_NOT_FOUND"):
        Library()


def test_the_bindings_find_the_library_by_its_name(stub: Path, tmp_path: Path) -> None:
    Board(TRACE).write(tmp_path / "board")
    program = (
        "import json; from shared.meters.nvml.devices import devices; from shared.meters.nvml.library import Library;"
        "from shared.meters.nvml.facts import state; device = devices(Library())[0];"
        "print(json.dumps([device.name, device.uuid, state(device)]))"
    )
    environ = os.environ | {"LD_LIBRARY_PATH": str(stub.parent), "NVML_STUB": str(tmp_path / "board")}
    root = Path(__file__).parents[4]
    ran = subprocess.run([sys.executable, "-c", program], env=environ, cwd=root, check=True, capture_output=True)
    name, uuid, facts = json.loads(ran.stdout)
    assert (name, uuid, facts["driver"], facts["celsius"]) == ("GTX 1080 Ti", "GPU-1080aaaa-0000", "580.95", 61)

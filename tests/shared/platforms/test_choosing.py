"""Who answers for a device: its simulation, unless it is here; every mistake is one line that says what to try."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shared import platforms
from shared.errors import BadInput
from shared.meters import MeterError
from shared.meters.nvml.library import Library
from shared.platforms import MeasuredPlatform, SimulatedPlatform, choose, choosing


def test_all_devices() -> None:
    assert platforms.devices() == ("1080ti", "tx2", "eyeriss", "cpu", "local")


@pytest.mark.parametrize("meter", ["auto", "sim"])
@pytest.mark.parametrize(("metric", "unit"), [("energy", "J"), ("latency", "s")])
def test_hardware_that_is_elsewhere_is_simulated_in_both_metrics(
    meter: str, metric: str, unit: str, tmp_path: Path
) -> None:
    platform = choose("tx2", metric, meter, root=tmp_path)
    assert isinstance(platform, SimulatedPlatform) and platform.unit == unit


def test_latency_of_this_processor_is_by_the_clock(tmp_path: Path) -> None:
    for meter in ("auto", "clock"):
        platform = choose("cpu", "latency", meter, root=tmp_path)
        assert isinstance(platform, MeasuredPlatform)
        assert (platform.unit, platform.source, platform.meter) == ("s", "measured", "clock (wall time)")


def rapl(root: Path) -> None:
    zone = root / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in {"name": "package-0", "energy_uj": "5000000", "max_energy_range_uj": "65532610987"}.items():
        (zone / name).write_text(f"{text}\n")


def test_joules_of_this_processor_are_its_packages(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="modprobe intel_rapl_msr"):
        choose("cpu", root=tmp_path)
    (tmp_path / ".dockerenv").touch()
    with pytest.raises(BadInput, match="on the host of this container"):
        choose("cpu", root=tmp_path)
    rapl(tmp_path)
    for meter in ("auto", "rapl"):
        platform = choose("cpu", "energy", meter, root=tmp_path)
        assert (platform.unit, platform.meter) == ("J", "rapl (processor package)")


def test_a_recording_answers_for_any_processor_and_is_called_simulated(tmp_path: Path) -> None:
    (tmp_path / "power.csv").write_text("time_s,watts\n0,5\n0.1,6\n0.2,5\n")
    platform = choose("cpu", "energy", f"replay:{tmp_path / 'power.csv'}", root=tmp_path)
    assert platform.source == "simulated" and platform.meter == "replay (recording power.csv)"


def test_a_gpu_without_a_power_leaves_no_library_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[str]()

    class Bindings:
        NVMLError = ValueError

        def nvmlInit(self) -> None:
            calls.append("init")

        def nvmlShutdown(self) -> None:
            calls.append("shutdown")

    def powerless(library: Library) -> None:
        raise MeterError("a power", "none", "another meter")

    monkeypatch.setattr(choosing, "_gpu", lambda device: "cuda:0")
    monkeypatch.setattr(choosing, "Library", lambda: Library(Bindings()))
    monkeypatch.setattr(choosing, "cuda_device", powerless)
    with pytest.raises(BadInput, match="a power, got none"):
        choose("local", "energy", "nvml", root=tmp_path)
    assert calls == ["init", "shutdown"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a GPU of NVIDIA that torch can use, got none; try .*--device cpu"):
        choose("local", root=tmp_path)
    with pytest.raises(BadInput, match=r"a GTX 1080 Ti in this machine for --meter nvml, got none; try --meter sim"):
        choose("1080ti", "energy", "nvml", root=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_board_that_is_a_tx2_is_asked_itself(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("NVIDIA Jetson TX2\0")
    for metric, meter in (("latency", "clock"), ("energy", "ina3221:VDD_IN")):
        with pytest.raises(BadInput, match="a Jetson TX2 that torch can use"):
            choose("tx2", metric, meter, root=tmp_path)
    simulation = choose("tx2", root=tmp_path)  # auto: the sensor was tried, and the simulation tells why it answers
    assert isinstance(simulation, SimulatedPlatform) and "a Jetson TX2 that torch can use" in simulation.instead_of
    assert choose("tx2", meter="sim", root=tmp_path).instead_of == ""


@pytest.fixture
def tx2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a TX2 whose GPU torch could use, with two rails; returns the sensor's folder."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Tegra X2")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_62"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 2))
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("NVIDIA Jetson TX2\0")
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221x/0-0041/iio:device1"
    folder.mkdir(parents=True)
    files = {"rail_name_0": "VDD_IN", "in_power0_input": "5000", "rail_name_1": "VDD_SYS_CPU", "in_power1_input": "700"}
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
    return folder


@pytest.mark.parametrize("device", ["tx2", "local"])
def test_a_board_s_module_is_read_unless_a_rail_is_named(tx2: Path, device: str, tmp_path: Path) -> None:
    for meter in ("auto", "ina3221", "ina3221:VDD_IN"):
        platform = choose(device, "energy", meter, root=tmp_path)
        assert (platform.source, platform.meter) == ("measured", "ina3221 (rail VDD_IN (whole module))")
    assert choose(device, "energy", "ina3221:VDD_SYS_CPU", root=tmp_path).meter == "ina3221 (rail VDD_SYS_CPU (CPU))"
    with pytest.raises(BadInput, match="a rail labelled VDD_CPU, got rails VDD_IN, VDD_SYS_CPU"):
        choose(device, "energy", "ina3221:VDD_CPU", root=tmp_path)


@pytest.mark.parametrize(("name", "message"), [("in_power0_input", "No such file"), ("rail_name_0", "Is a directory")])
def test_a_sensor_whose_trial_read_fails_is_not_taken(tx2: Path, name: str, message: str, tmp_path: Path) -> None:
    (tx2 / name).unlink()
    if name == "rail_name_0":
        (tx2 / name).mkdir()
    simulation = choose("tx2", root=tmp_path)
    assert isinstance(simulation, SimulatedPlatform) and message in simulation.instead_of
    for device in ("tx2", "local"):
        with pytest.raises(BadInput, match=message):
            choose(device, "energy", "ina3221:VDD_IN", root=tmp_path)


def test_a_device_is_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA GeForce RTX 3090")
    for meter in ("nvml", "clock", "replay:x.csv"):
        with pytest.raises(BadInput, match="a GTX 1080 Ti in this machine"):
            choose("1080ti", "energy", meter, root=tmp_path)
    simulation = choose("1080ti", root=tmp_path)
    assert isinstance(simulation, SimulatedPlatform) and simulation.instead_of == ""


def test_memory_is_another_domain_of_the_processor(tmp_path: Path) -> None:
    rapl(tmp_path)
    with pytest.raises(BadInput, match="dram"):
        choose("cpu", "energy", "rapl:dram", root=tmp_path)
    with pytest.raises(BadInput, match="rapl or rapl:dram, got rapl:core"):
        choose("cpu", "energy", "rapl:core", root=tmp_path)


def test_recordings_of_one_name_are_told_apart(tmp_path: Path) -> None:
    found = []
    for watts in ("5", "6"):
        (tmp_path / "power.csv").write_text(f"time_s,watts\n0,5\n0.1,{watts}\n0.2,5\n")
        found.append(choose("cpu", "energy", f"replay:{tmp_path / 'power.csv'}", root=tmp_path).calibration)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("gtx",), "a device out of 1080ti, tx2, eyeriss, cpu, local, got 'gtx'"),
        (("cpu", "power"), "--metric energy or latency or macs or size, got 'power'"),
        (("cpu", "latency", "stopwatch"), "a meter out of auto, nvml, .*, got 'stopwatch'"),
        (("cpu", "latency", "clock:0"), "--meter clock without more, got 'clock:0'"),
        (("cpu", "latency", "sim"), r"a simulated device for --meter sim \(1080ti, tx2\), got cpu"),
        (("cpu", "energy", "clock"), "a meter that tells --metric energy, got --meter clock; try --meter rapl"),
        (("cpu", "energy", "nvml"), "a GPU for --meter nvml, got cpu; try --device local"),
        (("cpu", "energy", "replay:nowhere.csv"), "a recording that can be read, got nowhere.csv"),
        (("cpu", "energy", "ina3221:VDD_IN"), "a Jetson for --meter ina3221, got cpu"),
    ],
)
def test_mistakes(asked: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        choose(*asked, root=tmp_path)

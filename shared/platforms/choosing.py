"""Which platform answers for `--device`, `--metric` and `--meter`: hardware with a sensor, or a simulation of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import torch

from shared.errors import BadInput
from shared.meters import ClockMeter, Meter, MeterError, RaplMeter, ReplayMeter
from shared.meters.jetson.ina3221 import INA3221Meter, Rail, SysfsRail
from shared.meters.jetson.ina3221_i2c import I2CRail, open_bus
from shared.meters.jetson.rails import listed_rail
from shared.meters.nvml.devices import cuda_device
from shared.meters.nvml.library import Library
from shared.meters.nvml.meter import NvmlMeter
from shared.meters.rapl import DOMAINS
from shared.platforms import simulated
from shared.platforms.board import BoardPlatform
from shared.platforms.counted import MacsPlatform, SizePlatform
from shared.platforms.eyeriss import EyerissPlatform
from shared.platforms.measured import MeasuredPlatform
from shared.platforms.platform import Platform
from shared.torch_builds import missing_code

HERE = {"cpu": "the processor of this machine", "local": "the GPU of this machine"}
MODELS = {"1080ti": "GTX 1080 Ti", "tx2": "Jetson TX2"}  # as the driver and the board's device tree name them
UNITS: dict[str, Literal["J", "s"]] = {"energy": "J", "latency": "s"}
MACS, SIZE = "macs", "size"
METRICS = (*UNITS, MACS, SIZE)
EYERISS = EyerissPlatform.name
METERS = ("auto", "nvml", "ina3221:RAIL", "rapl", "rapl:dram", "clock", "sim", "replay:FILE", "board:RAIL@PLACE")
MODULE = "VDD_IN"  # the rail of the whole module, on a TX2 as on smaller Orins
OWN_RUNNER = ("tx2",)  # boards whose Python is too old for this suite


def devices() -> tuple[str, ...]:
    """All devices: the simulated ones, which may be here as well, then those of this machine."""
    return (*simulated.names(), EYERISS, *HERE)


def choose(
    device: str, metric: str = "energy", meter: str = "auto", bits: int | None = None, *, root: Path = Path("/")
) -> Platform:
    """The platform that is asked.

    `meter` auto takes the real sensor where this machine is that very model and a trial read succeeds, else the
    simulation, which then knows why. bits: of numbers, on eyeriss and for sizes. root: of the file system. Raises
    BadInput for unknown names, for a device that is not here, for a sensor that was asked for and fails, for a meter
    that does not tell the metric, and for bits where they decide nothing.
    """
    if device not in devices():
        raise BadInput(f"a device out of {', '.join(devices())}", repr(device), "python -m bench devices")
    if metric not in METRICS:
        raise BadInput(f"--metric {' or '.join(METRICS)}", repr(metric), "--metric energy")
    if bits is not None and metric != SIZE and (device, metric) != (EYERISS, "energy"):
        got = f"--device {device} --metric {metric}"
        raise BadInput(f"--bits with --device {EYERISS} or --metric {SIZE}", got, "the same without --bits")
    if metric in (MACS, SIZE) or device == EYERISS:
        return _computed(device, metric, meter, bits)
    kind, _, detail = meter.partition(":")
    if kind not in [known.partition(":")[0] for known in METERS]:
        raise BadInput(f"a meter out of {', '.join(METERS)}", repr(meter), "--meter auto")
    if detail and kind not in ("ina3221", "rapl", "replay", "board"):
        raise BadInput(f"--meter {kind} without more", repr(meter), f"--meter {kind}")
    if kind == "sim" and device in HERE:
        raise BadInput(f"a simulated device for --meter sim ({', '.join(simulated.names())})", device, "--meter auto")
    if kind == "board":
        return _on_its_own(device, metric, detail)
    if kind != "sim" and (device in HERE or _is_here(device, root)):
        try:
            return _measured(device, metric, kind, detail, root)
        except BadInput as error:
            if kind != "auto" or device in HERE:
                raise
            return simulated.get(device, UNITS[metric], instead_of=str(error))
    if kind not in ("sim", "auto"):
        model = MODELS.get(device, f"device that {device} simulates")
        raise BadInput(f"a {model} in this machine for --meter {kind}", "none", "--meter sim, or --device local")
    return simulated.get(device, UNITS[metric])


def _computed(device: str, metric: str, meter: str, bits: int | None) -> Platform:
    """A platform without a sensor: a count, or the chip that exists as formulas alone."""
    if meter not in ("auto", "sim"):
        what = f"--metric {metric}" if metric in (MACS, SIZE) else f"--device {device}"
        raise BadInput(f"--meter auto for {what}, which is computed", repr(meter), "--meter auto")
    if metric == MACS:
        return MacsPlatform()
    if metric == SIZE:
        return SizePlatform(bits)
    if metric != "energy":
        raise BadInput(f"--metric energy for --device {device}", metric, "--device 1080ti for a simulated latency")
    return EyerissPlatform(bits)


def _on_its_own(device: str, metric: str, detail: str) -> BoardPlatform:
    rail, at, place = detail.partition("@")  # the first: what follows may be USER@HOST
    rail, place = (rail, place) if at else ("", detail)
    if device not in OWN_RUNNER:
        raise BadInput(f"--device {' or '.join(OWN_RUNNER)} for --meter board", device, "--meter auto")
    hint = "--meter board:VDD_IN@HOST, or ./FOLDER for HOST; --metric latency --meter board:HOST"
    no_host = "/" not in place and place.startswith(("-", "."))  # an option for ssh; a folder without its "/"
    if not place or no_host or bool(rail) != (UNITS[metric] == "J"):
        expected = "a rail and a place for --metric energy, a place alone for latency"
        raise BadInput(expected, f"--metric {metric} --meter board:{detail}", hint)
    return BoardPlatform(device, MODELS[device], rail, place)


def _measured(device: str, metric: str, kind: str, detail: str, root: Path) -> MeasuredPlatform:
    joules = "rapl" if device == "cpu" else "ina3221" if "Jetson" in _board(root) else "nvml"
    right = "clock" if metric == "latency" else joules
    kind = right if kind == "auto" else kind
    if (kind == "clock") != (metric == "latency"):
        raise BadInput(f"a meter that tells --metric {metric}", f"--meter {kind}", f"--meter {right} or auto")
    place = "cpu" if device == "cpu" else _gpu(device)
    try:
        return MeasuredPlatform(device, _sensor(device, kind, detail, root), device=place)
    except MeterError as error:
        raise BadInput(error.expected, error.got, error.hint) from None


def _is_here(device: str, root: Path) -> bool:
    """Whether this machine is, or holds, the model that `device` names."""
    if device == "tx2":
        return MODELS[device] in _board(root)
    return device in MODELS and torch.cuda.is_available() and MODELS[device] in torch.cuda.get_device_name(0)


def _board(root: Path) -> str:
    try:
        return (root / "proc/device-tree/model").read_text(errors="replace")
    except OSError:
        return ""


def _gpu(device: str) -> str:
    """Torch's name of the GPU. Raises BadInput where torch can't use one."""
    if not torch.cuda.is_available():
        model = MODELS.get(device, "GPU of NVIDIA")
        hint = "--meter sim" if device in simulated.names() else "--device cpu --metric latency"
        raise BadInput(f"a {model} that torch can use", "none", f"python -m bench devices, or {hint}")
    if why := missing_code(torch.cuda.get_arch_list(), torch.cuda.get_device_capability(0)):
        raise why
    return "cuda:0"


def _sensor(device: str, kind: str, detail: str, root: Path) -> Meter:
    """After a trial read. Raises MeterError."""
    match kind:
        case "clock":
            return ClockMeter()
        case "rapl":
            if device != "cpu":
                raise MeterError("--device cpu for --meter rapl", device, "--meter nvml")
            domain = detail or "package"
            if domain not in DOMAINS:
                raise MeterError("rapl or rapl:dram", f"rapl:{detail}", "--meter rapl")
            return RaplMeter(domain, root=root / "sys/class/powercap", machine=root)
        case "nvml":
            if device == "cpu":
                raise MeterError("a GPU for --meter nvml", device, "--device local, or --meter rapl")
            library = Library()
            try:
                return NvmlMeter(cuda_device(library))
            except BaseException:
                with contextlib.suppress(MeterError):
                    library.close()
                raise
        case "ina3221":
            if device == "cpu":
                raise MeterError("a Jetson for --meter ina3221", device, "--device local, or --meter rapl")
            rail = _rail(detail or MODULE, root)
            rail.watts()
            return INA3221Meter(rail)
    return ReplayMeter(Path(detail))


def _rail(label: str, root: Path) -> Rail:
    """Through the kernel's driver; where none is bound, by the registers of a chip whose place is known."""
    try:
        return SysfsRail(label, str(root / "sys"))
    except MeterError:
        listed = listed_rail(label)
        if listed is None or list((root / "sys/bus/i2c/drivers").glob("ina3221*/*-*")):  # a driver is bound
            raise
        return I2CRail(label, open_bus(listed.i2c_bus, device_folder=root / "dev"))

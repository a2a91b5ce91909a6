#!/usr/bin/env python3
"""Runs the networks of an operation list on a board while it samples the power of one rail.

This file is copied to the board alone, so it holds everything: rails in sysfs, networks, the measurement. It needs
Python 3.6 or newer and, except for `--list`, torch 1.4 or newer:

    python3 runner.py --list
    python3 runner.py operations.json --rail VDD_IN --out measured

The second command writes measured.csv (time_s, watts) and measured.json (windows, repeats, rail, versions, clock).
"""
# ruff: noqa: UP006, UP035, UP045 - Python 3.6 knows neither list[int] nor int | None

import argparse
import csv
import errno
import glob
import hashlib
import json
import math
import os
import platform
import re
import sys
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

OPERATIONS_SCHEMA = "energy-compression-bench/operations"
MEASUREMENT_SCHEMA = "energy-compression-bench/board-measurement"
VERSION = 4  # of both files; version 1 had no variants, 2 no warm-up and no board model, 3 no sums of channels
PASSING = (errno.EAGAIN, errno.EIO, errno.EREMOTEIO, errno.ETIMEDOUT)  # the bus was busy, an acknowledgement was lost
NO_RAILS = ("", "nc", "sum of shunt voltages")  # lower-case labels of channels that are not connected or no rail
WARM_UP = 3  # least number of batches to warm up; as many more are timed to plan the window
# The variants of each kind of operation; other kinds have "plain" alone.
VARIANTS = {
    "relu": ("plain", "relu6"),
    "max_pool": ("plain", "adaptive"),
    "avg_pool": ("plain", "adaptive"),
    "upsample": ("plain", "bilinear", "aligned"),
}
# Files in sysfs with clocks (kHz or Hz) and temperatures (thousandths of a degree).
CONDITIONS = (
    "devices/system/cpu/cpu*/cpufreq/scaling_cur_freq",
    "class/devfreq/*/cur_freq",
    "class/thermal/thermal_zone*/temp",
)


class MeterError(Exception):
    """A sensor or a file is missing, does not answer, or holds an impossible value.

    The message says what was expected, what was got and what to try.
    """

    def __init__(self, expected: str, got: object, hint: str) -> None:
        self.expected, self.got, self.hint = expected, got, hint
        super().__init__(f"expected {expected}, got {got}; try {hint}")

    def __reduce__(self) -> Tuple[object, Tuple[str, str, str]]:
        """Pickle as a plain MeterError of three parts: the default rebuilds an exception from its message alone."""
        return MeterError, (self.expected, str(self.got), self.hint)


class DroppedSample(MeterError):
    """One sample failed and the next may succeed, for example on a busy bus. The window skips it and gets a flag."""


def read_text(path: str) -> str:
    """The text of a sysfs file without the line's end. Raises MeterError when it can't be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except PermissionError:
        raise MeterError("a sensor file that may be read", path + " (permission denied)", "sudo") from None
    except OSError as error:
        hint = "again with the board awake, or --list for the rails of this board"
        kind = DroppedSample if error.errno in PASSING else MeterError
        raise kind("a sensor file that answers", f"{path} ({error.strerror})", hint) from error


def read_number(path: str) -> float:
    """The number in a sysfs file. Raises MeterError when there is none."""
    text = read_text(path)
    try:
        return float(text)
    except ValueError:
        raise MeterError("a number in " + path, repr(text), "another kernel or driver") from None


class Rail(NamedTuple):
    """One channel of an INA3221 in sysfs. generation: "iio" (driver ina3221x, L4T up to 32) or "hwmon" (mainline)."""

    label: str
    folder: str
    channel: str
    generation: str

    def watts(self) -> float:
        """The present power; without load it may be a step or two below zero. Raises MeterError."""
        if self.generation == "iio":
            return read_number(self.path("in_power{}_input")) / 1e3
        return self.volts() * read_number(self.path("curr{}_input")) / 1e3

    def volts(self) -> float:
        """The present voltage. Raises MeterError."""
        return read_number(self.path("in_voltage{}_input" if self.generation == "iio" else "in{}_input")) / 1e3

    def shunt_ohms(self) -> Optional[float]:
        """The driver's value of the shunt; None where sysfs does not show it. Raises MeterError."""
        path = self.path("shunt{}_resistor")
        return read_number(path) / 1e6 if self.generation == "hwmon" and os.path.exists(path) else None

    def path(self, pattern: str) -> str:
        """The channel's file with the name `pattern`, whose {} stands for the channel's number."""
        return os.path.join(self.folder, pattern.format(self.channel))


def find_rails(root: str = "/sys") -> List[Rail]:
    """All rails in the sysfs at `root`, without unconnected channels and sums. Raises MeterError where unreadable."""
    folders = {}  # type: Dict[str, str]
    for driver in ("ina3221x", "ina3221"):
        for below in ("iio:device*", "iio_device", "hwmon/hwmon*"):
            for folder in glob.glob(os.path.join(glob.escape(root), "bus/i2c/drivers", driver, "*-*", below)):
                folders.setdefault(os.path.realpath(folder), folder)  # iio_device may link to iio:deviceN
    rails = []
    for folder in sorted(folders.values()):
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise MeterError("a sensor's folder", f"{folder} ({error.strerror})", "sudo") from error
        for name in names:
            match = re.match(r"rail_name_(\d+)$|in(\d+)_label$", name)
            if match and read_text(os.path.join(folder, name)).lower() not in NO_RAILS:
                generation = "iio" if match.group(1) else "hwmon"
                label = read_text(os.path.join(folder, name))
                rails.append(Rail(label, folder, match.group(1) or match.group(2), generation))
    return rails


def select_rail(rails: List[Rail], label: str) -> Rail:
    """The rail with this label. Raises MeterError when there is none or more than one."""
    chosen = [rail for rail in rails if rail.label == label]
    if not chosen:
        labels = ", ".join(rail.label for rail in rails) or "none"
        raise MeterError("a rail labelled " + label, "rails " + labels, "one of these rails, or a kernel with ina3221")
    if len(chosen) > 1:
        places = " and ".join(rail.folder for rail in chosen)
        raise MeterError("one rail labelled " + label, places, "a device tree that gives each its own label")
    return chosen[0]


class Sampler:
    """Samples a rail's power in a thread every `period_s`, from start() to stop().

    samples: list of (time_s, watts). dropped: number of samples that failed and are missing in the list.
    """

    def __init__(self, rail: Rail, period_s: float) -> None:
        self.rail, self.period_s = rail, period_s
        self.samples = []  # type: List[Tuple[float, float]]
        self.dropped = 0
        self._failure = None  # type: Optional[MeterError]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def start(self) -> None:
        """Start sampling after a trial read. Raises MeterError when the rail does not answer."""
        self.rail.watts()
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling. Raises the MeterError that has ended the thread, if there is one."""
        self._ended.set()
        self._thread.join()
        if self._failure:
            raise self._failure

    def _loop(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            before_s = time.monotonic()
            try:
                watts = self.rail.watts()
                self.samples.append(((before_s + time.monotonic()) / 2, watts))  # a read takes milliseconds
            except DroppedSample:
                self.dropped += 1
            except MeterError as error:
                self._failure = error
                return
            due = max(due + self.period_s, time.monotonic())
            self._ended.wait(due - time.monotonic())


class Network:
    """One row of an operation list as torch layers with random weights, in evaluation mode.

    layers: one layer or function per operation, in order. A call takes images (batch, channels, h, w). A tensor is
    freed after the last operation that reads it; a ReLU works in place where no other operation reads its input.
    """

    def __init__(self, document: Dict[str, Any], row: int, device: str) -> None:
        import torch

        operations, positions = document["operations"], document["positions"][row]
        generator = torch.Generator().manual_seed(row)
        reads = [(source, number) for number, operation in enumerate(operations) for source in operation["sources"]]
        read, last_reader = [source for source, _ in reads], dict(reads)
        self.layers, self._steps = [], []  # type: List[Any], List[Any]
        for number, operation in enumerate(operations):
            sources = operation["sources"]
            # never in place on the image (0), which every inference reads again
            in_place = sources[0] > 0 and read.count(sources[0]) == 1
            layer = _layer(torch, operation, positions, in_place)
            if isinstance(layer, torch.nn.Module):
                _fill(torch, layer, generator)
                layer = layer.eval() if device == "cpu" else layer.eval().to(device)
            self.layers.append(layer)
            done = [source for source in sorted(set(sources)) if last_reader[source] == number]
            self._steps.append((layer, sources, done))

    def __call__(self, images: Any) -> Any:
        """The outputs (batch, classes) or (batch, classes, h, w)."""
        values = {0: images}
        for number, (layer, sources, done) in enumerate(self._steps, 1):
            values[number] = layer(*[values[source] for source in sources])
            for source in done:
                del values[source]
        return values[len(self._steps)]


def channels(count: List[Any], positions: List[int]) -> int:
    """The number of channels at these positions: of position or None, dense count, repeat, for each part in turn."""
    parts = [count[start : start + 3] for start in range(0, len(count), 3)]
    return sum(int((dense if place is None else positions[place]) * repeat) for place, dense, repeat in parts)


def _layer(torch: Any, operation: Dict[str, Any], positions: List[int], in_place: bool) -> Callable[..., Any]:
    """The layer or function of an operation."""
    nn, kind, bias = torch.nn, operation["kind"], operation["bias"]
    inputs, outputs = channels(operation["inputs"], positions), channels(operation["outputs"], positions)
    size, kernel, stride = operation["output_size"], operation["kernel"], operation["stride"]
    padding, dilation, extra = operation["padding"], operation["dilation"], operation["output_padding"]
    variant = operation["variant"]
    if variant not in VARIANTS.get(kind, ("plain",)):
        got = f"{kind} of variant {variant!r}"
        raise MeterError("an operation that this file knows", got, "the runner.py that belongs to the list")
    if kind in ("conv", "depthwise"):
        groups = inputs if kind == "depthwise" else 1
        return _plain(nn.Conv2d)(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
    if kind == "transposed_conv":
        return _plain(nn.ConvTranspose2d)(inputs, outputs, kernel, stride, padding, extra, 1, bias, dilation)
    if kind == "linear":
        layer = _plain(nn.Linear)(inputs, outputs, bias)
        # flatten is no operation of the list: the layer that reads the tensor flattens it
        layer.register_forward_pre_hook(lambda _, given: (given[0].flatten(1),))
        return layer
    if kind == "max_pool":
        return nn.AdaptiveMaxPool2d(size) if variant == "adaptive" else nn.MaxPool2d(kernel, stride, padding, dilation)
    if kind == "avg_pool":
        return nn.AdaptiveAvgPool2d(size) if variant == "adaptive" else nn.AvgPool2d(kernel, stride, padding)
    mode = "nearest" if variant == "plain" else "bilinear"
    aligned = None if variant == "plain" else variant == "aligned"  # torch refuses it for nearest neighbours
    others = {
        "batch_norm": lambda: nn.BatchNorm2d(outputs),
        "relu": lambda: (nn.ReLU6 if variant == "relu6" else nn.ReLU)(in_place),
        "upsample": lambda: nn.Upsample(size=size, mode=mode, align_corners=aligned),
        "add": lambda: torch.add,
        "cat": lambda: lambda *parts: torch.cat(parts, 1),
    }
    if kind not in others:
        raise MeterError("an operation that this file knows", repr(kind), "the runner.py that belongs to the list")
    return others[kind]()


_PLAIN = {}  # type: Dict[Any, Any]


def _plain(kind: Any) -> Any:
    """The layer class without torch's weight initialisation, which takes longer than the rest of building."""
    if kind not in _PLAIN:
        _PLAIN[kind] = type(kind.__name__, (kind,), {"reset_parameters": lambda self: None})
    return _PLAIN[kind]


def _fill(torch: Any, layer: Any, generator: Any) -> None:
    """Random weights that keep the scale of activations: no overflow, and no denormal numbers, which are slow."""
    if layer.__class__ in _PLAIN.values():
        outputs = getattr(layer, "out_channels", None) or layer.out_features
        with torch.no_grad():
            layer.weight.normal_(0, math.sqrt(2.0 * outputs / layer.weight.numel()), generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()


def build_callable(
    document: Dict[str, Any], batch: int, row: int = 0, device: Optional[str] = None
) -> Callable[[], Any]:
    """A function that infers one batch of random images and returns the outputs.

    document: an operation list. row: row of its positions. device: CUDA when available, else the CPU, by default. The
    function does not wait for CUDA to finish. torch's global random generators are not used.
    """
    import torch

    device = device or default_device()
    network = Network(document, row, device)
    generator = torch.Generator().manual_seed(row)
    images = torch.randn([batch, document["positions"][row][0]] + document["image_size"], generator=generator)
    images = images.to(device)
    without_gradients = getattr(torch, "inference_mode", torch.no_grad)  # inference_mode came with torch 1.9

    def infer() -> Any:
        with without_gradients():
            return network(images)

    return infer


def default_device() -> str:
    """ "cuda" when torch can use it, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_operations(path: str) -> Dict[str, Any]:
    """The operation list in a file. Raises MeterError for any other file."""
    try:
        with open(path) as file:
            document = json.load(file)
    except (OSError, ValueError) as error:
        raise MeterError("an operation list at " + path, error, "writing it anew on the host") from error
    got = (document.get("schema"), document.get("version")) if isinstance(document, dict) else type(document).__name__
    if got != (OPERATIONS_SCHEMA, VERSION):
        raise MeterError(f"an operation list of version {VERSION}", got, "the runner.py beside it on the host")
    return document


def fingerprint(document: Dict[str, Any]) -> str:
    """SHA-256 of the document's canonical JSON. A measurement holds the one of its operation list."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def measure_row(document: Dict[str, Any], row: int, device: str, root: str) -> Dict[str, Any]:
    """Warm up, then measure one window between two synchronisations: at least the list's repeats and seconds."""
    import torch

    synchronize = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    infer = build_callable(document, document["batch"], row, device)
    warm_s, warmed = time.monotonic() + document["warm_up_s"], 0
    while warmed < WARM_UP or time.monotonic() < warm_s:
        outputs = infer()
        synchronize()  # else queued launches would run on after the warm-up
        warmed += 1
    last = document["operations"][-1]
    stated = [document["batch"], channels(last["outputs"], document["positions"][row])] + last["output_size"]
    if list(outputs.shape) + [1] * (4 - outputs.dim()) != stated:
        raise MeterError(f"outputs of shape {stated}", list(outputs.shape), "writing the list anew")
    start_s = time.monotonic()
    for _ in range(WARM_UP):
        infer()
    synchronize()
    batch_s = max((time.monotonic() - start_s) / WARM_UP, 1e-6)
    repeats, more = 0, max(document["repeats"], math.ceil(document["window_s"] / batch_s))
    start_s = end_s = time.monotonic()
    while more:  # usually once; again where the timed batches were slower than the rest and the window is too short
        for _ in range(more):
            infer()
        synchronize()
        repeats, end_s = repeats + more, time.monotonic()
        more = max(0, math.ceil((start_s + document["window_s"] - end_s) * repeats / (end_s - start_s)))
    return {"row": row, "repeats": repeats, "start_s": start_s, "end_s": end_s, "conditions": conditions(root)}


def conditions(root: str) -> Dict[str, int]:
    """Clocks and temperatures by their path in `root`; without those that can't be read."""
    values = {}
    for pattern in CONDITIONS:
        for path in sorted(glob.glob(os.path.join(glob.escape(root), pattern))):
            try:
                values[os.path.relpath(path, root)] = int(read_number(path))
            except MeterError:
                continue  # a thermal zone may be asleep; the measurement goes on
    return values


def model(root: str) -> str:
    """The board's model by the device tree in `root`; "" where there is none."""
    try:
        return read_text(os.path.join(root, "firmware/devicetree/base/model")).strip("\0")
    except MeterError:
        return ""


def measure(document: Dict[str, Any], rail: Optional[Rail], period_s: float, idle_s: float, root: str) -> Any:
    """Measure all rows in order, and idle power before and after. Returns (measurement, samples)."""
    import torch

    device = default_device()
    build_callable(document, document["batch"], 0, device)()  # torch's one-time loading is no idle power
    sampler = Sampler(rail, period_s) if rail else None
    if sampler:
        sampler.start()
    idle = [_pause(idle_s)]
    windows = []
    for row in range(len(document["positions"])):
        windows.append(measure_row(document, row, device, root))
        sys.stderr.write("\r{} of {} width vectors".format(row + 1, len(document["positions"])))
        sys.stderr.flush()
    sys.stderr.write("\n")
    idle.append(_pause(idle_s))
    if sampler:
        # at least one sample after the last window, so that power is known at its end
        time.sleep(2 * period_s)
        sampler.stop()
    facts = None  # type: Optional[Dict[str, Any]]
    if rail:
        facts = {"label": rail.label, "generation": rail.generation, "folder": rail.folder}
        facts.update(volts=rail.volts(), shunt_ohms=rail.shunt_ohms())
    return {
        "schema": MEASUREMENT_SCHEMA,
        "version": VERSION,
        "operations_sha256": fingerprint(document),
        "batch": document["batch"],
        "windows": windows,
        "idle": idle if idle_s else [],
        "rail": facts,
        "period_s": period_s,
        "dropped_samples": sampler.dropped if sampler else 0,
        "clock": "time.monotonic",
        "device": torch.cuda.get_device_name(0) if device == "cuda" else device,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "cuda": str(torch.version.cuda),
            "kernel": platform.release(),
            "board": model(root),
        },
    }, (sampler.samples if sampler else [])


def _pause(seconds: float) -> List[float]:
    """Wait for this long. Returns the start and the end of the wait."""
    start_s = time.monotonic()
    time.sleep(seconds)
    return [start_s, time.monotonic()]


def write(out: str, measurement: Dict[str, Any], samples: List[Tuple[float, float]]) -> None:
    """Write `out`.csv, and `out`.json with the CSV file's hash."""
    with open(out + ".csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["time_s", "watts"])
        writer.writerows([repr(time_s), repr(watts)] for time_s, watts in samples)
    with open(out + ".csv", "rb") as written:
        measurement["csv_sha256"] = hashlib.sha256(written.read()).hexdigest()
    with open(out + ".json", "w") as file:
        json.dump(measurement, file, indent=1)
        file.write("\n")


def main(arguments: Optional[List[str]] = None) -> int:
    """The command line. Returns 0; 2 after an error, which is one line on stderr; 130 when interrupted."""
    parser = argparse.ArgumentParser(description="Measure the networks of an operation list on this board.")
    parser.add_argument("operations", nargs="?", help="JSON file written on the host")
    parser.add_argument("--list", action="store_true", help="list the INA3221's rails with their present power")
    parser.add_argument("--rail", help="label of the rail to sample; without it only times are measured")
    parser.add_argument("--out", default="measured", help="files to write, without the endings .csv and .json")
    parser.add_argument("--period", type=float, default=0.05, help="seconds between two power samples")
    parser.add_argument("--idle", type=float, default=5.0, help="seconds of idle power before and after")
    parser.add_argument("--sysfs", default="/sys", help="root of sysfs")
    given = parser.parse_args(arguments)
    try:
        rails = find_rails(given.sysfs) if given.list or given.rail else []
        if given.list:
            for each in rails:
                print(f"{each.label:20} {each.watts():8.3f} W  {each.folder}")
            return 0
        if not given.operations:
            raise MeterError("an operation list or --list", "neither", "--help")
        document = load_operations(given.operations)
        rail = select_rail(rails, given.rail) if given.rail else None
        folder = os.path.dirname(os.path.abspath(given.out))
        if not os.access(folder, os.W_OK):  # checked before an hour of measuring
            raise MeterError("a folder that can be written for --out", folder, "another --out")
        write(given.out, *measure(document, rail, given.period, given.idle, given.sysfs))
    except (MeterError, ImportError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped: nothing was written\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

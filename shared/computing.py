"""The device and the precision of training, as --compute and --compile choose them.

Random numbers are drawn on the CPU wherever training runs, so that batches are the same on every device.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.errors import BadInput
from shared.host import usable_cores
from shared.torch_builds import NEW_WHEEL, missing_code

CPU = torch.device("cpu")
AMPERE = (8, 0)  # the first compute capability with bfloat16 in hardware
DRIVER = Path("/sys/module/nvidia/version")


@dataclass(frozen=True)
class Computing:
    """A device, and the precision of what is computed on it.

    autocast: type of the forward passes of training; weights, loss and optimiser stay float32. None is float32
    throughout. It is bfloat16 and never float16: float16 needs loss scaling, which skips steps on overflow, while the
    ledger counts every iteration as a step.
    compiled: training's forward and backward passes go through torch.compile.

    Scores, tables of the teacher's logits, least squares and the comparison of zeroed and cut network are float32
    without TF32, so that they mean the same on every device.
    """

    device: torch.device = CPU
    autocast: torch.dtype | None = None
    compiled: bool = False

    def logits(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The logits of `network` in the precision of training, converted to float32."""
        if self.autocast is None:
            return network(images)
        with torch.autocast(self.device.type, self.autocast):
            return network(images).float()

    def wait(self) -> None:
        """Block until the device has finished its queued work. Call it before reading a clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def enter(self) -> None:
        """Apply this to the process: TF32 off, this device as CUDA's current one, no more threads than usable cores.

        Torch starts a thread per core and knows no quota of processor time.
        """
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    @property
    def label(self) -> str:
        """Text for records and cache keys of all that can change results: a GPU's model, but not its index."""
        cuda = self.device.type == "cuda"
        parts = [f"{torch.cuda.get_device_name(self.device)}, CUDA {torch.version.cuda}" if cuda else self.device.type]
        if self.autocast is not None:
            parts.append(f"{str(self.autocast).removeprefix('torch.')} in training")
        parts += ["no TF32"] * cuda + ["compiled"] * self.compiled
        return ", ".join(parts)

    @property
    def driver(self) -> str | None:
        """Version of NVIDIA's driver; None on a CPU, or where the operating system doesn't report it."""
        try:
            return DRIVER.read_text().strip() if self.device.type == "cuda" else None
        except OSError:
            return None


ON_CPU = Computing()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of the tensor on `device`, made without waiting for a GPU's queued work; itself if it is there already."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def computing(place: str = "cpu", compiled: bool = False) -> Computing:
    """Parse --compute, `cpu` or `cuda:N`, and probe the device. Raises BadInput if it can't compute."""
    if place == "cpu":
        choice = Computing(compiled=compiled)
    elif match := re.fullmatch(r"cuda:(\d{1,3})", place):
        choice = _on_gpu(int(match[1]), compiled)
    else:
        raise BadInput("--compute cpu or cuda:N", repr(place), "--compute cuda:0")
    if compiled:
        _try_compiling(choice.device)
    return choice


def _on_gpu(index: int, compiled: bool) -> Computing:
    place, build = f"cuda:{index}", f"torch {torch.__version__}"
    if torch.version.cuda is None:
        raise BadInput(f"a torch with CUDA for --compute {place}", f"{build} without it", NEW_WHEEL)
    with warnings.catch_warnings(record=True) as caught:  # torch warns of a driver that is too old
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        why = _line(caught[-1].message) if caught else "which finds no GPU or driver"
        raise BadInput(f"a GPU for --compute {place}", f"{build}, {why}", "`nvidia-smi`, or --compute cpu")
    if index >= (count := torch.cuda.device_count()):
        hint = "a lower number, or another CUDA_VISIBLE_DEVICES"
        raise BadInput(f"--compute below cuda:{count}", place, hint)
    capability = torch.cuda.get_device_capability(index)
    if problem := missing_code(torch.cuda.get_arch_list(), capability):
        raise problem
    device = torch.device(place)
    try:
        torch.ones(1, device=device).add(1).item()
    except RuntimeError as error:
        raise BadInput(f"{place} to compute", _line(error), "`nvidia-smi`, or --compute cpu") from None
    return Computing(device, torch.bfloat16 if capability >= AMPERE else None, compiled)


def _try_compiling(device: torch.device) -> None:
    try:
        torch.compile(nn.functional.gelu)(torch.ones(2, device=device))
    except Exception as error:  # a missing compiler shows as one of many error types
        got = f"{type(error).__name__}: {_line(error)}"
        raise BadInput(f"torch.compile to work on {device}", got, "a C++ compiler, or no --compile") from None


def _line(message: object) -> str:
    return " ".join(str(message).split())[:200]

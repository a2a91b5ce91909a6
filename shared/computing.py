"""Where training runs and how: one value from the command line to the trainer.

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
from shared.meters.nvml_wheels import NEW_WHEEL, missing_code

CPU = torch.device("cpu")
AMPERE = (8, 0)  # multiplies bfloat16 in hardware, as later devices do
DRIVER = Path("/sys/module/nvidia/version")


@dataclass(frozen=True)
class Computing:
    """A device, and the precision of what is computed on it.

    autocast: of the forward passes of training, with float32 weights, loss and optimiser; None is float32 throughout.
    It is bfloat16 and never float16, whose range needs a scaled loss and steps that are left out when it overflows,
    while the ledger counts every iteration as a step. Scores, tables of the teacher's logits, least squares and the
    comparison of zeroed and cut network are float32 without TF32, so that they mean the same on every device.
    compiled: training's forward and backward passes go through torch.compile.
    """

    device: torch.device = CPU
    autocast: torch.dtype | None = None
    compiled: bool = False

    def logits(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What `network` answers in the precision of training, given back in float32."""
        if self.autocast is None:
            return network(images)
        with torch.autocast(self.device.type, self.autocast):
            return network(images).float()

    def wait(self) -> None:
        """Until the device has done what it was given; before a clock is read."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def enter(self) -> None:
        """Make this process compute so: float32 in full, and this device as CUDA's current one."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    @property
    def told(self) -> str:
        """What of it decides figures, for records and keys: the chip, not its number."""
        cuda = self.device.type == "cuda"
        parts = [f"{torch.cuda.get_device_name(self.device)}, CUDA {torch.version.cuda}" if cuda else self.device.type]
        if self.autocast is not None:
            parts.append(f"{str(self.autocast).removeprefix('torch.')} in training")
        parts += ["no TF32"] * cuda + ["compiled"] * self.compiled
        return ", ".join(parts)

    @property
    def driver(self) -> str | None:
        """Version of NVIDIA's driver where it computes on one, and the system tells."""
        try:
            return DRIVER.read_text().strip() if self.device.type == "cuda" else None
        except OSError:
            return None


ON_CPU = Computing()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`, without waiting for what a GPU is still at."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def computing(place: str = "cpu", compiled: bool = False) -> Computing:
    """The value of --compute, `cpu` or `cuda:N`, tried out. Raises BadInput where that can't be computed on."""
    if place == "cpu":
        found = Computing(compiled=compiled)
    elif match := re.fullmatch(r"cuda:(\d{1,3})", place):
        found = _on_gpu(int(match[1]), compiled)
    else:
        raise BadInput("--compute cpu or cuda:N", repr(place), "--compute cuda:0")
    if compiled:
        _try_compiling(found.device)
    return found


def _on_gpu(index: int, compiled: bool) -> Computing:
    place, build = f"cuda:{index}", f"torch {torch.__version__}"
    if torch.version.cuda is None:
        raise BadInput(f"a torch with CUDA for --compute {place}", f"{build} without it", NEW_WHEEL)
    with warnings.catch_warnings(record=True) as said:  # of an old driver
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        why = _line(said[-1].message) if said else "which finds no GPU or driver"
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
    except Exception as error:  # whatever a compiler that is missing leads to
        got = f"{type(error).__name__}: {_line(error)}"
        raise BadInput(f"torch.compile to work on {device}", got, "a C++ compiler, or no --compile") from None


def _line(message: object) -> str:
    return " ".join(str(message).split())[:200]

"""Finds the NVML device of the CUDA device that the work runs on. They are matched by UUID.

Device numbers do not match: CUDA may sort by speed and hide devices, NVML sorts by PCI address and hides none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.meters.meter import MeterError
from shared.meters.nvml.library import ABSENT, Library, NvmlFault


@dataclass(frozen=True)
class Device:
    """A GPU in NVML. handle: NVML's own reference to it. uuid: "GPU-…"."""

    library: Library
    handle: Any
    uuid: str
    name: str

    def ask(self, what: str, function: str, *arguments: object) -> Any:
        """Call a function of the library for this device; `what` names the result in messages. Raises NvmlFault."""
        return self.library.ask(f"{what} of {self.name}", function, self.handle, *arguments)


def devices(library: Library) -> tuple[Device, ...]:
    """All GPUs, in NVML's order (by PCI address). Raises NvmlFault, also for a GPU that has fallen off the bus."""
    gpus = []
    for index in range(library.ask("a count of GPUs", "nvmlDeviceGetCount")):
        handle = library.ask(f"GPU {index}", "nvmlDeviceGetHandleByIndex", index)
        uuid = library.ask(f"UUID of GPU {index}", "nvmlDeviceGetUUID", handle)
        name = library.ask(f"Name of GPU {index}", "nvmlDeviceGetName", handle)
        gpus.append(Device(library, handle, uuid, name))
    return tuple(gpus)


def torch_uuid() -> str:
    """UUID of torch's first CUDA device, without NVML's "GPU-"."""
    import torch

    return str(torch.cuda.get_device_properties(0).uuid)


def cuda_device(library: Library, *, cuda_uuid: Callable[[], str] = torch_uuid) -> Device:
    """The NVML device of torch's first CUDA device; there has to be one.

    Raises MeterError for MIG slices, which have no power sensor of their own, and for a device that is unknown to NVML.
    """
    gpus = {_plain(device.uuid): device for device in devices(library)}
    if not gpus:
        raise MeterError("a GPU", "none from NVML", "`nvidia-smi -L`, or another meter")
    uuid = cuda_uuid()
    if _plain(uuid) not in gpus:
        names = ", ".join(device.uuid for device in gpus.values())
        raise MeterError(f"CUDA's GPU {uuid}", f"only {names} from NVML", "giving the container that GPU (`--gpus`)")
    device = gpus[_plain(uuid)]
    try:
        in_slices, _ = device.ask("the MIG mode", "nvmlDeviceGetMigMode")
    except NvmlFault as fault:
        if fault.fault not in ABSENT:
            raise
        in_slices = False
    if in_slices:
        hint = "a GPU without MIG (`nvidia-smi -mig 0`)"
        raise MeterError("a whole GPU, as only it has a power sensor", "MIG mode on", hint)
    return device


def _plain(uuid: str) -> str:
    return uuid.removeprefix("GPU-").lower()

"""Finds the NVML device of the CUDA device that the work runs on. They are matched by UUID.

Device numbers do not match: CUDA may sort by speed and hide devices, NVML sorts by PCI address and hides none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import BadInput
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
        uuid, name = (
            library.ask(f"{word} of GPU {index}", f"nvmlDeviceGet{word}", handle) for word in ("UUID", "Name")
        )
        gpus.append(Device(library, handle, uuid, name))
    return tuple(gpus)


def torch_uuid(index: int) -> str | None:
    """UUID of torch's CUDA device `index`; None where torch can't use CUDA. Raises BadInput for a number too high."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    if index >= torch.cuda.device_count():
        raise _beyond(index, torch.cuda.device_count())
    return str(torch.cuda.get_device_properties(index).uuid)


def cuda_device(
    library: Library,
    index: int = 0,
    *,
    environ: Mapping[str, str] = os.environ,
    cuda_uuid: Callable[[int], str | None] = torch_uuid,
) -> Device:
    """The NVML device of CUDA device `index`.

    Its UUID comes from CUDA; where torch can't use CUDA, from CUDA_VISIBLE_DEVICES. Raises MeterError for MIG slices,
    which have no power sensor of their own, and for a device that is unknown to NVML; BadInput for a number beyond the
    visible devices.
    """
    gpus = devices(library)
    if not gpus:
        raise MeterError("a GPU", "none from NVML", "`nvidia-smi -L`, or another meter")
    uuid = cuda_uuid(index)
    if uuid is None:
        seen = visible([(device.uuid, device.name) for device in gpus], environ)
        if index >= len(seen):
            raise _beyond(index, len(seen))
        uuid = seen[index]
    _refuse_mig(uuid)
    matches = [device for device in gpus if _plain(device.uuid) == _plain(uuid)]
    if not matches:
        names = ", ".join(device.uuid for device in gpus)
        raise MeterError(f"CUDA's GPU {uuid}", f"only {names} from NVML", "giving the container that GPU (`--gpus`)")
    try:
        current, _ = matches[0].ask("the MIG mode", "nvmlDeviceGetMigMode")
    except NvmlFault as fault:
        if fault.fault not in ABSENT:
            raise
    else:
        if current:
            _refuse_mig("MIG mode on")
    return matches[0]


def visible(gpus: Sequence[tuple[str, str]], environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """UUIDs of the devices that a CUDA program sees, in CUDA's order.

    gpus: (UUID, name) of all devices, in NVML's order. CUDA_VISIBLE_DEVICES holds numbers, UUIDs, or prefixes of
    UUIDs that match one device. The first entry without a match ends the list; a device that is named twice makes the
    list empty. Examples for devices A, B and C: "1,0" gives (B, A); "0,7,1" gives (A,); "0,0" gives ().

    Raises MeterError for MIG slices. Raises it for numbers, too, where devices differ in model and CUDA_DEVICE_ORDER is
    not PCI_BUS_ID: CUDA then sorts by speed, which NVML does not tell. Source: CUDA programming guide, "CUDA
    environment variables".
    """
    variable = environ.get("CUDA_VISIBLE_DEVICES")
    order_is_certain = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({name for _, name in gpus}) == 1
    entries = [str(number) for number in range(len(gpus))] if variable is None else variable.split(",")
    chosen: list[str] = []
    for entry in (text.strip() for text in entries):
        _refuse_mig(entry)
        if entry.isdecimal():
            fits = [gpus[int(entry)][0]] if int(entry) < len(gpus) else []
            if fits and not order_is_certain:
                raise MeterError(
                    "device numbers in PCI order",
                    f"the number {entry} among GPUs of several models",
                    "CUDA_DEVICE_ORDER=PCI_BUS_ID, or UUIDs in CUDA_VISIBLE_DEVICES (`nvidia-smi -L`)",
                )
        else:
            fits = [uuid for uuid, _ in gpus if entry.startswith("GPU-") and _plain(uuid).startswith(_plain(entry))]
        if len(fits) != 1:
            break
        chosen += fits
    return tuple(chosen) if len(set(chosen)) == len(chosen) else ()


def _plain(uuid: str) -> str:
    return uuid.removeprefix("GPU-").lower()


def _refuse_mig(uuid: str) -> None:
    if uuid.startswith("MIG"):
        raise MeterError("a whole GPU, as only it has a power sensor", uuid, "a GPU without MIG (`nvidia-smi -mig 0`)")


def _beyond(index: int, count: int) -> BadInput:
    return BadInput(f"a CUDA device below {count}", f"cuda:{index}", "a lower number, or another CUDA_VISIBLE_DEVICES")

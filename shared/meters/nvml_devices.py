"""Which NVML device is the CUDA device that the work runs on: matched by UUID, never by number."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import BadInput
from shared.meters.meter import MeterError
from shared.meters.nvml_library import ABSENT, Library, NvmlFault


@dataclass(frozen=True)
class Device:
    """A GPU as NVML knows it. handle: the library's own. uuid: "GPU-…"."""

    library: Library
    handle: Any
    uuid: str
    name: str

    def ask(self, what: str, function: str, *arguments: object) -> Any:
        """What a function of the library answers for this device. Raises NvmlFault."""
        return self.library.ask(f"{what} of {self.name}", function, self.handle, *arguments)


def devices(library: Library) -> tuple[Device, ...]:
    """All GPUs, in NVML's order (by PCI address). Raises NvmlFault, for a GPU that fell off the bus among others."""
    found = []
    for index in range(library.ask("a count of GPUs", "nvmlDeviceGetCount")):
        handle = library.ask(f"GPU {index}", "nvmlDeviceGetHandleByIndex", index)
        uuid, name = (
            library.ask(f"{word} of GPU {index}", f"nvmlDeviceGet{word}", handle) for word in ("UUID", "Name")
        )
        found.append(Device(library, handle, uuid, name))
    return tuple(found)


def torch_uuid(index: int) -> str | None:
    """UUID of torch's CUDA device of that number; None where torch can't use CUDA. Raises BadInput beyond."""
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

    By the UUID that CUDA itself names; where CUDA can't be asked, by CUDA_VISIBLE_DEVICES. Raises MeterError for MIG
    slices, which have no sensor of their own, and for a device that NVML does not know; BadInput for a number beyond
    the visible devices.
    """
    found = devices(library)
    if not found:
        raise MeterError("a GPU", "none from NVML", "`nvidia-smi -L`, or another meter")
    uuid = cuda_uuid(index)
    if uuid is None:
        seen = visible([(device.uuid, device.name) for device in found], environ)
        if index >= len(seen):
            raise _beyond(index, len(seen))
        uuid = seen[index]
    _refuse_mig(uuid)
    matches = [device for device in found if _plain(device.uuid) == _plain(uuid)]
    if not matches:
        names = ", ".join(device.uuid for device in found)
        raise MeterError(f"the GPU {uuid} that CUDA names", f"only {names} from NVML", "the container's device list")
    try:
        current, _ = matches[0].ask("the MIG mode", "nvmlDeviceGetMigMode")
    except NvmlFault as fault:
        if fault.fault not in ABSENT:
            raise
    else:
        if current:
            _refuse_mig("MIG mode on")
    return matches[0]


def visible(known: Sequence[tuple[str, str]], environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """UUIDs of the devices that CUDA shows a program, in CUDA's order.

    known: (UUID, name) in NVML's order. CUDA_VISIBLE_DEVICES holds numbers, UUIDs or beginnings of UUIDs that fit one
    device; the first entry that fits none ends the list, and one named twice leaves nothing. Raises MeterError for MIG
    slices, and for numbers where several models leave CUDA's order open (fastest first, unless CUDA_DEVICE_ORDER says
    otherwise). Source: CUDA programming guide, "CUDA environment variables".
    """
    variable = environ.get("CUDA_VISIBLE_DEVICES")
    order_known = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({name for _, name in known}) == 1
    entries = [str(number) for number in range(len(known))] if variable is None else variable.split(",")
    chosen: list[str] = []
    for entry in (text.strip() for text in entries):
        _refuse_mig(entry)
        if entry.isdecimal():
            fits = [known[int(entry)][0]] if int(entry) < len(known) else []
            if fits and not order_known:
                raise MeterError(
                    "an order of CUDA's devices",
                    f"several models and the number {entry}",
                    "CUDA_DEVICE_ORDER=PCI_BUS_ID, or UUIDs in CUDA_VISIBLE_DEVICES (`nvidia-smi -L`)",
                )
        else:
            fits = [uuid for uuid, _ in known if entry.startswith("GPU-") and _plain(uuid).startswith(_plain(entry))]
        if len(fits) != 1:
            break
        chosen += fits
    return tuple(chosen) if len(set(chosen)) == len(chosen) else ()


def _plain(uuid: str) -> str:
    return uuid.removeprefix("GPU-").lower()


def _refuse_mig(uuid: str) -> None:
    if uuid.startswith("MIG"):
        raise MeterError(
            "a whole GPU, the only thing with a power sensor", uuid, "a GPU without MIG (`nvidia-smi -mig 0`)"
        )


def _beyond(index: int, count: int) -> BadInput:
    return BadInput(f"a CUDA device below {count}", f"cuda:{index}", "a lower number, or another CUDA_VISIBLE_DEVICES")

"""NVIDIA's management library (NVML) behind one function, `Library.ask`, whose errors say what to try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.meters.meter import MeterError

# nvmlReturn_t: the name and what a user can try
FAULTS = {
    1: ("UNINITIALIZED", "nvmlInit first"),
    2: ("INVALID_ARGUMENT", "a driver and a package nvidia-ml-py of the same year"),
    3: ("NOT_SUPPORTED", "another meter: this GPU or its driver does not offer that"),
    4: ("NO_PERMISSION", "a user who may open /dev/nvidia*, or an administrator's `nvidia-smi -acp UNRESTRICTED`"),
    6: ("NOT_FOUND", "`nvidia-smi -L` to see which GPUs the driver knows"),
    7: ("INSUFFICIENT_SIZE", "again"),
    9: ("DRIVER_NOT_LOADED", "`modprobe nvidia`, or installing NVIDIA's driver; nvidia-smi must work first"),
    10: ("TIMEOUT", "again when the GPU is less busy"),
    12: (
        "LIBRARY_NOT_FOUND",
        "installing NVIDIA's driver, or in a container NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    ),
    13: ("FUNCTION_NOT_FOUND", "a newer driver"),
    15: ("GPU_IS_LOST", "a restart of the machine, then its power supply, riser and `dmesg | grep Xid`"),
    16: ("RESET_REQUIRED", "`nvidia-smi --gpu-reset` or a restart of the machine"),
    17: ("OPERATING_SYSTEM", "the container's or sandbox's device rules: /dev/nvidiactl must be open to it"),
    18: ("LIB_RM_VERSION_MISMATCH", "a restart of the machine: library and kernel module differ after an upgrade"),
    21: ("NO_DATA", "again in a moment"),
    23: ("INSUFFICIENT_RESOURCES", "again with fewer programs on the GPU"),
    27: ("NOT_READY", "again in a moment"),
    999: ("UNKNOWN", "again; if it stays, a restart of the driver and `dmesg | grep NVRM`"),
}
ABSENT = {"NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "INVALID_ARGUMENT"}  # this device or driver has no such function
PASSING = {"UNKNOWN", "TIMEOUT", "NO_DATA", "NOT_READY", "INSUFFICIENT_RESOURCES"}  # the next read may succeed


class NvmlFault(MeterError):
    """An error code of NVML. what: the value that was asked for. fault: the code's name without NVML_ERROR_."""

    def __init__(self, what: str, code: int) -> None:
        self.fault, hint = FAULTS.get(code, (f"error {code}", "the list of nvmlReturn_t in NVIDIA's NVML manual"))
        super().__init__(f"{what} from NVML", self.fault, hint)


class Library:
    """NVML, initialised.

    bindings: an object with NVML's functions under their own names, which raise `bindings.NVMLError` with a `value`.
    None takes the module pynvml of the package nvidia-ml-py. Raises NvmlFault where NVML or the driver is missing,
    MeterError where the package is missing.
    """

    def __init__(self, bindings: Any = None) -> None:
        if bindings is None:
            try:
                import pynvml
            except ImportError as error:
                hint = "`pip install nvidia-ml-py`, or another meter"
                raise MeterError("the Python package nvidia-ml-py", "none installed", hint) from error
            bindings = pynvml
        self.bindings = bindings
        self._open = False
        self.ask("initialisation", "nvmlInit")
        self._open = True

    def ask(self, what: str, function: str, *arguments: object) -> Any:
        """Call a function of NVML; `what` names the result in messages. Raises NvmlFault."""
        call: Callable[..., Any] | None = getattr(self.bindings, function, None)
        if call is None:  # bindings older than the function
            raise NvmlFault(what, 13)
        try:
            return call(*arguments)
        except self.bindings.NVMLError as error:
            raise NvmlFault(what, error.value) from error

    def close(self) -> None:
        """Shut NVML down. A second call has no effect."""
        if self._open:
            self._open = False
            self.ask("shutdown", "nvmlShutdown")

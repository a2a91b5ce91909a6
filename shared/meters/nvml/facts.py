"""State of an NVIDIA GPU for the record: driver, clocks, temperature, power limit and throttle reasons."""

from __future__ import annotations

from shared.meters.nvml.devices import Device
from shared.meters.nvml.library import ABSENT, PASSING, NvmlFault

GRAPHICS_CELSIUS = 0  # nvmlTemperatureSensors_t
SM_CLOCK, MEMORY_CLOCK = 1, 2  # nvmlClockType_t
CHOSEN = {
    0x1: "idle",
    0x2: "application clocks",
    0x100: "display clocks",
}  # no throttling
THROTTLES = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


def event_reasons(device: Device) -> int:
    """What limits the clocks now, as bits of nvmlClocksEventReasons; 0 where the GPU does not report it.

    Drivers before 535 call them throttle reasons. Raises NvmlFault.
    """
    calls = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    for call in calls:
        try:
            return int(device.ask("the clocks' reasons", call))
        except NvmlFault as fault:
            if fault.fault not in ABSENT:
                raise
    return 0


def bit_names(bits: int, names: dict[int, str]) -> list[str]:
    """Names of the set bits."""
    return [name for bit, name in names.items() if bits & bit]


def state(device: Device) -> dict[str, object]:
    """Driver, clocks, temperature, power limit and reasons now; without those that the GPU does not report."""
    library, values = device.library, dict[str, object]()
    for key, read in {
        "driver": lambda: library.ask("the driver's version", "nvmlSystemGetDriverVersion"),
        "sm_clock_mhz": lambda: device.ask("the clock", "nvmlDeviceGetClockInfo", SM_CLOCK),
        "memory_clock_mhz": lambda: device.ask("the memory's clock", "nvmlDeviceGetClockInfo", MEMORY_CLOCK),
        "celsius": lambda: device.ask("the temperature", "nvmlDeviceGetTemperature", GRAPHICS_CELSIUS),
        "power_limit_watts": lambda: device.ask("the power limit", "nvmlDeviceGetEnforcedPowerLimit") / 1e3,
        "clocks_event_reasons": lambda: bit_names(event_reasons(device), CHOSEN | THROTTLES),
    }.items():
        try:
            values[key] = read()
        except NvmlFault as fault:
            if fault.fault not in ABSENT | PASSING | {"NO_PERMISSION"}:
                raise
    return values

"""The INA3221's registers, read over I2C where no driver shows the rail in sysfs. Nothing is ever written to the chip:
a bound driver keeps its own copy of the configuration."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Protocol

from shared.board.runner import PASSING
from shared.meters.ina3221 import Rail
from shared.meters.jetson_rails import BUS_STEP_V, SHUNT_STEP_V, KnownRail, known_rail, known_rails
from shared.meters.meter import MeterError
from shared.meters.sampling import DroppedSample

# Register 0x0F is left alone: reading it clears the flag that the driver waits for.
CONFIG, MANUFACTURER, DIE = 0x00, 0xFE, 0xFF
IDS = {MANUFACTURER: 0x5449, DIE: 0x3220}
CONVERSION_S = tuple(micros * 1e-6 for micros in (140, 204, 332, 588, 1100, 2116, 4156, 8244))
AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
CONTINUOUS = 7  # mode: shunt and bus voltage of the enabled channels, over and over


class Bus(Protocol):
    """What is used of smbus2.SMBus: words come little-endian, as SMBus has them."""

    def read_word_data(self, i2c_addr: int, register: int, force: bool | None = None) -> int:
        """The 16 bits of a register."""


def shunt_register(channel: int) -> int:
    """The register of a channel's shunt voltage; channels 1 to 3."""
    return 2 * channel - 1


def bus_register(channel: int) -> int:
    """The register of a channel's bus voltage; channels 1 to 3."""
    return 2 * channel


def swapped(word: int) -> int:
    """The chip sends the high byte first, SMBus expects it last."""
    return (word & 0xFF) << 8 | word >> 8


def steps(register: int) -> int:
    """The signed number in bits 15 to 3 of a measurement register, two's complement."""
    return (register - 0x10000 if register & 0x8000 else register) >> 3


def cycle_s(config: int) -> float:
    """Seconds that the chip takes to convert all enabled channels once."""
    enabled = (config >> 12 & 7).bit_count()
    conversions = CONVERSION_S[config >> 6 & 7] + CONVERSION_S[config >> 3 & 7]
    return enabled * conversions * AVERAGES[config >> 9 & 7]


class I2CRail(Rail):
    """A rail of a known board by its chip's registers.

    bus: opened by `open_bus`. force: needed while a driver is bound to the chip. Raises MeterError for a label that the
    data file doesn't hold, a chip that doesn't answer or isn't an INA3221, and a channel that isn't converting.
    """

    def __init__(self, label: str, bus: Bus, *, force: bool = False) -> None:
        self.known, self.bus, self.force, self.label = _known(label), bus, force, label
        self.shunt_ohms = self.known.shunt_ohms
        for register, expected in IDS.items():
            found = self._read(register)
            if found != expected:
                where = f"{found:#06x} in register {register:#04x} at address {self.known.address:#04x}"
                raise MeterError(f"an INA3221 ({expected:#06x})", where, "the bus of this board (i2cdetect -l)")
        self.config = self._read(CONFIG)
        if not self.config >> (15 - self.known.channel) & 1 or self.config & 7 != CONTINUOUS:
            got = f"configuration {self.config:#06x}"
            raise MeterError(f"channel {self.known.channel} to convert continuously", got, "the kernel's driver")

    def watts(self) -> float:
        """See Rail."""
        amperes = steps(self._read(shunt_register(self.known.channel))) * SHUNT_STEP_V / self.known.shunt_ohms
        return self.volts() * amperes

    def volts(self) -> float:
        """See Rail."""
        return steps(self._read(bus_register(self.known.channel))) * BUS_STEP_V

    def facts(self) -> dict[str, object]:
        """See Rail."""
        where = f"address {self.known.address:#04x} channel {self.known.channel}"
        return {"access": f"I2C ({where})", "config": f"{self.config:#06x}", "cycle_s": cycle_s(self.config)}

    def _read(self, register: int) -> int:
        try:
            return swapped(self.bus.read_word_data(self.known.address, register, force=self.force))
        except OSError as error:
            expected = f"an answer at I2C address {self.known.address:#04x}"
            if error.errno == errno.EBUSY:
                raise MeterError(expected, error, "force=True, as a driver is bound") from error
            kind = DroppedSample if error.errno in PASSING else MeterError
            raise kind(expected, error, "the bus of this board (i2cdetect -l)") from error


def open_bus(number: int, *, device_folder: Path = Path("/dev")) -> Bus:
    """The I2C bus /dev/i2c-`number`. Raises MeterError when smbus2 is missing or the bus can't be opened."""
    try:
        from smbus2 import SMBus
    except ImportError as error:
        raise MeterError("the package smbus2", "none installed", "pip install smbus2") from error
    path = device_folder / f"i2c-{number}"
    try:
        return SMBus(str(path))
    except OSError as error:
        hint = "sudo, or membership in the group i2c" if isinstance(error, PermissionError) else "modprobe i2c-dev"
        raise MeterError(f"an I2C bus at {path}", error.strerror, hint) from error


def _known(label: str) -> KnownRail:
    rail = known_rail(label)
    if rail is None:
        labels = ", ".join(rail.labels[0] for rail in known_rails())
        raise MeterError("a rail whose address and shunt are known", label, f"one of {labels}, or sysfs")
    return rail

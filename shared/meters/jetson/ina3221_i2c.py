"""Reads the INA3221's registers over I2C, for rails that no driver shows in sysfs.

Nothing is ever written to the chip: a driver that is bound to it keeps a copy of the configuration, which would go
stale.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Protocol

from shared.board.runner import PASSING
from shared.meters.jetson.ina3221 import Rail
from shared.meters.jetson.rails import BUS_STEP_V, SHUNT_STEP_V, listed_rail, listed_rails
from shared.meters.meter import DroppedSample, MeterError

# Register 0x0F (mask/enable) is never read: reading clears the conversion-ready flag that the driver waits for.
# Channel n has its shunt voltage in register 2n - 1 and its bus voltage in register 2n.
CONFIG, MANUFACTURER, DIE = 0x00, 0xFE, 0xFF
IDS = {MANUFACTURER: 0x5449, DIE: 0x3220}
CONVERSION_S = tuple(micros * 1e-6 for micros in (140, 204, 332, 588, 1100, 2116, 4156, 8244))
AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
CONTINUOUS = 7  # mode: converts shunt and bus voltage of the enabled channels continuously


class Bus(Protocol):
    """The part of smbus2.SMBus that is used here. Words are little-endian, as in SMBus."""

    def read_word_data(self, i2c_addr: int, register: int, force: bool | None = None) -> int:
        """The 16 bits of a register, low byte first."""


def steps(register: int) -> int:
    """The number of steps in a measurement register: bits 15 to 3, two's complement. Example: 0xFFF8 gives -1."""
    return (register - 0x10000 if register & 0x8000 else register) >> 3


def cycle_s(config: int) -> float:
    """Seconds for one conversion of all enabled channels, by the configuration register."""
    enabled = (config >> 12 & 7).bit_count()
    conversions = CONVERSION_S[config >> 6 & 7] + CONVERSION_S[config >> 3 & 7]
    return enabled * conversions * AVERAGES[config >> 9 & 7]


class I2CRail(Rail):
    """A rail of a board in jetson_rails.toml, read from its chip's registers.

    bus: from `open_bus`. force: needed while a driver is bound to the chip. Raises MeterError for a label that the file
    does not list, a chip that does not answer or is no INA3221, and a channel that is not converting continuously.
    """

    def __init__(self, label: str, bus: Bus, *, force: bool = False) -> None:
        rail = listed_rail(label)
        if rail is None:
            labels = ", ".join(rail.labels[0] for rail in listed_rails())
            raise MeterError("a rail listed in jetson_rails.toml", label, f"one of {labels}, or sysfs")
        self.rail, self.bus, self.force, self.label = rail, bus, force, label
        self.shunt_ohms = rail.shunt_ohms
        for register, expected in IDS.items():
            chip_id = self._read(register)
            if chip_id != expected:
                where = f"{chip_id:#06x} in register {register:#04x} at address {self.rail.address:#04x}"
                raise MeterError(f"an INA3221 ({expected:#06x})", where, "the bus of this board (i2cdetect -l)")
        self.config = self._read(CONFIG)
        # bits 14 to 12 enable channels 1 to 3
        if not self.config >> (15 - self.rail.channel) & 1 or self.config & 7 != CONTINUOUS:
            got = f"configuration {self.config:#06x}"
            raise MeterError(f"channel {self.rail.channel} to convert continuously", got, "the kernel's driver")

    def watts(self) -> float:
        """See Rail."""
        amperes = steps(self._read(2 * self.rail.channel - 1)) * SHUNT_STEP_V / self.rail.shunt_ohms
        return self.volts() * amperes

    def volts(self) -> float:
        """See Rail."""
        return steps(self._read(2 * self.rail.channel)) * BUS_STEP_V

    def facts(self) -> dict[str, object]:
        """See Rail."""
        where = f"address {self.rail.address:#04x} channel {self.rail.channel}"
        return {"access": f"I2C ({where})", "config": f"{self.config:#06x}", "cycle_s": cycle_s(self.config)}

    def _read(self, register: int) -> int:
        try:
            word = self.bus.read_word_data(self.rail.address, register, force=self.force)
        except OSError as error:
            expected = f"an answer at I2C address {self.rail.address:#04x}"
            if error.errno == errno.EBUSY:
                raise MeterError(expected, error, "force=True, as a driver is bound") from error
            kind = DroppedSample if error.errno in PASSING else MeterError
            raise kind(expected, error, "the bus of this board (i2cdetect -l)") from error
        return int.from_bytes(word.to_bytes(2, "little"), "big")  # the chip sends the high byte first, SMBus the low


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

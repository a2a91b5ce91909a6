"""Registers of an INA3221 in memory: what is written as volts and amperes is read back to within a step."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.meters import DroppedSample, MeterError
from shared.meters.jetson.ina3221 import INA3221Meter
from shared.meters.jetson.ina3221_i2c import I2CRail, cycle_s, open_bus, steps
from tests.shared.meters.simulated import SimulatedClock

RESET = 0x7127
ADDRESS = 0x41  # VDD_IN is its channel 1, VDD_SYS_CPU channel 2


class MemoryBus:
    """A bus with one chip, whose registers hold what the chip has after a reset; words as SMBus orders them."""

    def __init__(self) -> None:
        self.registers = {0x00: RESET, 0xFE: 0x5449, 0xFF: 0x3220} | dict.fromkeys(range(1, 7), 0)
        self.reads: list[tuple[int, bool | None]] = []
        self.failure: OSError | None = None

    def read_word_data(self, i2c_addr: int, register: int, force: bool | None = None) -> int:
        if self.failure is not None:
            raise self.failure
        if i2c_addr != ADDRESS:
            raise OSError(errno.ENXIO, "No such device or address")
        self.reads.append((register, force))
        return int.from_bytes(self.registers[register].to_bytes(2, "big"), "little")

    def hold(self, channel: int, volts: float, amperes: float, ohms: float) -> None:
        """Convert as the chip does: whole steps, rounded to the nearest, in bits 15 to 3, two's complement."""
        shunt, bus = round(amperes * ohms / 40e-6), round(volts / 8e-3)
        self.registers[2 * channel - 1] = int.from_bytes((shunt * 8).to_bytes(2, "big", signed=True), "big")
        self.registers[2 * channel] = int.from_bytes((bus * 8).to_bytes(2, "big", signed=True), "big")


@given(
    label=st.sampled_from([("VDD_IN", 1, 0.005), ("VDD_SYS_CPU", 2, 0.010), ("VDD_5V0_DDR", 3, 0.010)]),
    volts=st.floats(0, 32.7),
    shunt_volts=st.floats(-0.1638, 0.1638),
)
def test_volts_and_amperes_come_back_to_within_a_step(
    label: tuple[str, int, float], volts: float, shunt_volts: float
) -> None:
    name, channel, ohms = label
    bus, amperes = MemoryBus(), shunt_volts / ohms
    bus.hold(channel, volts, amperes, ohms)
    rail = I2CRail(name, bus)
    assert rail.volts() == pytest.approx(volts, abs=0.0041)
    half_volt, half_ampere = 0.004, 20e-6 / ohms
    most = half_volt * abs(amperes) + half_ampere * volts + half_volt * half_ampere
    assert rail.watts() == pytest.approx(volts * amperes, abs=most + 1e-9)


def test_the_worked_words_of_the_data_sheet() -> None:
    """-80 mV is 0xC180 and 80 mV 0x3E80 in steps of 40 uV; 0x7FF8 is full scale."""
    assert steps(0xC180) == -2000 and steps(0x3E80) == 2000
    assert steps(0x7FF8) * 40e-6 == pytest.approx(0.1638) and steps(0x7FF8) * 8e-3 == pytest.approx(32.76)
    assert steps(0xFFF8) == -1


def test_the_cycle_at_reset_and_with_averages() -> None:
    assert cycle_s(RESET) == pytest.approx(6.6e-3)
    assert cycle_s(0x4127) == pytest.approx(2.2e-3)  # one channel
    assert cycle_s(0x7127 | 0b011 << 9) == pytest.approx(64 * 6.6e-3)
    assert cycle_s(0x7007) == pytest.approx(3 * 280e-6)
    assert cycle_s(0x71C7) == pytest.approx(3 * (8244e-6 + 140e-6))  # bus voltage slowest, shunt voltage fastest


def test_a_meter_on_registers_reads_nothing_else_and_forces_where_told() -> None:
    bus, clock = MemoryBus(), SimulatedClock()
    bus.hold(1, 19.0, 0.4, 0.005)
    meter = INA3221Meter(I2CRail("VDD_IN", bus, force=True), period_s=0.1, clock=clock)
    meter.start()
    clock.sleep(1)
    window = meter.stop()
    assert window.amount == pytest.approx(7.6) and window.quantum == pytest.approx(19 * 8e-3 + 8e-3 * 0.4)
    assert {register for register, _ in bus.reads} == {0x00, 0xFE, 0xFF, 1, 2}
    assert all(force for _, force in bus.reads)
    facts = meter.facts()
    assert facts["config"] == "0x7127" and facts["cycle_s"] == pytest.approx(6.6e-3)
    assert facts["access"] == "I2C (address 0x41 channel 1)"


def test_other_chips_and_idle_channels_are_refused() -> None:
    bus = MemoryBus()
    bus.registers[0xFF] = 0x2260
    with pytest.raises(MeterError, match=r"an INA3221 \(0x3220\), got 0x2260 in register 0xff at address 0x41"):
        I2CRail("VDD_IN", bus)
    for config, label in ((0x3127, "VDD_IN"), (0x5127, "VDD_SYS_CPU"), (0x6127, "VDD_SYS_DDR"), (0x7120, "VDD_IN")):
        bus = MemoryBus()
        bus.registers[0] = config
        with pytest.raises(MeterError, match=f"convert continuously, got configuration {config:#06x}"):
            I2CRail(label, bus)
    bus.registers[0] = 0x4127
    I2CRail("VDD_IN", bus)


@pytest.mark.parametrize(
    ("number", "kind", "hint"),
    [
        (errno.EBUSY, MeterError, "force=True"),
        (errno.ENXIO, MeterError, "i2cdetect"),
        (errno.EIO, DroppedSample, "EIO|fails"),
    ],
)
def test_a_bus_that_fails(number: int, kind: type[MeterError], hint: str) -> None:
    bus = MemoryBus()
    rail = I2CRail("VDD_IN", bus)
    bus.failure = OSError(number, "fails")
    with pytest.raises(MeterError, match=hint) as caught:
        rail.watts()
    assert type(caught.value) is kind


def test_unknown_labels_and_missing_buses_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MeterError, match=r"got VDD_CV; try one of VDD_SYS_GPU, .*, or sysfs"):
        I2CRail("VDD_CV", MemoryBus())
    monkeypatch.setitem(sys.modules, "smbus2", None)
    with pytest.raises(MeterError, match="pip install smbus2"):
        open_bus(0, device_folder=tmp_path)


def test_a_bus_is_opened_through_smbus2(tmp_path: Path) -> None:
    pytest.importorskip("smbus2")
    with pytest.raises(MeterError, match=r"I2C bus at .*i2c-7, got No such file or directory; try modprobe i2c-dev"):
        open_bus(7, device_folder=tmp_path)

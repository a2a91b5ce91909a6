"""Meters: what answers for the joules and the seconds of real hardware, and of hardware that is played."""

from shared.meters.clock import ClockMeter
from shared.meters.lock import device_lock
from shared.meters.measuring import measure, measure_all
from shared.meters.meter import Meter, MeterError, Window
from shared.meters.rapl import RaplMeter
from shared.meters.reading import Reading
from shared.meters.replay import ReplayMeter
from shared.meters.sampling import DroppedSample, SampledMeter
from shared.meters.settings import FULL, SHORT, Settings
from shared.meters.simulated import GTX_1080_TI, TX2_VDD_IN, Sensor, SimulatedMeter, SteppedPower
from shared.meters.timing import Clock, MachineClock, SimulatedClock

__all__ = [
    "FULL",
    "GTX_1080_TI",
    "SHORT",
    "TX2_VDD_IN",
    "Clock",
    "ClockMeter",
    "DroppedSample",
    "MachineClock",
    "Meter",
    "MeterError",
    "RaplMeter",
    "Reading",
    "ReplayMeter",
    "SampledMeter",
    "Sensor",
    "Settings",
    "SimulatedClock",
    "SimulatedMeter",
    "SteppedPower",
    "Window",
    "device_lock",
    "measure",
    "measure_all",
]

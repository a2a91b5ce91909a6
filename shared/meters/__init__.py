"""Meters read the joules or the seconds that work takes on real hardware; a recording may stand in for it."""

from shared.meters.clock import ClockMeter
from shared.meters.lock import device_lock
from shared.meters.measuring import measure_all
from shared.meters.meter import DroppedSample, Meter, MeterError, Window
from shared.meters.rapl import RaplMeter
from shared.meters.reading import Reading
from shared.meters.replay import ReplayMeter
from shared.meters.sampling import SampledMeter
from shared.meters.settings import FULL, SHORT, Settings
from shared.meters.timing import Clock

__all__ = [
    "FULL",
    "SHORT",
    "Clock",
    "ClockMeter",
    "DroppedSample",
    "Meter",
    "MeterError",
    "RaplMeter",
    "Reading",
    "ReplayMeter",
    "SampledMeter",
    "Settings",
    "Window",
    "device_lock",
    "measure_all",
]

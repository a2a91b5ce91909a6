"""Meters: what answers for the joules and the seconds of real hardware, and of hardware that is played."""

from shared.meters.meter import Meter, MeterError, Window
from shared.meters.timing import Clock, MachineClock, SimulatedClock

__all__ = ["Clock", "MachineClock", "Meter", "MeterError", "SimulatedClock", "Window"]

"""Hardware platforms, what is asked for joules and seconds: simulated ones and those of this machine."""

from shared.platforms.choosing import Platform, choose, devices
from shared.platforms.measured import Hardware, MeasuredPlatform, Subject
from shared.platforms.simulated import SimulatedPlatform, get, names

__all__ = [
    "Hardware",
    "MeasuredPlatform",
    "Platform",
    "SimulatedPlatform",
    "Subject",
    "choose",
    "devices",
    "get",
    "names",
]

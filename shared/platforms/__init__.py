"""Hardware platforms, what is asked for joules and seconds: simulated ones and those of this machine."""

from shared.platforms.choosing import choose, devices
from shared.platforms.counted import CountedPlatform
from shared.platforms.hardware import Hardware
from shared.platforms.measured import MeasuredPlatform
from shared.platforms.platform import Platform, PlatformReading, Subject
from shared.platforms.simulated import SimulatedPlatform, get, names, profile

__all__ = [
    "CountedPlatform",
    "Hardware",
    "MeasuredPlatform",
    "Platform",
    "PlatformReading",
    "SimulatedPlatform",
    "Subject",
    "choose",
    "devices",
    "get",
    "names",
    "profile",
]

"""Hardware platforms, what is asked for joules and seconds: simulated ones and those of this machine."""

from shared.platforms.choosing import choose, devices
from shared.platforms.counted import MacsPlatform, SizePlatform
from shared.platforms.eyeriss import EyerissPlatform
from shared.platforms.hardware import Hardware
from shared.platforms.measured import MeasuredPlatform
from shared.platforms.platform import Breakdown, ExactPlatform, Platform, PlatformReading, Subject
from shared.platforms.simulated import SimulatedPlatform, get, names, profile

__all__ = [
    "Breakdown",
    "ExactPlatform",
    "EyerissPlatform",
    "Hardware",
    "MacsPlatform",
    "MeasuredPlatform",
    "Platform",
    "PlatformReading",
    "SimulatedPlatform",
    "SizePlatform",
    "Subject",
    "choose",
    "devices",
    "get",
    "names",
    "profile",
]

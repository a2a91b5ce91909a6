"""The row-stationary chip Eyeriss as a simulated platform: joules from counts of accesses."""

from shared.platforms.eyeriss.platform import EyerissPlatform

__all__ = ["EyerissPlatform"]

"""Hardware platforms: what is asked for joules. Here the simulated ones, calibrated to published dense figures."""

from shared.platforms.platform import Reading, SimulatedPlatform, get, names

__all__ = ["Reading", "SimulatedPlatform", "get", "names"]

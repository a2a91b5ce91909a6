"""NetAdapt, adapted to energy, and with the settings of its own published code."""

from methods.netadapt.netadapt import NetAdapt, NetAdaptOriginal

__all__ = ["NetAdapt", "NetAdaptOriginal"]

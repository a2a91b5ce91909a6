"""NetAdapt, adapted to energy."""

from methods.netadapt.netadapt import NetAdapt

__all__ = ["NetAdapt"]

"""Network slimming (Liu et al., ICCV 2017), to an energy budget."""

from methods.slimming.slimming import Slimming

__all__ = ["Slimming"]

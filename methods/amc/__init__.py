"""AMC, He et al., ECCV 2018: widths by reinforcement learning."""

from methods.amc.amc import AMC
from methods.amc.env import PruningEnv

__all__ = ["AMC", "PruningEnv"]

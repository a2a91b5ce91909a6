"""Energy models: joules as a differentiable function of a network's widths, and the profiles they are fitted to."""

from shared.energy.bilinear import BilinearModel
from shared.energy.profiles import EnergyFit, Profile, fit, profile

__all__ = ["BilinearModel", "EnergyFit", "Profile", "fit", "profile"]

"""Energy models (joules or another amount as a function of a network's widths) and the profiles that they fit."""

from shared.energy.bilinear import BilinearModel
from shared.energy.local import LocalFit, local_fit, rows_near
from shared.energy.profiles import AmountUnit, EnergyFit, Profile, fit
from shared.energy.zeros import ZeroSavings

__all__ = [
    "AmountUnit",
    "BilinearModel",
    "EnergyFit",
    "LocalFit",
    "Profile",
    "ZeroSavings",
    "fit",
    "local_fit",
    "rows_near",
]

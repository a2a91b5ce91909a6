"""Energy models: joules of a network as a differentiable function of its widths."""

from shared.energy.bilinear import BilinearModel

__all__ = ["BilinearModel"]

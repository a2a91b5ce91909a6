"""The steps of ECC other than the proximal one: equations 9 to 12 and the projection of z, as pure functions.

Yang, Zhu, Liu, "ECC: Platform-Independent Energy-Constrained Deep Neural Network Compression via a Bilinear Regression
Model", CVPR 2019, section 3.3. All in float64 on the CPU: near 4,096 channels float32 is too coarse.
Vectors are (units,): widths s, numbers of channels phi, dual y, slope dE/ds. Energies are in the budget's unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-3  # section 3.3.3


def width_gradient(
    surplus: Tensor, dual: Tensor, slope: Tensor, excess: float, *, rho_1: float, rho_2: float
) -> Tensor:
    """The gradient of L1 + L2 with respect to s (equation 9) without its last term z * slope.

    surplus: phi - s, by how many channels a unit has more than its width allows. excess: E(s) - budget.

    L1's penalty is the paper's sum of squares. The published code squares the sum over units
    (github.com/hyang1990/energy_constrained_compression), which is not the L1 that Algorithm 2 minimises.
    """
    return rho_2 * max(excess, 0.0) * slope - rho_1 * surplus.clamp(min=0) - dual


def project_z(z: float, gradient: Tensor, slope: Tensor, movable: Tensor, epsilon: float = EPSILON) -> float:
    """The least z' >= max(z, 0) at which some movable unit has a gradient of at least epsilon (section 3.3.3).

    gradient: `width_gradient`. movable: bool, the units above their lower bound. Units whose slope is 0 can't lower the
    energy and are ignored. Raises ValueError when no unit remains.
    """
    useful = movable & (slope > 0)
    if not bool(useful.any()):
        raise ValueError("expected a movable unit whose width costs energy, got none; try a larger budget")
    return max(z, 0.0, float(((epsilon - gradient[useful]) / slope[useful]).min()))


def width_step(widths: Tensor, gradient: Tensor, movable: Tensor, beta: float) -> Tensor:
    """One step of length beta on s (equation 10), the gradient clamped to be non-negative (3.3.3), s at least 1.

    gradient: the whole one, `width_gradient` + z * slope. Since the model's coefficients are non-negative, E(s) can't
    rise.
    """
    return (widths - beta * torch.where(movable, gradient.clamp(min=0), 0.0)).clamp(min=1)


def dual_step(dual: Tensor, phi: Tensor, widths: Tensor, *, rho_1: float) -> Tensor:
    """[y + rho_1 (phi - s)]_+ (equation 11)."""
    return (dual + rho_1 * (phi - widths)).clamp(min=0)


def z_step(z: float, excess: float, *, rho_2: float) -> float:
    """[z + rho_2 (E(s) - budget)]_+ (equation 12)."""
    return max(z + rho_2 * excess, 0.0)

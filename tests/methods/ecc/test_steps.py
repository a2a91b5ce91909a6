"""Equations 10 to 12 against autograd on the augmented Lagrangian and a worked step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.ecc.steps import dual_step, project_z, width_gradient, width_step, z_step
from shared.energy import BilinearModel


def bilinear(intercept, coefficients, bounds):
    chain = tuple((i, i + 1) for i in range(len(bounds) - 1))
    return BilinearModel(
        torch.tensor(intercept).double(), torch.tensor(coefficients).double(), chain, tuple(map(float, bounds))
    )


@st.composite
def states(draw):
    units = draw(st.integers(1, 5))
    bounds = [3, *draw(st.lists(st.integers(2, 40), min_size=units, max_size=units)), 10]
    seed = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    model = bilinear(0.1, torch.rand(units + 1, generator=seed).tolist(), bounds)
    upper = torch.tensor(bounds[1:-1]).double()
    widths = 1 + (upper - 1) * torch.rand(units, generator=seed, dtype=torch.float64)
    kept = (upper * torch.rand(units, generator=seed)).ceil()
    dual = torch.rand(units, generator=seed).double() * draw(st.sampled_from([0.0, 1e-3, 10.0]))
    budget = draw(st.floats(0.05, 2.0))
    return model, bounds, widths, kept, dual, budget


def positions(widths, bounds):
    return torch.cat([widths.new_tensor([bounds[0]]), widths, widths.new_tensor([bounds[-1]])])


def test_worked_step():
    bounds = (2, 4, 5, 3)
    model = bilinear(0.01, [0.02, 0.05, 0.03], bounds)
    widths = kept = torch.tensor([4.0, 5.0]).double()
    dual = torch.tensor([2.0, 1.0]).double()
    energy = model(positions(widths, bounds)).item()
    slope = model.gradient(positions(widths, bounds))[1:-1]
    assert energy == pytest.approx(0.11)
    assert slope.tolist() == pytest.approx([0.0175, 0.016])

    gradient = width_gradient(kept - widths, dual, slope, energy - 0.06, rho_1=1.0, rho_2=10.0)
    assert gradient.tolist() == pytest.approx([-1.99125, -0.992])
    z = project_z(0.0, gradient, slope, widths > 1)
    assert z == pytest.approx(62.0625)
    whole = gradient + z * slope
    assert whole.tolist() == pytest.approx([-0.90515625, 0.001])

    widths = width_step(widths, whole, widths > 1, beta=3.0)
    assert widths.tolist() == pytest.approx([4.0, 4.997])
    energy = model(positions(widths, bounds)).item()
    assert energy == pytest.approx(0.109952)
    assert z_step(z, energy - 0.06, rho_2=10.0) == pytest.approx(62.56202)
    assert dual_step(dual, kept, widths, rho_1=1.0).tolist() == pytest.approx([2.0, 1.003])
    assert dual_step(dual, kept, widths.floor(), rho_1=1.0).tolist() == [2.0, 2.0]  # as the published code has it


@settings(max_examples=60, deadline=None)
@given(states(), st.floats(0, 5), st.floats(0, 20), st.floats(0, 50), st.floats(1e-3, 10))
def test_steps_follow_the_gradients_of_the_lagrangian(state, rho_1, rho_2, z, beta):
    """The s step (10) and both ascents (11), (12) against autograd on L1 + L2 as section 3.3 defines them."""
    model, bounds, widths, kept, dual, budget = state
    s = widths.clone().requires_grad_()
    y = dual.clone().requires_grad_()
    multiplier = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    energy = model(positions(s, bounds))
    l1 = rho_1 / 2 * (kept - s).clamp(min=0).square().sum() + (y * (kept - s)).sum()
    l2 = rho_2 / 2 * (energy - budget).clamp(min=0).square() + multiplier * (energy - budget)
    (l1 + l2).backward()

    slope = model.gradient(positions(widths, bounds))[1:-1]
    closed = width_gradient(kept - widths, dual, slope, energy.item() - budget, rho_1=rho_1, rho_2=rho_2) + z * slope
    torch.testing.assert_close(closed, s.grad, rtol=1e-9, atol=1e-10)
    movable = widths > (widths.min() if len(widths) > 1 else 1)  # the lowest one held, as a bound would
    descent = [
        max(width - beta * max(slope_of_all, 0.0), 1.0) if moves else width
        for width, slope_of_all, moves in zip(widths.tolist(), s.grad.tolist(), movable.tolist(), strict=True)
    ]
    assert width_step(widths, closed, movable, beta).tolist() == pytest.approx(descent, rel=1e-9)
    torch.testing.assert_close(
        dual_step(dual, kept, widths, rho_1=rho_1), (dual + rho_1 * y.grad).clamp(min=0), rtol=1e-12, atol=1e-12
    )
    ascent = max(z + rho_2 * multiplier.grad.item(), 0.0)
    assert z_step(z, energy.item() - budget, rho_2=rho_2) == pytest.approx(ascent, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(states(), st.floats(0, 50), st.floats(1e-3, 1e4))
def test_projected_z_makes_the_energy_fall(state, z, beta):
    model, bounds, widths, kept, dual, budget = state
    movable = widths > 1
    slope = model.gradient(positions(widths, bounds))[1:-1]
    energy = model(positions(widths, bounds)).item()
    gradient = width_gradient(kept - widths, dual, slope, energy - budget, rho_1=1.0, rho_2=10.0)
    projected = project_z(z, gradient, slope, movable)
    assert projected >= z
    whole = gradient + projected * slope
    assert whole[movable].max() >= 1e-3 * (1 - 1e-6)
    if projected > z:  # the least such z: any smaller one misses epsilon
        assert (gradient + projected * (1 - 1e-6) * slope)[movable].max() < 1e-3

    stepped = width_step(widths, whole, movable, beta)
    assert bool((stepped <= widths).all()) and bool((stepped >= 1).all())
    assert model(positions(stepped, bounds)).item() < energy


def test_without_a_movable_unit_there_is_no_z():
    with pytest.raises(ValueError, match="movable"):
        project_z(0.0, torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([False, True]))

"""Computes the parts of the energy-model study, each on one network and one simulated platform."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.studies.energy_models.mlp import MlpModel, train
from bench.studies.energy_models.plan import Part, Plan
from bench.studies.energy_models.stress import Climb, multiplier_widths, random_widths, worst_case
from methods.netadapt.readings import table_from_platform
from shared import networks, platforms
from shared.energy import BilinearModel, Profile
from shared.energy.terms import terms
from shared.networks import Structure
from shared.platforms import SimulatedPlatform
from shared.rng import numpy_generator

LOGGED = 40  # number of iterations in an error curve
OVER = 0.02  # a network counts as over when its joules are this much above its estimate
SUBSETS = 10  # most disjoint training sets of one size, over which an error is averaged
NARROW, WIDE = 0.05, 0.95  # shares of the dense width up to and from which a unit counts as narrow or wide


@dataclass(frozen=True, eq=False)
class Ground:
    """A network on a platform with its profile, split into training and held-out rows as in a run."""

    structure: Structure
    platform: SimulatedPlatform
    profile: Profile
    batch: int

    @property
    def cut(self) -> int:
        """The number of training rows; the held-out rows follow them."""
        return len(self.profile.amounts) - self.profile.test_samples

    @property
    def positions(self) -> NDArray[np.float64]:
        return self.structure.positions(self.profile.widths).numpy()

    def error(self, estimates: NDArray[np.float64] | float) -> float:
        """Mean |estimate - reading| / reading of the held-out rows."""
        held_out = self.profile.amounts[self.cut :]
        return float(np.mean(np.abs(estimates - held_out) / held_out))

    def true_joules(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.platform.true_joules(self.structure.operations, positions, self.batch)

    def fit(self, kind: str, rows: slice) -> BilinearModel:
        """The non-negative least-squares fit of `rows` of the profile."""
        return BilinearModel.fit(
            self.positions[rows],
            self.profile.amounts[rows],
            upper_bounds=self.structure.position_bounds,
            terms=terms(self.structure, kind),
        )


@cache
def ground(plan: Plan, network: str, platform: str) -> Ground:
    """The network, and its profile on the platform, which is read or taken from the cache."""
    with torch.device("meta"):
        structure = networks.structure(networks.build(network, num_classes=dict(plan.networks)[network]))
    chip = platforms.get(platform)
    profile = platforms.profile(chip, structure, plan.batch, samples=plan.samples, test_samples=plan.test_samples)
    return Ground(structure, chip, profile, plan.batch)


def compute(plan: Plan, part: Part) -> dict[str, Any]:
    """The figures of one part as JSON values, with the seconds that they took."""
    started = time.perf_counter()
    base = ground(plan, part.network, part.platform)
    figures = _STUDIES[part.study](plan, part, base)
    return figures | {"seconds": round(time.perf_counter() - started, 2)}


def _fit(plan: Plan, part: Part, base: Ground) -> dict[str, Any]:
    """Least squares on all training rows, and on fewer."""
    model = base.fit(part.kind, slice(base.cut))
    dense, ones = (base.structure.positions(w) for w in (base.structure.upper_bounds, [1] * len(base.structure.units)))
    sizes = {}
    for size in plan.sizes:
        if len(model.terms) < size <= base.cut:
            starts = [k * size for k in range(min(SUBSETS, base.cut // size))]
            models = [base.fit(part.kind, slice(start, start + size)) for start in starts]
            sizes[str(size)] = _short(np.mean([base.error(m(base.positions[base.cut :]).numpy()) for m in models]))
    return {
        "unknowns": len(model.terms) + 1,
        "error": _short(base.error(model(base.positions[base.cut :]).numpy())),
        "median_error": _short(base.error(float(np.median(base.profile.amounts[: base.cut])))),
        "dense_joules": _short(base.profile.dense_reading),
        "dense_estimate": _short(model(dense).item()),
        "ones_joules": _short(base.true_joules(ones[None].numpy())[0]),
        "ones_estimate": _short(model(ones).item()),
        "sizes": sizes,
    }


def _trained(plan: Plan, part: Part, base: Ground, rows: int, steps: int) -> dict[str, Any]:
    """The held-out error during training by Adam, at iterations with evenly spaced logarithms."""
    joules = base.profile.amounts[:rows]
    model = MlpModel(
        terms(base.structure, part.kind),
        base.structure.position_bounds,
        depth=part.depth,
        unit_joules=float(joules.mean()) if part.scaled else 1.0,
        seed=plan.seed,
    )
    held_out = base.positions[base.cut :]
    logged = set(np.unique(np.geomspace(1, steps, LOGGED).round().astype(int)).tolist())
    curve = []

    def watch(step: int) -> None:
        if step in logged:
            with torch.no_grad():
                curve.append([step, _short(base.error(model(held_out).double().numpy()))])

    train(model, base.positions[:rows], joules, steps=steps, weight_decay=part.decay, watch=watch)
    return {"rows": rows, "curve": curve}


def _adam(plan: Plan, part: Part, base: Ground) -> dict[str, Any]:
    return _trained(plan, part, base, base.cut, plan.adam_steps)


def _depth(plan: Plan, part: Part, base: Ground) -> dict[str, Any]:
    steps = plan.depth_steps if part.depth else plan.adam_steps  # the latter: cheap steps, slow convergence
    return _trained(plan, part, base, min(plan.depth_rows, base.cut), steps)


def _budget(plan: Plan, part: Part, base: Ground) -> dict[str, Any]:
    """Noise-free joules against estimates near one budget, for each kind of widths that has any near it."""
    model, structure = base.fit(part.kind, slice(base.cut)), base.structure
    budget_joules = part.fraction * base.profile.dense_reading
    draw = numpy_generator(plan.seed, part.name)
    sampled = {
        "multipliers": multiplier_widths(structure, model, budget_joules),
        "random": random_widths(structure, model, budget_joules, count=plan.near, generator=draw),
    }
    figures: dict[str, Any] = {"budget_joules": _short(budget_joules)}
    for name, widths in sampled.items():
        if len(widths):
            positions = structure.positions(widths).numpy()
            joules, estimates = base.true_joules(positions), model(positions).numpy()
            excess = joules / estimates - 1
            figures[name] = {
                "count": len(widths),
                "error": _short(np.mean(np.abs(estimates - joules) / joules)),
                "mean": _short(excess.mean()),
                "least": _short(excess.min()),
                "most": _short(excess.max()),
                "over": _short(np.mean(excess > OVER)),
            }
    climb = Climb(plan.climbers, plan.proposals, plan.rounds)
    worst = worst_case(structure, model, base.true_joules, budget_joules, climb, draw)
    if worst is not None:
        shares = worst.widths / np.array(structure.upper_bounds)
        figures["worst"] = {
            "excess": _short(worst.excess),
            "over_budget": _short(worst.joules / budget_joules - 1),
            "narrow": _short(np.mean(shares <= NARROW)),
            "wide": _short(np.mean(shares >= WIDE)),
            "widths": worst.widths.tolist(),
        }
    return figures


def _lookup(plan: Plan, part: Part, base: Ground) -> dict[str, Any]:
    """NetAdapt's table from readings of single operations: its sums, also times the training rows' best factor."""
    table = table_from_platform(base.platform, base.structure, plan.batch)
    sums, amounts = table(torch.from_numpy(base.positions)).numpy(), base.profile.amounts
    training, held_out = slice(base.cut), slice(base.cut, None)
    factor = float((sums[training] @ amounts[training]) / (sums[training] @ sums[training]))
    dense = table.energy(base.structure, base.structure.upper_bounds)
    return {
        "readings": table.size,
        "error": _short(base.error(sums[held_out])),
        "factor": _short(factor),
        "scaled_error": _short(base.error(factor * sums[held_out])),
        "dense_estimate": _short(dense),
        "dense_joules": _short(base.profile.dense_reading),
    }


def _short(value: float | np.floating[Any]) -> float:
    """Rounded to five significant digits; further ones are rounding errors of the arithmetic."""
    return float(f"{value:.5g}")


_STUDIES: dict[str, Callable[[Plan, Part, Ground], dict[str, Any]]] = {
    "fit": _fit,
    "adam": _adam,
    "depth": _depth,
    "budget": _budget,
    "lookup": _lookup,
}

"""Profiles, the joules (or seconds) of many width vectors on a platform, and the energy model fitted to one.

Yang, Zhu, Liu, CVPR 2019, section 4.2: 10,000 width vectors, each width uniform between 1 and its upper bound, 8,000 of
them to fit and 2,000 to judge. Neither depends on a run's seed; every method gets the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shared.energy.bilinear import BilinearModel
from shared.energy.terms import terms
from shared.networks import Structure
from shared.rng import numpy_generator

AmountUnit = Literal["J", "s", "MAC", "B"]  # joules, seconds, multiply-adds, bytes


@dataclass(frozen=True, eq=False)
class Profile:
    """Readings of one network on one platform. `key` is a hash of all that they depend on.

    widths: (samples, units) whole numbers; amounts: (samples,) per image at `batch`, in `unit`; dense_reading: of the
    dense network; noise: mean relative half width of the readings' intervals, None where readings have none.
    The last `test_samples` rows are for judging: rows are alike, so any cut is a random one.
    """

    widths: NDArray[np.int32]
    amounts: NDArray[np.float64]
    dense_reading: float
    test_samples: int
    batch: int
    unit: AmountUnit
    key: str
    noise: float | None = None


@dataclass(frozen=True)
class EnergyFit:
    """An energy model of `kind` with its errors on rows that the fit hasn't seen.

    relative_error: mean |estimate - reading| / reading. skill: that error over the error of always saying the training
    median, so 1 is worthless. dense_relative_error: estimate over reading of the dense network, minus 1.
    """

    kind: str
    model: BilinearModel
    relative_error: float
    skill: float
    dense_relative_error: float


def uniform_rows(structure: Structure, samples: int, seed: int) -> NDArray[np.int64]:
    """Width vectors (samples, units), each width uniform from 1 to its upper bound; fewer are the first of more."""
    bounds = np.array(structure.upper_bounds)
    return numpy_generator(seed, "profile").integers(1, bounds + 1, size=(samples, bounds.size))


def fit(profile: Profile, structure: Structure, kind: str) -> EnergyFit:
    """The model of `kind` (see shared.energy.terms) of the training rows, judged on the rest and at dense."""
    positions = structure.positions(profile.widths).numpy()
    cut = -profile.test_samples
    training, held_out = profile.amounts[:cut], profile.amounts[cut:]
    bounds, pairs = structure.position_bounds, terms(structure, kind)
    model = BilinearModel.fit(positions[:cut], training, upper_bounds=bounds, terms=pairs, unit=profile.unit)

    def error(estimate: NDArray[np.float64] | float) -> float:
        return float(np.mean(np.abs(estimate - held_out) / held_out))

    relative_error = error(model(positions[cut:]).numpy())
    dense = model(structure.position_bounds).item()
    return EnergyFit(
        kind,
        model,
        relative_error=relative_error,
        skill=relative_error / error(float(np.median(training))),
        dense_relative_error=dense / profile.dense_reading - 1,
    )

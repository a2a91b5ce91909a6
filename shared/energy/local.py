"""The energy model near a budget, judged and corrected by a local profile.

A profile draws every width uniformly, while networks within a budget are smaller: a fit's errors over the profile say
little about them. So each budget has a profile of its own, of networks of many shapes whose estimates lie near it. Half
of its readings give one factor, by which all coefficients of that budget's model are multiplied. The other half judges
the outcome. `bilinear` is the model of the ECC paper, which has no such correction; it is judged and stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from shared.energy.bilinear import BilinearModel
from shared.energy.profiles import Profile
from shared.errors import BadInput
from shared.networks import Structure
from shared.rng import numpy_generator

Rows = NDArray[np.int64]
SAMPLES = 2_000  # networks of a local profile at most, half of them to fit the factor and half to judge it
BAND = 0.1  # largest relative distance of their estimates from the budget
SPREAD = 0.8  # largest standard deviation of a network's log shares of the dense widths
SLOPE = 1.0  # largest difference of their mean between the middle and an end of the network
EXTREME = 0.3  # largest share of units that are at one channel or dense, in every second network
CHUNK, CHUNKS = 500, 40  # networks drawn at once, and at most how often
HALVINGS = 40
LEVEL = 0.95


@dataclass(frozen=True)
class LocalFit:
    """The energy model of a budget, with its errors (estimate / reading - 1) on readings that its factor hasn't seen.

    model: the global model times `factor`. error: mean absolute error. bias: mean error, with its 95 % interval over
    such networks (Student's t). most_optimistic: the least error. samples: how many networks judged it.
    """

    model: BilinearModel
    factor: float
    error: float
    bias: float
    bias_interval: tuple[float, float]
    most_optimistic: float
    samples: int


def rows_near(structure: Structure, model: BilinearModel, budget: float, samples: int = SAMPLES) -> Rows:
    """Width vectors (samples, units) of many shapes whose estimate is within BAND of the budget.

    They depend on the model and the budget alone, and fewer are the first of more. A network's shares of the dense
    widths are log-normal around a line over depth; some have units at one channel or dense. All shares are scaled by
    bisection, so that the estimate meets a target drawn from the band. Raises BadInput where networks near the budget
    are too rare to find.
    """
    draw = numpy_generator(0, "local profile")
    chunks: list[Rows] = []
    for _ in range(CHUNKS):
        rows = _drawn(structure, model, budget, draw)
        near = np.abs(model(structure.positions(rows)).numpy() / budget - 1) <= BAND
        chunks.append(rows[near])
        if sum(map(len, chunks)) >= samples:
            return np.concatenate(chunks)[:samples]
    got = f"{sum(map(len, chunks))} of {CHUNK * CHUNKS:,} drawn networks"
    raise BadInput(f"{samples} networks within {BAND:.0%} of {budget:.4g} {model.unit}", got, "another budget")


def _drawn(structure: Structure, model: BilinearModel, budget: float, draw: np.random.Generator) -> Rows:
    """CHUNK networks (CHUNK, units), scaled to estimates in the band where their shapes allow it."""
    bounds = np.array(structure.upper_bounds)
    shape, column = (CHUNK, bounds.size), (CHUNK, 1)
    line = draw.uniform(-SLOPE, SLOPE, column) * np.linspace(-1, 1, bounds.size)
    logs = line + draw.uniform(0, SPREAD, column) * draw.normal(size=shape)
    often = draw.uniform(0, EXTREME, column) * (draw.random(column) < 0.5)
    extreme, ends = draw.random(shape) < often, np.where(draw.random(shape) < 0.5, 1, bounds)
    targets = budget * draw.uniform(1 - BAND, 1 + BAND, CHUNK)

    def widths(scales: NDArray[np.float64]) -> Rows:
        scaled = np.rint(bounds * np.exp(np.minimum(logs + scales[:, None], 0)))
        return np.where(extreme, ends, np.maximum(1, scaled)).astype(np.int64)

    low, high = np.full(CHUNK, -20.0), np.full(CHUNK, 20.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        within = model(structure.positions(widths(middle))).numpy() <= targets
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    return widths(low)


def local_fit(model: BilinearModel, profile: Profile, structure: Structure, *, corrected: bool) -> LocalFit:
    """Fit the factor to the local profile's first rows and judge it by its last `test_samples`.

    The factor makes the mean of estimate / reading 1 on the rows that fit it; without `corrected` it is 1.
    """
    ratios = model(structure.positions(profile.widths)).numpy() / profile.amounts
    cut = len(ratios) - profile.test_samples
    factor = float(1 / ratios[:cut].mean()) if corrected else 1.0
    errors = factor * ratios[cut:] - 1
    bias, half = errors.mean(), scipy.stats.t.ppf((1 + LEVEL) / 2, errors.size - 1) * scipy.stats.sem(errors)
    return LocalFit(
        replace(model, intercept=factor * model.intercept, coefficients=factor * model.coefficients),
        factor,
        error=float(np.abs(errors).mean()),
        bias=float(bias),
        bias_interval=(float(bias - half), float(bias + half)),
        most_optimistic=float(errors.min()),
        samples=errors.size,
    )

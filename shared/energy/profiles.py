"""Profiles, the joules of many width vectors on a platform, and the energy model fitted to one.

Yang, Zhu, Liu, CVPR 2019, section 4.2: 10,000 width vectors, each width uniform between 1 and its upper bound, 8,000 of
them to fit and 2,000 to judge. Neither depends on a run's seed; every method gets the same.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.cache import atomic_write, cache_dir, content_key
from shared.energy.bilinear import BilinearModel
from shared.errors import BadInput
from shared.networks import Structure
from shared.platforms import SimulatedPlatform
from shared.rng import numpy_generator

DENSE_TRIALS = 10  # readings behind the dense joules, to which budgets and the dense error refer


@dataclass(frozen=True, eq=False)
class Profile:
    """Readings of one network on one platform. `key` is a hash of all that they depend on.

    widths: (samples, units) whole numbers; joules: (samples,) per image at `batch`; dense_joules: the dense network's.
    The last `test_samples` rows are for judging: rows are alike, so any cut is a random one.
    """

    widths: NDArray[np.int32]
    joules: NDArray[np.float64]
    dense_joules: float
    test_samples: int
    batch: int
    source: str
    key: str


@dataclass(frozen=True)
class EnergyFit:
    """An energy model with its errors on rows that the fit hasn't seen.

    relative_error: mean |estimate - reading| / reading. skill: that error over the error of always saying the training
    median, so 1 is worthless. dense_relative_error: estimate over reading of the dense network, minus 1.
    """

    model: BilinearModel
    relative_error: float
    skill: float
    dense_relative_error: float


def profile(
    platform: SimulatedPlatform,
    structure: Structure,
    batch: int,
    *,
    samples: int = 10_000,
    test_samples: int = 2_000,
    seed: int = 0,
) -> Profile:
    """Read `samples` uniform width vectors, or take them from the cache; a damaged cache file is made anew.

    Raises BadInput unless 0 < test_samples < samples.
    """
    if not 0 < test_samples < samples:
        raise BadInput(f"from 1 to {samples - 1} test samples out of {samples}", test_samples, "a fifth of all samples")
    what = (platform.name, platform.source, platform.calibration, structure.fingerprint, batch, samples, seed)
    key = content_key("profile", DENSE_TRIALS, *what)
    path = cache_dir() / "profiles" / f"{key}.npz"
    arrays = _read(path, samples, len(structure.units))
    if arrays is None:
        upper_bounds = np.array(structure.upper_bounds)
        widths = numpy_generator(seed, "profile").integers(1, upper_bounds + 1, size=(samples, upper_bounds.size))
        joules = platform.measure(structure.operations, structure.positions(widths), batch).joules
        dense = [structure.position_bounds]
        trials = [platform.measure(structure.operations, dense, batch, trial=k).joules for k in range(DENSE_TRIALS)]
        arrays = {"widths": widths.astype(np.int32), "joules": joules, "dense_joules": np.asarray(np.mean(trials))}
        buffer = io.BytesIO()
        np.savez(buffer, widths=arrays["widths"], joules=joules, dense_joules=arrays["dense_joules"])
        atomic_write(path, buffer.getvalue())
    return Profile(
        arrays["widths"],
        arrays["joules"],
        float(arrays["dense_joules"]),
        test_samples=test_samples,
        batch=batch,
        source=platform.source,
        key=key,
    )


def fit(profile: Profile, structure: Structure) -> EnergyFit:
    """The bilinear model of the profile's training rows, judged on the others and at the dense network."""
    positions = structure.positions(profile.widths).numpy()
    cut = -profile.test_samples
    training, held_out = profile.joules[:cut], profile.joules[cut:]
    model = BilinearModel.fit(positions[:cut], training, upper_bounds=structure.position_bounds)

    def error(estimate: NDArray[np.float64] | float) -> float:
        return float(np.mean(np.abs(estimate - held_out) / held_out))

    relative_error = error(model(positions[cut:]).numpy())
    dense = model(structure.position_bounds).item()
    return EnergyFit(
        model,
        relative_error=relative_error,
        skill=relative_error / error(float(np.median(training))),
        dense_relative_error=dense / profile.dense_joules - 1,
    )


def _read(path: Path, samples: int, units: int) -> dict[str, np.ndarray] | None:
    """The arrays of a cached profile; None when the file is missing, damaged or of other shapes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("widths", "joules", "dense_joules")}
    except Exception:  # damage shows as a dozen kinds of error, from a missing file to a false checksum
        return None
    shapes = {"widths": (samples, units), "joules": (samples,), "dense_joules": ()}
    sound = all(arrays[name].shape == shape for name, shape in shapes.items())
    return arrays if sound else None

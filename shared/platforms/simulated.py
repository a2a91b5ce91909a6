"""A simulated platform as the rest of the suite sees it: true joules, noisy counted readings, a batch to infer at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from shared.cache import atomic_write, cache_dir, content_key
from shared.energy import Profile
from shared.energy.profiles import uniform_rows
from shared.errors import BadInput
from shared.networks import Structure
from shared.networks.operations import Operation, priced
from shared.platforms import parameters
from shared.platforms.kernels import Array
from shared.platforms.noise import row_normals
from shared.platforms.platform import Breakdown, ExactPlatform, Rows, Subject
from shared.platforms.simulator import CAUSES, Simulation, by_operation, simulate

LARGEST_BATCH = 65_536
STILL_FALLING = 0.9  # what a doubled batch must at most multiply a figure by to count as lowering it
DENSE_TRIALS = 10  # readings behind the dense joules, to which budgets and the dense error refer


class SimulatedPlatform(ExactPlatform):
    """A chip that exists as a data file. Its joules are simulated: calibrated to six published dense figures, no more.

    unit: of what `measure` and `true` say, "J" or "s". instead_of: why the hardware that is here does not answer.
    `calibration` is a hash of all constants and the revision of the formulas; records carry it. `queries` counts the
    readings that `measure` has given.
    """

    source: Literal["simulated"] = "simulated"
    meter = "simulator"
    host = None

    def __init__(self, path: Path, unit: Literal["J", "s"] = "J", instead_of: str = "") -> None:
        self.name, self.unit, self.instead_of = path.stem, unit, instead_of
        self.parameters, self.entries = parameters.load(path)
        self.calibration = content_key(parameters.MODEL_REVISION, asdict(self.parameters))[:12]
        self.queries = 0

    def simulate(self, operations: Sequence[Operation], positions: ArrayLike, batch: int) -> Simulation:
        """Joules with their causes and seconds, per image and without noise, for each row of `positions` (n, p)."""
        if batch < 1:
            raise BadInput("a batch of 1 or more images", batch, "1")
        return simulate(tuple(operations), _checked_positions(positions), batch, self.parameters)

    def true(self, operations: Sequence[Operation], positions: ArrayLike, batch: int) -> Array:
        """Noise-free amounts per image (n,) in the platform's unit: for final scoring and tests, never for a method."""
        outcome = self.simulate(operations, positions, batch)
        return outcome.joules if self.unit == "J" else outcome.seconds

    def true_joules(self, operations: Sequence[Operation], positions: ArrayLike, batch: int) -> Array:
        """Noise-free joules per image (n,): for final scoring and tests, never for a method."""
        return self.simulate(operations, positions, batch).joules

    def measure(self, operations: Sequence[Operation], positions: ArrayLike, batch: int, *, trial: int = 0) -> Array:
        """One noisy reading per row of `positions` (n, p): amounts per image (n,), each counted in `queries`.

        A reading is the true value times 1 + sigma * a standard normal number, which stands for what differs from run
        to run (clocks, temperature, sensor). It depends on platform, operations, batch, widths and `trial` alone: the
        same trial reads the same again, and averaging over trials approaches the true value.
        """
        amounts = self.true(operations, positions, batch)
        seed = int(content_key("reading", self.name, _fingerprint(tuple(operations)), batch, trial), 16)
        factors = 1 + self.parameters.reading_noise * row_normals(seed, _checked_positions(positions))
        self.queries += amounts.size
        return amounts * factors

    def profile(
        self, subject: Subject, *, samples: int, test_samples: int, batch: int | None = None, may_read: bool = True
    ) -> Profile:
        """See `profile` below; a worker computes what the cache doesn't hold."""
        return profile(self, subject.structure, batch, samples=samples, test_samples=test_samples)

    def local_profile(
        self, subject: Subject, rows: Rows, estimates: Array, *, batch: int, standard: float, may_read: bool = True
    ) -> Profile:
        """Noisy readings of the first half of `rows`; the noise-free amounts of the other half, which judges."""
        operations, positions = subject.structure.operations, subject.structure.positions(rows).numpy()
        half = len(rows) // 2
        fitting = self.measure(operations, positions[:half], batch)
        judging = self.true(operations, positions[half:], batch)
        return Profile(
            rows.astype(np.int32),
            np.concatenate([fitting, judging]),
            standard,
            test_samples=len(judging),
            batch=batch,
            unit=self.unit,
            key=content_key("local profile", self.calibration, subject.structure.fingerprint, batch, rows.tolist()),
        )

    def amounts(self, subject: Subject, rows: Rows, batch: int) -> Array:
        """The noise-free amounts, which a simulation knows."""
        return self.true(subject.structure.operations, subject.structure.positions(rows).numpy(), batch)

    def breakdown(self, subject: Subject, rows: Rows, batch: int) -> Breakdown:
        """Joules by operation and cause, or seconds by operation, per image and without noise."""
        operations, positions = subject.structure.operations, subject.structure.positions(rows).numpy()
        joules, seconds = by_operation(operations, _checked_positions(positions), batch, self.parameters)
        names = tuple(operation.name for operation in operations)
        if self.unit == "s":
            return Breakdown(names, ("time",), seconds[:, :, None])
        return Breakdown(names, CAUSES, joules)

    def inference_batch(self, operations: Sequence[Operation], position_bounds: Sequence[int]) -> int:
        """The smallest power of two from which on doubling the batch lowers the all-ones share by less than a tenth.

        The share is what the network costs with every width at 1, over what it costs dense. Below that batch a tiny
        network costs little but kernel launches, dense or not, and a single doubling may leave the share where it is;
        so every later doubling counts too. `position_bounds` are the dense positions, ends included. Raises BadInput
        when the share or the dense joules per image still fall by that much at LARGEST_BATCH.
        """
        ones = [position_bounds[0], *(1 for _ in position_bounds[1:-1]), position_bounds[-1]]
        batches = [2**k for k in range(LARGEST_BATCH.bit_length() + 1)]
        joules = np.array([self.true_joules(operations, [ones, list(position_bounds)], batch) for batch in batches])
        dense, shares = joules[:, 1], joules[:, 0] / joules[:, 1]
        falling = np.flatnonzero(shares[1:] <= STILL_FALLING * shares[:-1])
        chosen = int(batches[falling[-1] + 1]) if falling.size else 1
        if chosen > LARGEST_BATCH or dense[-1] <= STILL_FALLING * dense[-2]:
            expected = f"a network whose launches stop counting by batch {LARGEST_BATCH}"
            raise BadInput(expected, f"an all-ones share of {shares[-1]:.3g} there", "larger inputs or widths")
        return chosen


def profile(
    platform: SimulatedPlatform,
    structure: Structure,
    batch: int | None,
    *,
    samples: int = 10_000,
    test_samples: int = 2_000,
    seed: int = 0,
) -> Profile:
    """Read `samples` uniform width vectors, or take them from the cache; a damaged cache file is made anew.

    batch: images per inference; the platform's choice when None, which the cache knows as well.
    Raises BadInput unless 0 < test_samples < samples.
    """
    if not 0 < test_samples < samples:
        raise BadInput(f"from 1 to {samples - 1} test samples out of {samples}", test_samples, "a fifth of all samples")
    what = (platform.name, platform.unit, platform.calibration, structure.fingerprint, batch, samples, seed)
    key = content_key("profile", DENSE_TRIALS, *what)
    path = cache_dir() / "profiles" / f"{key}.npz"
    arrays = _cached(path, samples, len(structure.units))
    if arrays is None:
        batch = batch or platform.inference_batch(structure.operations, structure.position_bounds)
        widths = uniform_rows(structure, samples, seed)
        dense = [structure.position_bounds]
        trials = [platform.measure(structure.operations, dense, batch, trial=k) for k in range(DENSE_TRIALS)]
        arrays = {
            "widths": widths.astype(np.int32),
            "amounts": platform.measure(structure.operations, structure.positions(widths), batch),
            "dense_reading": np.asarray(np.mean(trials)),
            "batch": np.asarray(batch),
        }
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its stub takes the first name for a flag
        atomic_write(path, buffer.getvalue())
    return Profile(
        arrays["widths"],
        arrays["amounts"],
        float(arrays["dense_reading"]),
        test_samples=test_samples,
        batch=int(arrays["batch"]),
        unit=platform.unit,
        key=key,
    )


def names() -> tuple[str, ...]:
    """The simulated platforms, one data file each."""
    return tuple(sorted(path.stem for path in parameters.FOLDER.glob("*.toml")))


def get(name: str, unit: Literal["J", "s"] = "J", instead_of: str = "") -> SimulatedPlatform:
    """A fresh platform with its own count of queries; raises BadInput for an unknown name."""
    if name not in names():
        raise BadInput("a simulated platform", repr(name), " or ".join(names()))
    return SimulatedPlatform(parameters.FOLDER / f"{name}.toml", unit, instead_of)


def _checked_positions(positions: ArrayLike) -> Array:
    rows = np.asarray(positions, dtype=np.float64)
    if rows.ndim != 2:
        raise BadInput("positions of shape (n, p)", tuple(rows.shape), "a row per width vector")
    whole = (rows >= 1) & (rows == np.floor(rows)) & np.isfinite(rows)
    if not bool(whole.all()):
        raise BadInput("whole numbers of channels, 1 or more", float(rows[~whole][0]), "rounding the widths first")
    return np.asfortranarray(rows)  # kernels read it by column


@lru_cache(maxsize=32)
def _fingerprint(operations: tuple[Operation, ...]) -> str:
    return content_key([priced(operation) for operation in operations])


def _cached(path: Path, samples: int, units: int) -> dict[str, np.ndarray] | None:
    """The arrays of a cached profile; None when the file is missing, damaged or of other shapes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("widths", "amounts", "dense_reading", "batch")}
    except Exception:  # damage shows as a dozen kinds of error, from a missing file to a false checksum
        return None
    shapes = {"widths": (samples, units), "amounts": (samples,), "dense_reading": (), "batch": ()}
    sound = all(arrays[name].shape == shape for name, shape in shapes.items())
    return arrays if sound else None

"""A profile on hardware: it saves as it goes, goes on where it stopped, and ends when more readings would not help.

About a hundred readings already fit the bilinear model of a network like MobileNet, and each takes seconds: so rows
are read in blocks until the held-out error has settled, at most as many as the protocol asks for.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from shared.cache import atomic_write, cache_dir, content_key
from shared.energy.bilinear import BilinearModel
from shared.energy.profiles import Profile, uniform_rows
from shared.meters import MeterError, Reading
from shared.networks import Structure
from shared.platforms import Hardware, Subject

STEP = 10  # rows from one held-out error to the next
FEWEST = 100  # rows
FOLDS = 5  # a fifth of the rows is held out, each in its turn
SETTLED_BLOCKS, SETTLED = 5, 0.05  # the error has settled when its last five values lie this close to their mean,
SMALL = 1e-3  # or are all below this
NOISY = 0.05  # mean relative half width of the readings' intervals from which a person is told
Say = Callable[[str], None]


class Progress(NamedTuple):
    """What is read so far: amounts (n,) as shares of the dense network's reading in the same turns, both ends of their
    intervals, and that reading for each block.
    """

    shares: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    dense: NDArray[np.float64]
    batch: int

    def added(self, dense: Reading, *readings: Reading) -> Progress:
        """With one more block."""
        held = [reading.held_against(dense, 1.0) for reading in readings]
        return Progress(
            np.append(self.shares, [share.amount for share in held]),
            np.append(self.low, [share.interval[0] for share in held]),
            np.append(self.high, [share.interval[1] for share in held]),
            np.append(self.dense, dense.amount),
            self.batch,
        )


def collect(
    platform: Hardware,
    subject: Subject,
    *,
    samples: int,
    batch: int | None = None,
    seed: int = 0,
    say: Say = lambda _: None,
    may_read: bool = True,
) -> Profile:
    """Read up to `samples` uniform width vectors, those of `profile` in its order, or take them from the cache.

    Amounts are held against the dense network's in the same turns, and told at its median over all blocks: a machine
    that slows or warms up does so for both.

    batch: images per inference, the platform's choice when None. The last fifth of the rows is for judging. Without
    `may_read` the cache has to hold all: a worker that computes on the device must not wait for itself. Raises
    MeterError when the sensor fails, or would have to be asked then; what is read by then is kept.
    """
    structure, block = subject.structure, platform.block
    what = (platform.name, platform.calibration, platform.short.name, structure.exact_fingerprint, seed)
    key = content_key("measured profile, held", block, FEWEST, *what, *([batch] if batch else []))
    path = cache_dir() / "profiles" / f"{key}.npz"
    rows = uniform_rows(structure, block * math.ceil(samples / block), seed)  # blocks are read whole
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # plans share a profile: who comes second waits, and finds it read
        known = _read(path, block)
        if known is None:
            _check(may_read)
            if batch is None:
                say("profile: looking for the inference batch")
            none = np.empty(0)
            known = Progress(none, none, none, none, batch or platform.inference_batch(subject))
        errors = [
            held_out_error(structure, rows[:n], known.shares[:n])
            for n in _ends(structure, min(samples, len(known.shares)))[-SETTLED_BLOCKS:]
        ]
        if len(known.shares):
            too = f" and measured-* in {platform.keeps.resolve()}" if platform.keeps else ""
            say(f"profile: {len(known.shares)} networks are in {path} already; delete it{too} to read anew")
        began_s, before = time.monotonic(), len(known.shares)
        while len(known.shares) < samples and not has_settled(errors):
            _check(may_read)
            n = len(known.shares)
            asked = [structure.upper_bounds, *map(tuple, rows[n : n + block])]
            known = known.added(*platform.read(subject, asked, known.batch, platform.short))
            _write(path, known)
            before_block, n = n, len(known.shares)
            ends = [end for end in _ends(structure, n) if end > before_block]
            errors += [held_out_error(structure, rows[:end], known.shares[:end]) for end in ends]
            each_s = (time.monotonic() - began_s) / (n - before)
            left_min = each_s * max(0, samples - n) / 60
            say(f"profile: {n} of at most {samples} networks read, {left_min:.0f} min for all of them")
    n = min(samples, len(known.shares))
    noise = float(np.mean((known.high - known.low)[:n] / 2 / known.shares[:n]))
    if n > before and noise > NOISY:
        say(f"profile: readings are known to {noise:.0%} only; is other work on this machine? Better read it idle")
    dense = float(np.median(known.dense[: math.ceil(n / block)]))
    amounts = dense * known.shares[:n]
    return Profile(
        rows[:n].astype(np.int32),
        amounts,
        dense,
        test_samples=n // FOLDS,
        batch=known.batch,
        unit=platform.unit,
        key=content_key(key, amounts.tolist()),
        noise=noise,
    )


def held_out_error(structure: Structure, rows: NDArray[np.int64], amounts: NDArray[np.float64]) -> float:
    """Mean |estimate - reading| / reading of the bilinear model, each fifth of the rows judged by the other four.

    amounts: in whatever unit.
    """
    positions = structure.positions(rows).numpy()
    fold = np.arange(len(rows)) % FOLDS
    errors = np.empty(len(rows))
    for held in range(FOLDS):
        out = fold == held
        model = BilinearModel.fit(positions[~out], amounts[~out], upper_bounds=structure.position_bounds)
        errors[out] = np.abs(model(positions[out]).numpy() / amounts[out] - 1)
    return float(errors.mean())


def has_settled(errors: list[float]) -> bool:
    """Whether the last held-out errors, one for each STEP from FEWEST rows on, are small or alike."""
    if len(errors) < SETTLED_BLOCKS:
        return False
    last = np.array(errors[-SETTLED_BLOCKS:])
    alike = np.abs(last - last.mean()).max() <= SETTLED * last.mean()
    return bool(alike or last.max() <= SMALL)


def _ends(structure: Structure, rows: int) -> range:
    """After how many rows the error is taken: from FEWEST on, or from enough for a fit on four fifths, every STEP."""
    unknowns = len(structure.position_bounds)
    fewest = max(FEWEST, 2 * STEP * math.ceil(unknowns * FOLDS / (FOLDS - 1) / STEP))
    return range(fewest, rows + 1, STEP)


def _check(may_read: bool) -> None:
    if not may_read:
        raise MeterError("a whole profile in the cache", "one with rows to read", "python -m bench profile first")


def _write(path: Path, known: Progress) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **known._asdict())
    atomic_write(path, buffer.getvalue())


def _read(path: Path, block: int) -> Progress | None:
    """What an earlier process has read; None when there is nothing, or damage."""
    try:
        with np.load(path, allow_pickle=False) as file:
            known = Progress(**{name: file[name] for name in Progress._fields})
    except Exception:  # damage shows as a dozen kinds of error, from a missing file to a false checksum
        return None
    sound = len(known.shares) == len(known.low) == len(known.high) == block * len(known.dense)
    return known._replace(batch=int(known.batch)) if sound else None

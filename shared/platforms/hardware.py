"""Platforms that are there: networks run on them while a meter reads.

A profile of hardware is saved as it goes, goes on where it stopped, and ends when more readings would not help. About a
hundred readings already fit the bilinear model of a network like MobileNet, and each takes seconds. So rows are read in
blocks until the held-out error has settled, at most as many as the protocol asks for.
"""

from __future__ import annotations

import io
import json
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared import locks
from shared.cache import atomic_write, cache_dir, content_key
from shared.energy import BilinearModel, Profile
from shared.energy.profiles import uniform_rows
from shared.meters import MeterError, Reading, Settings
from shared.networks import Structure
from shared.platforms.platform import Amounts, Effort, Platform, PlatformReading, Rows, Subject, Widths

STEP = 10  # rows from one held-out error to the next
FEWEST = 100  # rows
FEWEST_LOCAL, MOST_LOCAL = 40, 400  # rows of a local profile, which fit and judge one factor
FOLDS = 5  # a fifth of the rows is held out, each in its turn
SETTLED_BLOCKS, SETTLED = 5, 0.05  # the error has settled when its last five values lie this close to their mean,
SMALL = 1e-3  # or are all below this
SEED = 0  # of the rows, so that every plan reads the same ones
NOISY = 0.05  # mean relative half width of the readings' intervals from which a person is told
CLOSER = 4  # landing reads at most this many times as long as a profile does, for half the interval's width


class Hardware(Platform):
    """A platform that networks run on while a meter reads.

    full, short: settings of readings that count, and of a profile's.
    block: how many networks of a profile are best read at once.
    keeps: the folder of measurements that it asks no second time.
    """

    host: str
    readings_need_quiet = True
    channel_group = 8  # vector and matrix units work on so many channels at once; one fewer saves them nothing
    full: Settings
    short: Settings
    block: int = 10
    keeps: Path | None = None

    @abstractmethod
    def read(self, subject: Subject, widths: Sequence[Widths], batch: int, settings: Settings) -> list[Reading]:
        """One bare reading per image for each row of `widths`, taken in turns. Raises MeterError when the sensor
        fails.
        """

    @abstractmethod
    def inference_batch(self, subject: Subject) -> int:
        """How many images an inference takes at once."""

    def profile(
        self, subject: Subject, *, samples: int, test_samples: int, batch: int | None = None, may_read: bool = True
    ) -> Profile:
        """Up to `samples` uniform width vectors, those of each profile in its order, read or taken from the cache.

        Amounts are drift-corrected: ratios to the dense network's in the same turns, times its median over all blocks.
        `test_samples` does not count: the last fifth of the rows is for judging, and reading ends when the held-out
        error has settled. Without `may_read` the cache has to hold all: a worker that computes on the device must not
        wait for itself. Raises MeterError when the sensor fails, or would have to be asked then; what is read by then
        is kept.
        """
        structure, block = subject.structure, self.block
        key = content_key(
            "measured profile, held", block, FEWEST, *self._identity(structure), SEED, *([batch] if batch else [])
        )
        rows = uniform_rows(structure, block * math.ceil(samples / block), SEED)  # blocks are read whole
        unknowns = len(structure.position_bounds)
        enough = 2 * STEP * math.ceil(unknowns * FOLDS / (FOLDS - 1) / STEP)  # for a fit on four fifths
        series = Series(
            "profile", key, rows, samples, max(FEWEST, enough), lambda shares: held_out_error(structure, rows, shares)
        )
        known = self._gathered(subject, series, batch, may_read)
        n = min(samples, len(known.shares))
        dense = float(np.median(known.dense[: math.ceil(n / block)]))
        return self._profile(series, known, dense, n // FOLDS)

    def local_profile(
        self, subject: Subject, rows: Rows, estimates: Amounts, *, batch: int, standard: float, may_read: bool = True
    ) -> Profile:
        """See `Platform.local_profile`; amounts are ratios to the dense network's in the same turns, times `standard`.

        Reading ends when the error of the estimates, all times one factor, has settled.
        """

        def factor_error(shares: Amounts) -> float:
            ratios = estimates[: len(shares)] / shares
            return float(np.abs(ratios / ratios.mean() - 1).mean())

        key = content_key("local profile", self.block, *self._identity(subject.structure), batch, rows.tolist())
        series = Series("local profile", key, rows, min(len(rows), MOST_LOCAL), FEWEST_LOCAL, factor_error)
        known = self._gathered(subject, series, batch, may_read)
        return self._profile(series, known, standard, min(series.most, len(known.shares)) // 2)

    def _identity(self, structure: Structure) -> tuple[str, ...]:
        """What decides the readings of a profile beside its rows."""
        return self.name, self.calibration, self.short.name, structure.exact_fingerprint

    def _profile(self, series: Series, known: Progress, dense: float, test_samples: int) -> Profile:
        n = min(series.most, len(known.shares))
        amounts = dense * known.shares[:n]
        return Profile(
            series.rows[:n].astype(np.int32),
            amounts,
            dense,
            test_samples=test_samples,
            batch=known.batch,
            unit=self.unit,
            key=content_key(series.key, amounts.tolist()),
            noise=known.noise(n),
        )

    def _gathered(self, subject: Subject, series: Series, batch: int | None, may_read: bool) -> Progress:
        """The series' readings, taken from the cache, and read on until its error has settled."""
        path, block = cache_dir() / "profiles" / f"{series.key}.npz", self.block
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks.held(path.with_suffix(".lock")):  # plans share a profile: who comes second waits, and finds it read
            known = _read(path, block)
            if known is None:
                _check(may_read)
                if batch is None:
                    self.say(f"{series.what}: looking for the inference batch")
                none = np.empty(0)
                known = Progress(none, none, none, none, batch or self.inference_batch(subject))
            before, began_s = len(known.shares), time.monotonic()
            errors = series.errors(known.shares[: series.most])[-SETTLED_BLOCKS:]
            if before:
                too = f" and measured-* in {self.keeps.resolve()}" if self.keeps else ""
                self.say(f"{series.what}: {before} networks are in {path} already; delete it{too} to read anew")
            while len(known.shares) < series.most and not has_settled(errors):
                _check(may_read)
                n = len(known.shares)
                asked = [subject.structure.upper_bounds, *map(tuple, series.rows[n : n + block])]
                known = known.added(*self.read(subject, asked, known.batch, self.short))
                _write(path, known)
                errors += series.errors(known.shares, beyond=n)
                each_s = (time.monotonic() - began_s) / (len(known.shares) - before)
                n, most = len(known.shares), series.most
                left_min = each_s * max(0, most - n) / 60
                self.say(f"{series.what}: {n} of at most {most} networks read, {left_min:.0f} min for all of them")
        n = min(series.most, len(known.shares))
        if n > before and (noise := known.noise(n)) > NOISY:
            self.say(
                f"{series.what}: readings are known to {noise:.0%} only; is other work on this machine? "
                "Better read it idle"
            )
        return known

    def read_beside(
        self,
        subject: Subject,
        rows: Sequence[Widths],
        batch: int,
        *,
        reference: Widths,
        standard: float,
        effort: Effort = "final",
    ) -> list[PlatformReading]:
        """See `Platform.read_beside`; equal rows are read once."""
        distinct = list(dict.fromkeys(tuple(row) for row in rows))
        beside, *others = self.read(subject, [reference, *distinct], batch, self._settings(effort))
        readings = {row: _corrected(reading, beside, standard) for row, reading in zip(distinct, others, strict=True)}
        return [readings[tuple(row)] for row in rows]

    def reading_s(self, rows: int, effort: Effort = "final") -> float:
        """Seconds that `read_beside` takes at most for so many rows, the reference beside them."""
        return self._settings(effort).limit_s * (rows + 1)

    def _settings(self, effort: Effort) -> Settings:
        return self.full if effort == "final" else closer(self.short)


def closer(short: Settings) -> Settings:
    """Settings of the readings that decide how far a landing goes: half the width in more visits and more time."""
    return replace(
        short,
        name=f"{short.name}, closer",
        visits=2 * short.visits,  # boards go by these alone
        target=short.target / 2,
        limit_s=CLOSER * short.limit_s,
    )


def _corrected(reading: Reading, beside: Reading, standard: float) -> PlatformReading:
    """The reading as it would be if the network read beside it, in the same turns, had taken `standard`."""
    ratio = reading.relative_to(beside, standard)
    detail = json.loads(json.dumps(asdict(reading), default=str))
    detail["reference_amounts"] = list(beside.amounts)  # the ratio's denominators, visit by visit
    flags = tuple(sorted({*reading.flags, *beside.flags}))
    return PlatformReading(ratio.amount, ratio.interval, flags, beside.amount, detail)


@dataclass(frozen=True, eq=False)
class Series:
    """Networks of one subject that are read until the error of a fit has settled.

    what: its name for a person. key: of its cache. rows: (n, units). most: how many are read at most. fewest: how many
    there are at the first error. error: of the first networks, from their amounts as shares of the dense network's.
    """

    what: str
    key: str
    rows: Rows
    most: int
    fewest: int
    error: Callable[[Amounts], float]

    def errors(self, shares: Amounts, beyond: int = 0) -> list[float]:
        """The errors after `fewest` networks and every STEP further ones, of which only those after `beyond`."""
        ends = range(self.fewest, len(shares) + 1, STEP)
        return [self.error(shares[:end]) for end in ends if end > beyond]


class Progress(NamedTuple):
    """What is read so far: amounts (n,) as shares of the dense network's reading in the same turns, both ends of their
    intervals, and that reading for each block.
    """

    shares: Amounts
    low: Amounts
    high: Amounts
    dense: Amounts
    batch: int

    def noise(self, count: int) -> float:
        """Mean relative half width of the first networks' intervals."""
        return float(np.mean((self.high - self.low)[:count] / 2 / self.shares[:count]))

    def added(self, dense: Reading, *readings: Reading) -> Progress:
        """With one more block."""
        shares = [reading.relative_to(dense, 1.0) for reading in readings]
        return Progress(
            np.append(self.shares, [share.amount for share in shares]),
            np.append(self.low, [share.interval[0] for share in shares]),
            np.append(self.high, [share.interval[1] for share in shares]),
            np.append(self.dense, dense.amount),
            self.batch,
        )


def held_out_error(structure: Structure, rows: Rows, amounts: Amounts) -> float:
    """Mean |estimate - reading| / reading of the bilinear model, each fifth of the rows judged by the other four.

    amounts (n,): of the first n rows, in whatever unit.
    """
    positions = structure.positions(rows[: len(amounts)]).numpy()
    fold = np.arange(len(amounts)) % FOLDS
    errors = np.empty(len(amounts))
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

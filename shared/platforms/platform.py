"""The interface of a platform: what can be asked for the joules, or another amount, of a network at many widths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from shared.cache import content_key
from shared.energy import AmountUnit, Profile, ZeroSavings
from shared.energy.profiles import uniform_rows
from shared.networks import Structure

Widths = Sequence[int]
Rows = NDArray[np.int64]
Amounts = NDArray[np.float64]
Source = Literal["measured", "simulated", "counted"]
Effort = Literal["landing", "final"]  # how long a reading may take: many are needed to land, one in the end


@dataclass(frozen=True)
class Subject:
    """A network to be read: its dense structure, and how to build it at any widths, with any weights."""

    structure: Structure
    build: Callable[[tuple[int, ...]], nn.Module]


@dataclass(frozen=True)
class PlatformReading:
    """The amount of one image, in the platform's unit.

    amount: in the platform's unit. On hardware it is corrected for drift, see `Platform.read_beside`.
    interval: both ends of its confidence interval; equal where the platform is simulated.
    flags: what the sensor reports beside it ("throttled"), of the reference network's reading too.
    reference: the bare amount of the reference network, read in the same turns; None where simulated.
    detail: the bare reading as JSON, see shared.meters.Reading; None where simulated.
    """

    amount: float
    interval: tuple[float, float]
    flags: tuple[str, ...] = ()
    reference: float | None = None
    detail: dict[str, Any] | None = field(default=None, repr=False)


class Platform(ABC):
    """Hardware with a meter, or a simulation of it.

    name: as `--device` calls it.
    source: "measured", "simulated" (a simulator, a replayed or played sensor), or "counted" (multiply-adds, bytes).
    meter, host: for a person: who reads, and which hardware; host is None where it is simulated.
    unit: of all amounts: "J", "s", or "MAC" (multiply-adds) or "B" (bytes).
    calibration: hash or version of all that decides a reading beside the network.
    instead_of: why the real sensor does not answer where a simulation stands in for it, else "".
    readings_need_quiet: whether a reading takes time and needs the machine alone.
    channel_group: how many channels hardware works on at once, so that fewer of them cost the same.
    at_once: how many widths are best read at once to land a network.
    say: is told when a reading waits or takes long.
    """

    name: str
    source: Source
    meter: str
    host: str | None
    unit: AmountUnit
    calibration: str
    instead_of: str = ""
    readings_need_quiet: bool
    channel_group: int
    at_once: int = 1
    say: Callable[[str], None] = staticmethod(lambda _: None)

    @abstractmethod
    def profile(
        self, subject: Subject, *, samples: int, test_samples: int, batch: int | None = None, may_read: bool = True
    ) -> Profile:
        """The amounts of up to `samples` width vectors, read now or taken from the cache.

        test_samples: how many of all are for judging; hardware, which may read fewer, keeps a fifth.
        batch: images per inference, the platform's choice when None.
        may_read: False in a worker, for which the cache has to hold all. Raises MeterError when the sensor fails.
        """

    @abstractmethod
    def local_profile(
        self, subject: Subject, rows: Rows, estimates: Amounts, *, batch: int, standard: float, may_read: bool = True
    ) -> Profile:
        """The amounts of the first of `rows`, (n, units), as many as it takes, read now or taken from the cache.

        estimates: Ê of the rows, (n,); hardware reads until the error of these, all times one factor, has settled.
        standard: the dense network's amount, to which hardware refers its readings. The last half of what is read is
        for judging. may_read: as in `profile`. Raises MeterError when the sensor fails.
        """

    @abstractmethod
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
        """The amount of the network at each of `rows`, per image.

        On hardware all of them and the network at `reference` are read in turns. An amount is the ratio of the two
        readings times `standard`, so a drift that meets both cancels. A simulation has no drift: it gives its
        noise-free amounts and ignores reference and standard. Raises MeterError when the sensor fails.
        """

    @abstractmethod
    def reading_s(self, rows: int, effort: Effort = "final") -> float:
        """Seconds that `read_beside` takes at most for so many rows."""

    def zeros(self, subject: Subject, batch: int) -> ZeroSavings | None:
        """What single zero weights save; None where they cost as much as others."""
        return None


@dataclass(frozen=True)
class Breakdown:
    """Where the amounts of n width vectors come from: amounts (n, layers, causes) per image, in the platform's unit."""

    layers: tuple[str, ...]
    causes: tuple[str, ...]
    amounts: NDArray[np.float64]


class ExactPlatform(Platform):
    """A platform that knows its amounts: readings have no noise, no drift, and take no time.

    usual_batch: images per inference where nobody asks for another number.
    """

    readings_need_quiet, channel_group = False, 1
    at_once = 64  # which costs hardly more than one
    usual_batch = 1

    @abstractmethod
    def breakdown(self, subject: Subject, rows: Rows, batch: int) -> Breakdown:
        """The amounts of the network at each of `rows`, (n, units), by layer and cause."""

    def amounts(self, subject: Subject, rows: Rows, batch: int) -> Amounts:
        """The amounts (n,) of the network at each of `rows`, (n, units), per image."""
        return self.breakdown(subject, rows, batch).amounts.sum((1, 2))

    def profile(
        self, subject: Subject, *, samples: int, test_samples: int, batch: int | None = None, may_read: bool = True
    ) -> Profile:
        """The amounts of `samples` uniform width vectors."""
        batch = batch or self.usual_batch
        dense = self.amounts(subject, np.array([subject.structure.upper_bounds]), batch)
        rows = uniform_rows(subject.structure, samples, 0)
        return self._profile(subject, rows, float(dense[0]), test_samples, batch)

    def local_profile(
        self, subject: Subject, rows: Rows, estimates: Amounts, *, batch: int, standard: float, may_read: bool = True
    ) -> Profile:
        """The amounts of all `rows`."""
        return self._profile(subject, rows, standard, len(rows) - len(rows) // 2, batch)

    def _profile(self, subject: Subject, rows: Rows, dense: float, test_samples: int, batch: int) -> Profile:
        key = content_key("exact", self.name, self.calibration, subject.structure.fingerprint, batch, rows.tolist())
        return Profile(
            rows.astype(np.int32),
            self.amounts(subject, rows, batch),
            dense,
            test_samples=test_samples,
            batch=batch,
            unit=self.unit,
            key=key,
        )

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
        """The exact amounts, so their intervals have no width."""
        amounts = self.amounts(subject, np.array([list(row) for row in rows]), batch).tolist()
        return [PlatformReading(amount, (amount, amount)) for amount in amounts]

    def reading_s(self, rows: int, effort: Effort = "final") -> float:
        """Nothing to speak of."""
        return 0.0

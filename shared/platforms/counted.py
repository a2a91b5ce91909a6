"""Multiply-adds in place of joules: exact counts behind the interface of a platform."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.cache import content_key
from shared.energy import Profile
from shared.energy.profiles import uniform_rows
from shared.platforms.platform import Amounts, Effort, Platform, PlatformReading, Rows, Subject, Widths


class CountedPlatform(Platform):
    """Counts a network's multiply-adds, which depend on no device: what energy would be if nothing else cost any."""

    name, source, unit = "any", "counted", "MAC"
    meter, host, calibration = "exact count", None, "exact"
    readings_need_quiet, channel_group = False, 1
    at_once = 64  # which costs hardly more than one

    def profile(
        self, subject: Subject, *, samples: int, test_samples: int, batch: int | None = None, may_read: bool = True
    ) -> Profile:
        """The counts of `samples` uniform width vectors; the batch is 1 unless another is asked for."""
        dense = self._counts(subject, np.array([subject.structure.upper_bounds]))
        return self._profile(subject, uniform_rows(subject.structure, samples, 0), float(dense[0]), test_samples, batch)

    def local_profile(
        self, subject: Subject, rows: Rows, estimates: Amounts, *, batch: int, standard: float, may_read: bool = True
    ) -> Profile:
        """The counts of all `rows`."""
        return self._profile(subject, rows, standard, len(rows) - len(rows) // 2, batch)

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
        """The counts, whose intervals have no width."""
        counts = self._counts(subject, np.array([list(row) for row in rows])).tolist()
        return [PlatformReading(count, (count, count)) for count in counts]

    def reading_s(self, rows: int, effort: Effort = "final") -> float:
        """Nothing to speak of."""
        return 0.0

    def _counts(self, subject: Subject, rows: Rows) -> Amounts:
        return np.asarray(subject.structure.macs(rows).numpy(), dtype=np.float64)

    def _profile(
        self, subject: Subject, rows: Rows, dense: float, test_samples: int, batch: int | None
    ) -> Profile:
        return Profile(
            rows.astype(np.int32),
            self._counts(subject, rows),
            dense,
            test_samples=test_samples,
            batch=batch or 1,
            unit=self.unit,
            key=content_key("counts", subject.structure.fingerprint, rows.tolist()),
        )

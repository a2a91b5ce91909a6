"""Multiply-adds in place of joules: exact counts behind the interface of a platform."""

from __future__ import annotations

import numpy as np

from shared.cache import content_key
from shared.energy import Profile
from shared.energy.profiles import uniform_rows
from shared.platforms.platform import Amounts, ExactPlatform, Rows, Subject


class CountedPlatform(ExactPlatform):
    """Counts a network's multiply-adds, which depend on no device: what energy would be if nothing else cost any."""

    name, source, unit = "any", "counted", "MAC"
    meter, host, calibration = "exact count", None, "exact"

    def profile(
        self, subject: Subject, *, samples: int, test_samples: int, batch: int | None = None, may_read: bool = True
    ) -> Profile:
        """The counts of `samples` uniform width vectors; the batch is 1 unless another is asked for."""
        dense = self.amounts(subject, np.array([subject.structure.upper_bounds]), 1)
        return self._profile(subject, uniform_rows(subject.structure, samples, 0), float(dense[0]), test_samples, batch)

    def local_profile(
        self, subject: Subject, rows: Rows, estimates: Amounts, *, batch: int, standard: float, may_read: bool = True
    ) -> Profile:
        """The counts of all `rows`."""
        return self._profile(subject, rows, standard, len(rows) - len(rows) // 2, batch)

    def amounts(self, subject: Subject, rows: Rows, batch: int) -> Amounts:
        """The counts."""
        return np.asarray(subject.structure.macs(rows).numpy(), dtype=np.float64)

    def _profile(
        self, subject: Subject, rows: Rows, dense: float, test_samples: int, batch: int | None
    ) -> Profile:
        return Profile(
            rows.astype(np.int32),
            self.amounts(subject, rows, 1),
            dense,
            test_samples=test_samples,
            batch=batch or 1,
            unit=self.unit,
            key=content_key("counts", subject.structure.fingerprint, rows.tolist()),
        )

"""The energy of a window from time-stamped power samples, as pure functions of arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from shared.meters.meter import MeterError, Window

FEWEST_SAMPLES = 2
LATE_PERIODS = 2.5  # of sampling, longest gap; a busy machine delays a sample by half of one, which does no harm
LATE, DROPPED = "late samples", "dropped samples"


class BadTrace(MeterError, ValueError):
    """Power samples that do not determine an energy."""


def integral_joules(times_s: ArrayLike, watts: ArrayLike, start_s: float, end_s: float) -> float:
    """The integral of the power over exactly [start_s, end_s].

    times_s (n,), rising, and watts (n,) may reach beyond the window. Power is interpolated linearly between samples
    and constant before the first and after the last one (trapezoidal rule). Samples that repeat a value count like any
    other: dropping them would lose the energy of a constant load. Raises BadTrace for fewer than two samples in the
    window, times that do not rise, and watts that are negative or not finite.
    """
    times, power = np.asarray(times_s, dtype=np.float64), np.asarray(watts, dtype=np.float64)
    if times.shape != power.shape or times.ndim != 1:
        raise BadTrace("as many times as watts", f"shapes {times.shape} and {power.shape}", "one time per power")
    if not end_s > start_s:
        raise BadTrace("a window that ends after its start", f"{start_s} to {end_s} s", "a longer one")
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise BadTrace("times that rise", "a time that is not later than the one before", "a monotonic clock")
    if not (np.isfinite(power).all() and (power >= 0).all()):
        raise BadTrace("finite power of 0 W or more", "negative or infinite power", "another sensor")
    inside = (times >= start_s) & (times <= end_s)
    if inside.sum() < FEWEST_SAMPLES:
        raise BadTrace(f"at least {FEWEST_SAMPLES} samples in the window", inside.sum(), "a longer one")
    at = np.concatenate([[start_s], times[inside], [end_s]])
    return float(np.trapezoid(np.interp(at, times, power), at))


def longest_gap_s(times_s: ArrayLike, start_s: float, end_s: float) -> float:
    """The longest time without a sample in the window [start_s, end_s]; times_s (n,) rising."""
    times = np.asarray(times_s, dtype=np.float64)
    inside = times[(times >= start_s) & (times <= end_s)]
    return float(np.diff(np.concatenate([[start_s], inside, [end_s]])).max())


class PowerTrace(NamedTuple):
    """What a power sensor has sampled."""

    times_s: ArrayLike  # (n,), rising
    watts: ArrayLike  # (n,)
    period_s: float  # intended time between two samples
    quantum_watts: float = 0.0  # the sensor's resolution
    dropped: int = 0  # number of samples that failed

    def window(self, start_s: float, end_s: float) -> Window:
        """The window [start_s, end_s]: integral_joules, number of samples, quantum and flags. Raises BadTrace."""
        joules = integral_joules(self.times_s, self.watts, start_s, end_s)
        times = np.asarray(self.times_s)
        late = longest_gap_s(times, start_s, end_s) > LATE_PERIODS * self.period_s
        return Window(
            joules,
            start_s,
            end_s,
            samples=int(np.sum((times >= start_s) & (times <= end_s))),
            quantum=self.quantum_watts * (end_s - start_s),
            flags=(LATE,) * late + (DROPPED,) * (self.dropped > 0),
        )

"""Energy of a window from time-stamped power samples. Pure functions of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from shared.meters.meter import MeterError, Window

FEWEST_SAMPLES = 2
LATE_PERIODS = 2.5  # a machine under load delays a poll by half a period or so, which does no harm
LATE, DROPPED = "late samples", "dropped samples"


class BadTrace(MeterError, ValueError):
    """Power samples that are not worth a number."""


def integral_joules(times_s: ArrayLike, watts: ArrayLike, start_s: float, end_s: float) -> float:
    """The integral of the power over exactly [start_s, end_s].

    times_s (n,) rising and watts (n,), samples from before and after the window included: power runs straight from one
    sample to the next, and stays at the first and at the last one beyond them. Samples that repeat a value count like
    any other. Raises BadTrace for fewer than two samples within the window, times that don't rise, or watts that are
    negative or not finite.
    """
    times, power = np.asarray(times_s, dtype=np.float64), np.asarray(watts, dtype=np.float64)
    if times.shape != power.shape or times.ndim != 1:
        raise BadTrace("as many times as watts", f"shapes {times.shape} and {power.shape}", "one of each")
    if not end_s > start_s:
        raise BadTrace("a window that ends after its start", f"{start_s} to {end_s} s", "a longer one")
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise BadTrace("times that rise", "some that don't", "a monotonic clock")
    if not (np.isfinite(power).all() and (power >= 0).all()):
        raise BadTrace("finite power of 0 W or more", "other values", "another sensor")
    inside = (times >= start_s) & (times <= end_s)
    if inside.sum() < FEWEST_SAMPLES:
        raise BadTrace(f"at least {FEWEST_SAMPLES} samples in the window", inside.sum(), "a longer one")
    at = np.concatenate([[start_s], times[inside], [end_s]])
    return float(np.trapezoid(np.interp(at, times, power), at))


def longest_gap_s(times_s: ArrayLike, start_s: float, end_s: float) -> float:
    """The longest stretch of the window [start_s, end_s] that holds no sample; times_s (n,) rising."""
    times = np.asarray(times_s, dtype=np.float64)
    inside = times[(times >= start_s) & (times <= end_s)]
    return float(np.diff(np.concatenate([[start_s], inside, [end_s]])).max())


def sampled_window(
    times_s: ArrayLike,
    watts: ArrayLike,
    start_s: float,
    end_s: float,
    *,
    period_s: float,
    quantum_watts: float = 0.0,
    dropped: int = 0,
) -> Window:
    """The window [start_s, end_s] of a trace, as integral_joules has it, with its samples and flags.

    period_s: between two polls; quantum_watts: the sensor's step; dropped: readings that failed in passing.
    """
    joules = integral_joules(times_s, watts, start_s, end_s)
    times = np.asarray(times_s)
    return Window(
        joules,
        start_s,
        end_s,
        samples=int(np.sum((times >= start_s) & (times <= end_s))),
        quantum=quantum_watts * (end_s - start_s),
        flags=(LATE,) * is_late(times, start_s, end_s, period_s) + (DROPPED,) * (dropped > 0),
    )


def is_late(times_s: ArrayLike, start_s: float, end_s: float, period_s: float) -> bool:
    """Whether samples are further apart than a poll every period_s may put them."""
    return longest_gap_s(times_s, start_s, end_s) > LATE_PERIODS * period_s

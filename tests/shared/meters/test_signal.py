"""Joules from samples of known power: straight pieces, steps, held edges, repeated values, gaps, refusals."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.meters.signal import BadTrace, integral_joules, longest_gap_s

WATTS = st.floats(0, 400, allow_subnormal=False)


@st.composite
def traces(draw: st.DrawFn) -> tuple[list[float], list[float], float, float]:
    """Times and watts, and a window with two samples or more in it, its ends anywhere."""
    gaps = draw(st.lists(st.floats(1e-3, 10), min_size=2, max_size=12))
    times = list(np.cumsum(gaps))
    watts = draw(st.lists(WATTS, min_size=len(times), max_size=len(times)))
    first = draw(st.integers(0, len(times) - 2))
    last = draw(st.integers(first + 1, len(times) - 1))
    earlier = times[first - 1] if first else times[first] - 5
    later = times[last + 1] if last + 1 < len(times) else times[last] + 5
    share = st.floats(0, 1)
    start = times[first] - draw(share) * (times[first] - earlier)
    return times, watts, start, times[last] + draw(share) * (later - times[last])


def exact_joules(times: list[float], watts: list[float], start_s: float, end_s: float) -> Fraction:
    """Integral in fractions, straight piece by straight piece, the ends held."""
    t = [min(times[0], start_s) - 1, *times, max(times[-1], end_s) + 1]
    p = [watts[0], *watts, watts[-1]]
    points = [(Fraction(float(moment)), Fraction(power)) for moment, power in zip(t, p, strict=True)]
    total = Fraction(0)
    for (t0, p0), (t1, p1) in pairwise(points):
        a, b = max(t0, Fraction(float(start_s))), min(t1, Fraction(float(end_s)))
        if a < b:
            slope = (p1 - p0) / (t1 - t0)
            total += p0 * (b - a) + slope * ((b - t0) ** 2 - (a - t0) ** 2) / 2
    return total


@given(traces())
def test_straight_pieces_are_integrated_exactly(trace: tuple[list[float], list[float], float, float]) -> None:
    assert integral_joules(*trace) == pytest.approx(float(exact_joules(*trace)), rel=1e-9, abs=1e-9)


@given(traces(), st.floats(0.01, 0.99))
def test_a_window_is_the_sum_of_its_parts(trace: tuple[list[float], list[float], float, float], share: float) -> None:
    times, watts, start, end = trace
    middle = start + share * (end - start)
    dense = np.union1d(times, np.linspace(start, end, 300))  # samples on the straight lines change nothing
    power = np.interp(dense, times, watts)
    parts = [integral_joules(dense, power, *window) for window in ((start, middle), (middle, end))]
    assert sum(parts) == pytest.approx(integral_joules(times, watts, start, end), rel=1e-9, abs=1e-9)


@given(
    st.lists(st.tuples(st.floats(0.2, 2), WATTS), min_size=1, max_size=8),
    st.floats(0.001, 0.05),
    st.floats(0, 1),
)
def test_steps_are_off_by_less_than_half_a_period_each(
    steps: list[tuple[float, float]], period_s: float, phase: float
) -> None:
    lengths, levels = np.array(steps).T
    ends = np.cumsum(lengths)
    times = np.arange(-1 + phase, ends[-1] / period_s + 1) * period_s
    watts = levels[np.minimum(np.searchsorted(ends, times, side="right"), len(levels) - 1)]
    jumps = np.abs(np.diff(levels)).sum()
    assert integral_joules(times, watts, 0.0, ends[-1]) == pytest.approx(
        lengths @ levels, abs=jumps * period_s / 2 + 1e-6
    )


def test_known_traces() -> None:
    assert integral_joules(np.arange(0, 5.01, 0.1), np.full(51, 200.0), 0, 5) == pytest.approx(1000)  # repeats count
    assert integral_joules(range(9), [60, 60, 60, 240, 240, 240, 60, 60, 60], 1, 6) == pytest.approx(840)
    assert integral_joules([2.0, 3.0], [100.0, 200.0], 0, 5) == pytest.approx(200 + 150 + 400)  # held at both ends


@pytest.mark.parametrize(
    ("times", "watts", "start", "end", "expected"),
    [
        ([0, 1, 2], [1, 1], 0, 2, "as many times as watts"),
        ([[0, 1]], [[1, 1]], 0, 1, "as many times as watts"),
        ([0, 1], [1, 1], 1, 1, "ends after its start"),
        ([0, 1], [1, 1], 1, 0, "ends after its start"),
        ([0, 1], [1, 1], 0, np.nan, "ends after its start"),
        ([0, 1, 1], [1, 1, 1], 0, 1, "times that rise"),
        ([0, 2, 1], [1, 1, 1], 0, 2, "times that rise"),
        ([0, 1, np.inf], [1, 1, 1], 0, 2, "times that rise"),
        ([0, 1, 2], [1, -1, 1], 0, 2, "0 W or more"),
        ([0, 1, 2], [1, np.nan, 1], 0, 2, "0 W or more"),
        ([], [], 0, 1, "got 0"),
        ([0, 1, 2], [1, 1, 1], 0.5, 1.5, "got 1"),
        ([0, 1, 2], [1, 1, 1], 3, 4, "got 0"),
    ],
)
def test_what_is_not_worth_a_number_is_refused(
    times: list, watts: list, start: float, end: float, expected: str
) -> None:
    with pytest.raises(BadTrace, match=expected):
        integral_joules(times, watts, start, end)


@given(traces())
def test_the_longest_gap_is_the_one_no_probe_finds_a_sample_in(
    trace: tuple[list[float], list[float], float, float],
) -> None:
    times, _, start, end = trace
    gap_s = longest_gap_s(times, start, end)
    edges = [start, *(moment for moment in times if start < moment < end), end]
    assert any(abs(later - earlier - gap_s) < 1e-12 for earlier, later in pairwise(edges))
    assert all(later - earlier <= gap_s + 1e-12 for earlier, later in pairwise(edges))


def test_a_window_without_samples_is_one_gap() -> None:
    assert longest_gap_s([0, 10], 2, 7) == 5
    assert longest_gap_s([0, 3, 10], 2, 7) == 4
    assert longest_gap_s([0, 6, 10], 2, 7) == 4

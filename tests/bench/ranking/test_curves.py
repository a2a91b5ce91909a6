"""Accuracy over joules: means, single values and the joules for an accuracy, against sums by hand and quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bench.ranking.curves import Curve, curves
from tests.bench.ranking.tables import page

HAND = Curve(np.array([1.0, 3.0, 4.0]), np.array([0.8, 0.9, 0.7]))


def test_mean_by_hand() -> None:
    """From 2 to 4: 0.85 to 0.9 over one unit, then 0.9 to 0.7 over another."""
    assert HAND.mean(2, 4) == pytest.approx((0.875 + 0.8) / 2)
    assert HAND.mean(3, 3) == pytest.approx(0.9)
    assert HAND.mean(2, 2) == pytest.approx(0.85)
    assert HAND.at(2) == pytest.approx(0.85) and np.isnan(HAND.at(0.99)) and np.isnan(HAND.at(4.01))


def test_a_range_beyond_the_points_is_refused() -> None:
    for low, high in ((0.9, 2.0), (2.0, 4.1), (3.0, 2.0), (np.nan, 2.0)):
        with pytest.raises(ValueError, match="expected a range within 1 to 4"):
            HAND.mean(low, high)


@given(
    arrays.arrays(float, 6, elements=st.floats(0.01, 1.0)),
    arrays.arrays(float, 6, elements=st.floats(0.0, 1.0)),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_mean_is_the_integral(steps: np.ndarray, accuracies: np.ndarray, one: float, other: float) -> None:
    readings = np.cumsum(steps)
    curve = Curve(readings, accuracies)
    low, high = np.sort(readings[0] + np.array([one, other]) * (readings[-1] - readings[0])).clip(max=readings[-1])
    weights = curve.weights(low, high)
    assert weights.sum() == pytest.approx(1) and (weights > -1e-12).all()
    if high - low > 1e-3:
        knots = readings[(readings > low) & (readings < high)]
        area, _ = scipy.integrate.quad(curve.at, low, high, points=knots, limit=200)
        assert curve.mean(low, high) == pytest.approx(area / (high - low), abs=1e-6)


def test_joules_for_an_accuracy() -> None:
    rising = Curve(np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.7, 0.9]))
    assert rising.amount_for(0.8) == pytest.approx(3.0)
    assert rising.amount_for(0.5) == 1.0 and rising.amount_for(0.4) == 1.0
    assert rising.amount_for(0.91) is None
    assert rising.amount_for(0.9) == pytest.approx(4.0)
    dip = Curve(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.8, 0.9, 0.6, 1.0]))
    assert dip.amount_for(0.8) == pytest.approx(3.5)  # not 1, since it falls below again
    assert HAND.amount_for(0.8) is None  # its end lies below


def test_a_missed_budget_cuts_the_curve() -> None:
    runs = page({"a": [[0.1, 0.2, 0.3, 0.4, 0.5]]}, missed=[("a", 0.4, 0)])
    low, high = curves(runs.sample(frac=1, random_state=0))
    assert low.accuracies.tolist() == [0.1, 0.2] and high.accuracies.tolist() == [0.4, 0.5]
    assert low.readings.tolist() == pytest.approx([0.297, 0.3465])
    assert curves(page({"a": [[0.1] * 5]}, missed=[("a", b, 0) for b in (0.3, 0.35, 0.4, 0.45, 0.5)])) == []


def test_equal_readings_count_once() -> None:
    runs = page({"a": [[0.1, 0.2, 0.3, 0.4, 0.6]]})
    runs.loc[4, "measures.reading"] = runs.loc[3, "measures.reading"]
    (curve,) = curves(runs)
    assert curve.accuracies.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.5])

"""Intervals, tests and corrections against scipy, brute force and figures by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bench.ranking import inference
from shared.rng import numpy_generator

SEEDS = st.integers(3, 8).flatmap(lambda n: arrays.arrays(float, n, elements=st.floats(-1, 1, width=32)))


@pytest.mark.filterwarnings("ignore:Precision loss")  # of scipy's, where all seeds are nearly equal
@given(SEEDS)
def test_t_agrees_with_scipy(differences: np.ndarray) -> None:
    interval = inference.t_interval(differences)
    theirs = scipy.stats.ttest_1samp(differences, 0.0)
    ends = theirs.confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((ends.low, ends.high), abs=1e-12)
    p = inference.paired_t(differences)
    if differences.std(ddof=1) <= inference.NO_SPREAD:
        assert np.isnan(p)
    else:
        assert p == pytest.approx(theirs.pvalue, abs=1e-12)


def test_t_works_on_many_tables_at_once() -> None:
    tables = numpy_generator(0, "tables").normal(size=(4, 3, 6))
    assert inference.paired_t(tables) == pytest.approx(scipy.stats.ttest_1samp(tables, 0, axis=-1).pvalue)
    assert inference.t_interval(tables).mean.shape == (4, 3)


def test_one_seed_has_no_interval() -> None:
    interval = inference.t_interval([0.5])
    assert interval.mean == 0.5 and np.isnan(interval.low) and np.isnan(interval.high)
    assert np.isnan(inference.paired_t([0.5]))


@given(SEEDS)
def test_sign_flip_agrees_with_brute_force(differences: np.ndarray) -> None:
    signs = np.array(list(product((-1, 1), repeat=differences.size)))
    sums = np.abs(signs @ differences)
    p = inference.sign_flip(differences)
    assert p == pytest.approx((sums >= abs(differences.sum()) - 1e-12 * max(np.abs(differences).sum(), 1e-300)).mean())
    assert p >= inference.least_sign_flip(differences.size)


def test_sign_flip_agrees_with_scipy() -> None:
    differences = np.array([0.3, 0.1, 0.25, -0.05, 0.4, 0.2])
    theirs = scipy.stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=10_000)
    assert inference.sign_flip(differences) == pytest.approx(theirs.pvalue)
    assert inference.sign_flip([0.2, 0.3, 0.1, 0.4, 0.5]) == inference.least_sign_flip(5) == 0.0625
    assert np.isnan(inference.sign_flip(np.ones(21)))


def test_holm_by_hand() -> None:
    """Times 4, 3, 2 and 1 in ascending order, never falling."""
    assert inference.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert inference.holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert inference.holm([]).shape == (0,)


def test_what_was_not_tested_counts_in_the_family() -> None:
    adjusted = inference.holm([0.01, np.nan, 0.02])
    assert adjusted[[0, 2]] == pytest.approx([0.03, 0.04]) and np.isnan(adjusted[1])


@given(arrays.arrays(float, (5, 7), elements=st.floats(0, 1)))
def test_holm_rejects_as_the_stepwise_procedure(p: np.ndarray) -> None:
    """By its definition: in ascending order, stop at the first above level / (tests left)."""
    for row, adjusted in zip(p, inference.holm(p), strict=True):
        rejected = set()
        for place, test in enumerate(np.argsort(row, kind="stable")):
            if row[test] * (len(row) - place) >= 0.05:
                break
            rejected.add(int(test))
        assert set(np.flatnonzero(adjusted < 0.05)) == rejected


def test_resolvable_is_where_the_test_turns() -> None:
    """A mean difference just above it is significant in Holm's first step, one just below is not."""
    shape = np.array([-1.0, 0.5, 0.2, -0.3, 0.6])
    shape = (shape - shape.mean()) / shape.std(ddof=1) * 0.006
    least = inference.resolvable(0.006, 5, tests=10)
    assert inference.paired_t(shape + 1.001 * least) < 0.05 / 10 < inference.paired_t(shape + 0.999 * least)


def test_improvement_counts_ties_half_and_misses_as_lost() -> None:
    assert inference.improvement([0.1, 0.2, -0.1, 0.0]) == pytest.approx(2.5 / 4)
    assert inference.improvement([0.1, 0.2, -0.1, 0.0], lost=1) == pytest.approx(2.5 / 5)

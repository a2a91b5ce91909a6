"""The counter-based normal numbers: a known generator, the right distribution, no trace of neighbouring rows."""

from __future__ import annotations

import numpy as np
import scipy.stats

from shared.platforms.noise import row_normals, splitmix64


def test_splitmix64_gives_the_reference_sequence() -> None:
    """First outputs for seed 1234567, as Vigna's reference code gives them; state k is seed + k * gamma."""
    states = np.array([(1234567 + k * 0x9E3779B97F4A7C15) % 2**64 for k in range(5)], dtype=np.uint64)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(states).tolist() == expected


def grid() -> np.ndarray:
    """All pairs of small widths: as regular as a table of widths can be."""
    first, second = np.meshgrid(np.arange(1.0, 151), np.arange(1.0, 151))
    return np.column_stack([np.full(first.size, 3.0), first.ravel(), second.ravel()])


def test_numbers_are_standard_normal_and_uncorrelated_between_neighbours() -> None:
    numbers = row_normals(7, grid())
    assert scipy.stats.kstest(numbers, "norm").pvalue > 1e-3
    table = numbers.reshape(150, 150)
    for a, b in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1]), (table, table.T)):
        away = a.ravel() != b.ravel()
        assert abs(np.corrcoef(a.ravel()[away], b.ravel()[away])[0, 1]) < 4 / np.sqrt(away.sum())


def test_numbers_follow_the_row_not_its_place() -> None:
    rows = grid()
    numbers = row_normals(7, rows)
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(row_normals(7, rows[order]), numbers[order])
    np.testing.assert_array_equal(row_normals(7, np.asfortranarray(rows)), numbers)


def test_every_input_counts() -> None:
    rows = grid()
    numbers = row_normals(7, rows)
    assert (row_normals(8, rows) != numbers).all()
    assert (row_normals(7, rows[:, [0, 2, 1]]) != numbers).mean() > 0.99  # the order of columns too
    assert np.unique(numbers).size == len(rows)

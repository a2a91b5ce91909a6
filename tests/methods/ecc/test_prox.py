"""The proximal operator against brute force over all subsets, a numerical minimiser of (8) and worked examples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from methods.ecc.prox import channel_price, descending, keep_channels, trim_dual

# Quarters and powers of two are exact in binary: equal means equal, and ties are frequent.
QUARTERS = st.integers(0, 16).map(lambda n: n / 4)


@st.composite
def cases(draw):
    importance = draw(st.lists(QUARTERS, min_size=1, max_size=8))
    return importance, {
        "bound": draw(st.integers(0, 4 * (len(importance) + 1)).map(lambda n: n / 4)),  # from 0 to beyond the channels
        "dual": draw(QUARTERS),
        "rho": draw(st.sampled_from([0.0, 0.25, 1.0, 2.0])),
        "step_size": draw(st.sampled_from([0.125, 0.5, 1.0])),
    }


def objective(importance, kept, *, bound, dual, rho, step_size):
    """Equation 8 at the best weights for kept sets (..., channels): a pruned channel costs half its importance."""
    count = np.sum(kept, -1)
    lagrangian = rho / 2 * np.maximum(count - bound, 0) ** 2 + dual * (count - bound)
    return np.where(kept, 0.0, importance).sum(-1) / 2 + step_size * lagrangian


@settings(max_examples=1000, deadline=None)
@given(cases())
def test_equals_brute_force_over_all_subsets(case):
    importance, arguments = case
    kept = keep_channels(torch.tensor(importance), **arguments).numpy()
    subsets = np.array(list(itertools.product([False, True], repeat=len(importance))))
    costs = objective(importance, subsets, **arguments)
    assert objective(importance, kept, **arguments) == costs.min()
    # ties: as many channels as any minimiser keeps, and of equal importances those with the lower index
    assert kept.sum() == subsets[costs == costs.min()].sum(-1).max()
    order = sorted(range(len(importance)), key=lambda i: (-importance[i], i))
    assert sorted(order[: kept.sum()]) == kept.nonzero()[0].tolist()
    # a second time, on what the first has left: nothing more to prune
    left = torch.tensor(importance) * torch.from_numpy(kept)
    assert torch.equal(keep_channels(left, **arguments) & (left > 0), left > 0)


def test_equals_brute_force_on_a_whole_grid():
    """Four channels, 71,680 cases, most of them with ties; one call per (rho, alpha)."""
    importance = np.array(list(itertools.product([0, 1, 2, 3], repeat=4)), dtype=float)[:, None, None]  # (256, 1, 1, 4)
    bound, dual = (np.arange(0, 5.25, 0.75)[None, :, None], np.arange(0, 2.5, 0.25)[None, None, :])
    cases = np.broadcast_shapes(importance.shape[:-1], bound.shape, dual.shape)
    rows = np.broadcast_to(importance, (*cases, 4))
    subsets = np.array(list(itertools.product([False, True], repeat=4)))  # (16, 4)
    for rho, step_size in itertools.product([0.0, 1.0], [0.5, 1.0]):
        bounds, duals = (torch.from_numpy(np.ascontiguousarray(np.broadcast_to(x, cases))) for x in (bound, dual))
        found = keep_channels(
            torch.from_numpy(rows.copy()), bound=bounds, dual=duals, rho=rho, step_size=step_size
        ).numpy()
        arguments = {"bound": bound, "dual": dual, "rho": rho, "step_size": step_size}
        costs = np.stack([objective(importance, subset, **arguments) for subset in subsets])
        assert (objective(rows, found, **arguments) == costs.min(0)).all()
        most = np.where(costs == costs.min(0), subsets.sum(1)[:, None, None, None], 0).max(0)
        assert (found.sum(-1) == most).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(cases(), min_size=1, max_size=4), st.sampled_from([torch.float32, torch.float64]))
def test_a_padded_batch_equals_its_units_one_by_one(batch, dtype):
    shared = {name: batch[0][1][name] for name in ("rho", "step_size")}
    longest = max(len(importance) for importance, _ in batch)
    padded = torch.tensor([importance + [0.0] * (longest - len(importance)) for importance, _ in batch], dtype=dtype)
    bounds, duals = (torch.tensor([arguments[name] for _, arguments in batch]) for name in ("bound", "dual"))
    kept = keep_channels(padded, bound=bounds, dual=duals, **shared)
    for row, (importance, arguments) in zip(kept, batch, strict=True):
        alone = keep_channels(torch.tensor(importance, dtype=dtype), **(arguments | shared))
        assert torch.equal(row[: len(importance)], alone)


def test_worked_example():
    importance = [0.90, 0.20, 0.55, 0.05, 0.40, 0.30]
    arguments = {"bound": 2.5, "dual": 0.8, "rho": 1.0, "step_size": 0.1}
    kept = keep_channels(torch.tensor(importance), **arguments)
    assert kept.nonzero().flatten().tolist() == [0, 2, 4]
    assert objective(importance, kept.numpy(), **arguments) == pytest.approx(0.3275)
    subsets = np.array(list(itertools.product([False, True], repeat=6)))
    costs = np.sort(objective(importance, subsets, **arguments))
    assert costs[0] == pytest.approx(0.3275) and costs[1] > 0.33  # the only one of 64


@pytest.mark.parametrize(("rank", "threshold"), [(1, 0.16), (2, 0.16), (3, 0.185), (4, 0.36), (5, 0.56), (6, 0.76)])
def test_thresholds_of_the_worked_example(rank, threshold):
    """The channel of that rank goes just below its threshold, and stays just above."""
    for factor, expected in ((1 - 1e-9, rank - 1), (1, rank), (1 + 1e-9, rank)):
        importance = [9.0] * (rank - 1) + [threshold * factor] + [0.0] * (6 - rank)
        kept = keep_channels(torch.tensor(importance, dtype=torch.float64), bound=2.5, dual=0.8, rho=1.0, step_size=0.1)
        assert kept.sum() == expected


def test_trim_saves_a_layer_that_the_dual_would_delete():
    importance = torch.tensor([[0.9, 0.6, 0.4, 0.2]], dtype=torch.float64)
    plain = {"rho": 0.0, "step_size": 0.1}
    bound, dual = torch.tensor([3.0]), torch.tensor([5.0]).double()
    untrimmed = keep_channels(importance, bound=bound, dual=dual, **plain)
    assert not untrimmed.any()
    assert objective(importance, untrimmed.numpy(), bound=3.0, dual=5.0, **plain) == pytest.approx(-0.45)

    trimmed = trim_dual(dual, descending(importance), bound=bound, step_size=0.1)
    assert trimmed.item() == pytest.approx(2.0)
    kept = keep_channels(importance, bound=bound, dual=trimmed, **plain)
    assert kept.tolist() == [[True, True, True, False]]
    for tied in (kept.numpy(), np.array([True, True, False, False])):  # the larger of two minimisers, as phi >= 3 wants
        assert objective(importance, tied, bound=3.0, dual=2.0, **plain) == pytest.approx(0.1)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_trimmed_dual_keeps_the_bound_whatever_the_rounding(data):
    """phi >= min(floor(s), alive) with numbers that binary fractions can't hold: 2 alpha (a / 2 alpha) may miss a."""
    positive = st.floats(1e-12, 1e6)
    importance = data.draw(st.lists(positive | st.just(0.0), min_size=1, max_size=9))
    rows = torch.tensor([importance], dtype=data.draw(st.sampled_from([torch.float32, torch.float64])))
    dual = torch.tensor([data.draw(positive)], dtype=torch.float64)
    bound = torch.tensor([data.draw(st.floats(0, len(importance)))], dtype=torch.float64)
    arguments = {"bound": bound, "step_size": data.draw(st.floats(1e-6, 1.0))}
    trimmed = trim_dual(dual, descending(rows), **arguments)
    assert 0 <= trimmed.item() <= dual.item()
    kept = keep_channels(rows, dual=trimmed, rho=data.draw(st.sampled_from([0.0, 10.0])), **arguments) & (rows > 0)
    assert kept.sum() >= min(int(bound), int((rows > 0).sum()))
    assert torch.equal(trim_dual(trimmed / 2, descending(rows), **arguments), trimmed / 2)  # low enough: left alone


def test_price_is_the_dual_at_which_the_count_changes():
    rows = torch.tensor([[0.5, 2.0, 1.0], [3.0, 0.0, 0.0]])
    price = channel_price(descending(rows), bound=torch.tensor([2.9, 1.0]), step_size=0.5)
    assert price.tolist() == [1.0, 3.0]
    kept = [keep_channels(rows, bound=3, dual=price * f, rho=0.0, step_size=0.5).sum(1).tolist() for f in (1.0, 1.001)]
    assert kept == [[2, 1], [1, 0]]


@given(st.lists(QUARTERS, min_size=1, max_size=8), st.floats(0, 9), st.floats(0, 20), st.floats(1e-6, 1))
def test_nothing_to_do_is_the_identity(importance, bound, rho, step_size):
    rows = torch.tensor(importance)
    assert keep_channels(rows, bound=bound, dual=0, rho=0, step_size=step_size).all()
    assert keep_channels(rows, bound=len(rows), dual=0, rho=rho, step_size=step_size).all()


@pytest.mark.parametrize("wrong", [{"dual": -0.1}, {"rho": -1.0}, {"step_size": 0.0}])
def test_arguments_for_which_the_rule_is_no_minimum_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected .* got .* try"):
        keep_channels(torch.ones(3), **({"bound": 1.0, "dual": 0.0, "rho": 1.0, "step_size": 0.1} | wrong))


def test_against_a_numerical_minimiser_of_equation_8():
    """Weights, metric and L1 as they stand in (8), minimised numerically on each support, without any closed form."""
    random = np.random.default_rng(0)
    channels, entries = 4, 3
    for _ in range(10):
        weights = 0.3 * random.normal(size=(entries, channels)) * random.lognormal(size=channels)
        metric = random.uniform(0.2, 2.0, size=weights.shape)
        bound, dual, rho, step_size = random.uniform(0, channels), random.uniform(0, 3), 1.5, 0.05

        def equation_8(moved, w=weights, b=metric, s=bound, y=dual, rho=rho, alpha=step_size):
            phi = (np.linalg.norm(moved, axis=0) != 0).sum()
            l1 = rho / 2 * max(phi - s, 0) ** 2 + y * (phi - s)
            return 0.5 * (b * (moved - w) ** 2).sum() + alpha * l1

        lowest = {}
        for support in itertools.product([False, True], repeat=channels):

            def on_support(entries_of_it, support=support, of=equation_8):
                moved = np.zeros((entries, channels))
                moved[:, support] = entries_of_it.reshape(entries, -1)
                return of(moved)

            start = random.normal(size=entries * sum(support))
            lowest[support] = minimize(on_support, start, method="BFGS").fun if any(support) else on_support(start)
        importance = torch.from_numpy((weights**2 * metric).sum(0))
        kept = keep_channels(importance, bound=bound, dual=dual, rho=rho, step_size=step_size)
        assert lowest[tuple(kept.tolist())] == pytest.approx(min(lowest.values()), abs=1e-6)

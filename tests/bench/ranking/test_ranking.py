"""Planted orders and ties come out; false positives and coverage are as promised; what can't be ranked says why."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import bench
from bench.ranking import inference, rank, ranking
from bench.ranking.curves import Curve
from bench.ranking.inference import holm, paired_t, t_interval
from shared.rng import numpy_generator
from tests.bench.ranking.tables import BUDGETS, page
from tests.house import ROOT

LEVELS = np.array([0.70, 0.76, 0.80, 0.83, 0.85])  # accuracy by budget


def noisy(shift: float, seeds: int, name: str, deviation: float = 0.002) -> np.ndarray:
    return LEVELS + shift + numpy_generator(0, name).normal(0, deviation, (seeds, len(LEVELS)))


def by_method(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("method")


def test_a_planted_order_comes_out() -> None:
    order = {"ecc": 0.03, "uniform-gradual": 0.02, "amc": 0.01, "uniform": 0.0}
    table = rank(page({name: noisy(shift, 10, name) for name, shift in reversed(order.items())}))
    assert table["method"].tolist() == list(order) and table["rank"].tolist() == [1, 2, 3, 4]
    assert (table["n"] == 10).all() and (table["misses"] == 0).all() and (table["reason"] == "").all()
    rows = by_method(table)
    assert rows.loc["ecc", "difference"] == pytest.approx(0.01, abs=0.002)
    assert rows.loc["ecc", "difference_low"] < rows.loc["ecc", "difference"] < rows.loc["ecc", "difference_high"]
    assert rows.loc["ecc", "p"] < 0.001 and rows.loc["amc", "difference"] == pytest.approx(-0.01, abs=0.002)
    assert rows.loc["ecc", "improvement"] == 1 and rows.loc["uniform", "improvement"] == 0
    assert rows.loc["ecc", "sign_flip"] == inference.least_sign_flip(10)
    assert rows.loc["uniform-gradual", ["difference", "p", "improvement"]].isna().all()


def test_what_cannot_be_told_apart_shares_a_rank() -> None:
    methods = {"ecc": 0.03, "amc": 0.03, "uniform-gradual": 0.0, "uniform": 0.0}
    rows = by_method(rank(page({name: noisy(shift, 8, name) for name, shift in methods.items()})))
    assert rows.loc[["ecc", "amc"], "rank"].tolist() == [1, 1]
    assert rows.loc[["uniform-gradual", "uniform"], "rank"].tolist() == [3, 3]


def test_means_are_taken_at_equal_readings() -> None:
    """A method whose networks read lower at the same accuracies is ahead; by hand, from the lines between points."""
    runs = page({"ecc": noisy(0, 6, "same"), "uniform-gradual": noisy(0, 6, "same")})
    ours = runs["method"] == "ecc"
    runs.loc[ours, "measures.reading"] *= 0.95
    rows = by_method(rank(runs))
    low, high = 0.99 * BUDGETS[0], 0.95 * 0.99 * BUDGETS[-1]
    grid = np.linspace(low, high, 100_001)
    expected = [
        np.interp(grid, 0.95 * 0.99 * np.array(BUDGETS), accuracies).mean()
        - np.interp(grid, 0.99 * np.array(BUDGETS), accuracies).mean()
        for accuracies in noisy(0, 6, "same")
    ]
    assert rows.loc["ecc", "difference"] == pytest.approx(np.mean(expected), abs=1e-6) and np.mean(expected) > 0.005
    assert rows.loc["ecc", "rank"] == 1 and rows.loc["uniform-gradual", "rank"] == 2


def test_a_miss_puts_a_method_apart() -> None:
    accuracies = {name: noisy(0.01 * place, 6, name) for place, name in enumerate(["uniform-gradual", "ecc", "amc"])}
    for budget in (BUDGETS[0], BUDGETS[2], BUDGETS[-1]):
        table = rank(page(accuracies, missed=[("amc", budget, 3)]))
        assert table["method"].tolist() == ["ecc", "uniform-gradual", "amc"]
        last = table.iloc[-1]
        assert pd.isna(last["rank"]) and pd.isna(last["p"]) and last["misses"] == 1
        assert last["reason"] == f"missed: seed 3 at {budget:.6g}: Infeasible: too little"
        assert last["improvement"] == pytest.approx(5 / 6)  # ahead in five seeds, lost in one
        assert table["rank"].tolist()[:2] == [1, 2]


def test_families_are_fixed_beforehand() -> None:
    """A method that misses counts as a test, so that the others' p does not fall when it does."""
    accuracies = {name: noisy(0.001 * place, 6, name) for place, name in enumerate(["uniform-gradual", "ecc", "amc"])}
    runs = page(accuracies, missed=[("amc", BUDGETS[2], 3)])
    low, high = 0.99 * BUDGETS[0], 0.99 * BUDGETS[-1]
    weights = Curve(0.99 * np.array(BUDGETS), np.zeros(5)).weights(low, high)
    p = paired_t((accuracies["ecc"] - accuracies["uniform-gradual"]) @ weights)
    assert 0 < p < 0.5
    assert by_method(rank(runs)).loc["ecc", "p"] == pytest.approx(2 * p)
    assert ranking(runs).resolvable == pytest.approx(inference.resolvable(ranking(runs).pairs[0].deviation, 6, 3))


def differing(p: float) -> np.ndarray:
    """Six differences whose paired t test has this p."""
    shape = np.array([-1.0, 0.5, 0.2, -0.3, 0.6, 0.4])
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    return 0.01 * (shape + scipy.stats.t.ppf(1 - p / 2, 5) / np.sqrt(6))


@pytest.mark.parametrize(("p", "ranks"), [(0.049, [1, 2]), (0.051, [1, 1])])
@pytest.mark.parametrize("third", [False, True])
def test_ranks_turn_at_five_percent_of_the_family_of_all_pairs(p: float, ranks: list[int], third: bool) -> None:
    """Of one pair, or of three where a method without a rank is on the page."""
    differences = differing(p / 3 if third else p)
    accuracies = {"ecc": LEVELS + differences[:, None], "uniform-gradual": np.tile(LEVELS, (6, 1))}
    if third:
        accuracies["amc"] = noisy(0, 6, "amc")
    table = rank(page(accuracies, missed=[("amc", BUDGETS[2], 3)]))
    assert table["method"].tolist()[:2] == ["ecc", "uniform-gradual"] and table["rank"].tolist()[:2] == ranks


def test_columns_are_scipys() -> None:
    """Budgets are evenly spaced, so means weigh them as 1, 2, 2, 2 and 1."""
    accuracies = {"uniform-gradual": noisy(0, 6, "a"), "ecc": noisy(0.001, 6, "b"), "amc": noisy(-0.001, 6, "c")}
    rows = by_method(rank(page(accuracies)))
    means = {name: table @ [1, 2, 2, 2, 1] / 8 for name, table in accuracies.items()}
    ps = {}
    for name, values in means.items():
        own = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert rows.loc[name, ["mean", "low", "high"]].tolist() == pytest.approx([values.mean(), own.low, own.high])
        if name != "uniform-gradual":
            differences = values - means["uniform-gradual"]
            test = scipy.stats.ttest_rel(values, means["uniform-gradual"])
            ends, ps[name] = test.confidence_interval(0.95), test.pvalue
            columns = ["difference", "difference_low", "difference_high"]
            assert rows.loc[name, columns].tolist() == pytest.approx([differences.mean(), ends.low, ends.high])
            flips = scipy.stats.permutation_test((differences,), np.mean, permutation_type="samples")
            assert rows.loc[name, "sign_flip"] == pytest.approx(flips.pvalue)
            assert rows.loc[name, "improvement"] == pytest.approx((differences > 0).mean())
    small, large = sorted(ps, key=lambda name: ps[name])
    assert rows.loc[small, "p"] == pytest.approx(2 * ps[small]) and 2 * ps[small] < 1
    assert rows.loc[large, "p"] == pytest.approx(max(ps[large], 2 * ps[small]))


def test_the_larger_mean_is_the_better_method() -> None:
    """Of nine seeds, four are far ahead and five a little behind."""
    differences = np.array(4 * [0.1] + 5 * [-0.001])
    assert paired_t(differences) < 0.05
    rows = by_method(rank(page({"ecc": LEVELS + differences[:, None], "uniform-gradual": np.tile(LEVELS, (9, 1))})))
    assert rows.loc["ecc", "rank"] == 1 and rows.loc["uniform-gradual", "rank"] == 2


def test_two_methods_are_compared_over_all_joules_of_both() -> None:
    """Not only over those of a third: ahead by 5 points at the least budget alone, an eighth of it on average."""
    noise = numpy_generator(0, "noise").normal(0, 1e-4, (6, 1))
    ahead = np.array([0.05, 0, 0, 0, 0])
    runs = page({"ecc": LEVELS + ahead + noise, "uniform-gradual": np.tile(LEVELS, (6, 1))})
    runs = pd.concat([runs, page({"amc": noisy(-0.1, 6, "amc")[:, 1:4]}, BUDGETS[1:4])])
    expected = 0.05 / 2 / 4 + float(noise.mean())
    rows = by_method(rank(runs))
    assert rows.loc["ecc", "difference"] == pytest.approx(expected, rel=1e-9)
    assert rows.loc["ecc", "mean"] - rows.loc["uniform-gradual", "mean"] == pytest.approx(noise.mean(), abs=1e-12)
    assert rows["rank"].to_dict() == {"ecc": 1, "uniform-gradual": 2, "amc": 3}
    assert np.mean(ranking(runs).pairs[0].differences) == pytest.approx(expected, rel=1e-9)


def test_methods_without_a_budget_or_of_weights_are_not_on_the_table() -> None:
    runs = page({"ecc": noisy(0.01, 6, "a"), "uniform-gradual": noisy(0, 6, "b")})
    dense = page({"dense": [[0.9]] * 6}, [0.5]).assign(**{"budget": None, "budget.amount": np.nan})
    weights = page({"wsp-weights": noisy(0.02, 6, "c")}).assign(granularity="weights")
    table = rank(pd.concat([dense, runs, weights]))
    pd.testing.assert_frame_equal(table, rank(runs))


def test_a_miss_of_an_unfinished_seed_is_counted() -> None:
    runs = page({"ecc": noisy(0, 6, "a"), "uniform-gradual": noisy(0, 6, "b")}, missed=[("ecc", BUDGETS[1], 5)])
    runs = runs.drop(runs[(runs["method"] == "ecc") & (runs["seed"] == 5) & (runs["budget"] == "0.3")].index)
    row = by_method(rank(runs)).loc["ecc"]
    assert row["misses"] == 1 and row["n"] == 5


def test_no_spread_is_shown_and_not_tested() -> None:
    """Two networks at chance level."""
    accuracies = {"ecc": np.full((6, 5), 0.1), "uniform-gradual": np.full((6, 5), 0.1), "amc": noisy(0.2, 6, "amc")}
    rows = by_method(rank(page(accuracies)))
    assert rows.loc["ecc", "difference"] == pytest.approx(0) and np.isnan(rows.loc["ecc", "p"])
    assert rows.loc["amc", "rank"] == 1 and rows.loc[["ecc", "uniform-gradual"], "rank"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (page({"ecc": noisy(0, 1, "a"), "uniform-gradual": noisy(0, 1, "b")}), "ranks need 5 seeds .* got 1"),
        (page({"ecc": noisy(0, 3, "a"), "uniform-gradual": noisy(0, 3, "b")}), "ranks need 5 seeds .* got 3"),
        (page({"ecc": noisy(0, 7, "a"), "uniform-gradual": noisy(0, 4, "b")}), "ranks need 5 seeds .* got 4"),
        (page({"ecc": noisy(0, 6, "a"), "amc": noisy(0, 6, "b")}, ranks=False), "protocol quick is not made to rank"),
        (page({"ecc": noisy(0, 6, "a")}), "two or more methods with budgets, got 1"),
        (
            pd.concat([page({"ecc": noisy(0, 6, "a")}), page({"amc": noisy(0, 6, "b")}, [1, 2, 3, 4, 5])]),
            "no range in common",
        ),
        (page({"ecc": [[0.5]] * 6, "amc": [[0.4]] * 6}, [0.3]), "no range in common; try two or more budgets"),
        (
            page(
                {"ecc": noisy(0, 6, "a"), "amc": noisy(0, 6, "b")},
                missed=[(name, budget, seed) for name in ("ecc", "amc") for budget in BUDGETS for seed in range(6)],
            ),
            "every method missed a budget",
        ),
    ],
)
def test_what_cannot_be_ranked_says_why(runs: pd.DataFrame, reason: str) -> None:
    table = rank(runs)
    assert table["rank"].isna().all() and len(table) == runs["method"].nunique()
    assert table["reason"].str.contains(reason).all(), table["reason"].tolist()


def test_differences_to_the_reference_need_three_seeds() -> None:
    two, three = (
        by_method(rank(page({"ecc": noisy(0.05, n, "a"), "uniform-gradual": noisy(0, n, "b")}))) for n in (2, 3)
    )
    assert two.loc["ecc", ["difference", "difference_low", "p", "sign_flip", "improvement"]].isna().all()
    assert three.loc["ecc", "p"] < 0.05 and three.loc["ecc", "sign_flip"] == 0.25


def test_pages_are_ranked_apart_and_unfinished_seeds_left_out() -> None:
    one = page({"ecc": noisy(0.02, 6, "a"), "uniform-gradual": noisy(0, 6, "b")})
    other = page({"ecc": noisy(-0.02, 6, "a"), "uniform-gradual": noisy(0, 6, "b")}).assign(page="b-page")
    other = other.drop(other[(other["method"] == "ecc") & (other["seed"] == 5) & (other["budget"] == "0.3")].index)
    table = rank(pd.concat([one, other]))
    assert table["page"].tolist() == ["a-page"] * 2 + ["b-page"] * 2
    assert table["method"].tolist() == ["ecc", "uniform-gradual", "uniform-gradual", "ecc"]
    assert table["n"].tolist() == [6, 6, 6, 5]


def test_committed_pages_say_why_they_do_not_rank() -> None:
    """A method has a rank or a reason; one seed has neither a rank nor a figure of a comparison."""
    table = bench.rank(bench.load_records(ROOT / "reports/records"))
    assert table["page"].nunique() >= 5 and table["mean"].dropna().between(0, 1).all()
    assert (table["rank"].notna() == (table["reason"] == "")).all()
    one_seed = table[table["n"].fillna(0) <= 1]
    assert not one_seed.empty and one_seed["rank"].isna().all()
    assert one_seed[["low", "high", "difference", "p", "improvement"]].isna().all(axis=None)
    quick = table[table["page"].str.endswith("-quick")]
    assert quick["reason"].str.contains("not made to rank").all()


def test_a_frame_without_runs_has_no_ranks() -> None:
    assert rank(page({}).reindex(columns=page({"a": [[0.1] * 5]}).columns)).empty


METHODS = 12


def seed_means(seeds: int, correlation: float, tables: int, name: str) -> np.ndarray:
    """Mean accuracies (tables, methods, seeds) of null tables: no method is better, spreads differ, in points.

    Cells of a seed share a part of their noise within a method, so that they correlate by `correlation`.
    """
    random = numpy_generator(0, name)
    spread = np.linspace(0.2, 1.5, METHODS)[:, None, None]
    shared_part = random.normal(size=(tables, METHODS, seeds, 1))
    own = random.normal(size=(tables, METHODS, seeds, len(BUDGETS)))
    cells = spread * (np.sqrt(correlation) * shared_part + np.sqrt(1 - correlation) * own)
    weights = Curve(np.array(BUDGETS), np.zeros(len(BUDGETS))).weights(BUDGETS[0], BUDGETS[-1])
    return np.asarray(cells @ weights)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6])
def test_null_tables(seeds: int, correlation: float) -> None:
    """Family-wise false positives of at most 6 %, and intervals that cover in 93 to 97 %, over 1,000 tables."""
    means = seed_means(seeds, correlation, 1_000, f"null {seeds} {correlation}")
    against = means[:, 1:] - means[:, :1]
    first, second = np.triu_indices(METHODS, 1)
    for family in (against, means[:, first] - means[:, second]):
        assert (holm(paired_t(family)) < 0.05).any(axis=-1).mean() <= 0.06
    interval = t_interval(against)
    assert 0.93 <= ((interval.low <= 0) & (interval.high >= 0)).mean() <= 0.97


def test_planted_difference_is_found() -> None:
    """Of 1.5 points at five seeds: 0.6 points per cell difference, correlated by 0.3, in a family of eleven."""
    random = numpy_generator(0, "planted")
    shape = (1_000, METHODS - 1, 5)
    cells = 0.6 * (np.sqrt(0.3) * random.normal(size=(*shape, 1)) + np.sqrt(0.7) * random.normal(size=(*shape, 5)))
    weights = Curve(np.array(BUDGETS), np.zeros(5)).weights(BUDGETS[0], BUDGETS[-1])
    differences = cells @ weights
    differences[:, 0] += 1.5
    assert (holm(paired_t(differences))[:, 0] < 0.05).mean() >= 0.8


def test_resolvable_difference_of_a_page() -> None:
    page_runs = page({name: noisy(0, 6, name) for name in ("ecc", "amc", "uniform-gradual")})
    result = ranking(page_runs)
    spreads = [pair.deviation for pair in result.pairs]
    typical = float(np.sqrt(np.mean(np.square(spreads))))
    assert len(result.pairs) == 3 and result.resolvable == pytest.approx(inference.resolvable(typical, 6, 3))

"""One ranking of all channels against removing them one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Infeasible
from shared.widths.ranked import lowest_scores


@given(
    bounds=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 10_000),
    share=st.floats(0.0, 1.0),
    ties=st.booleans(),
)
def test_as_few_of_the_lowest_as_meet_the_budget(bounds: list[int], seed: int, share: float, ties: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    scores = torch.rand(len(bounds), max(bounds), generator=draw)
    scores = (scores * 4).round() if ties else scores
    prices = torch.rand(len(bounds), generator=draw).double() + 0.01
    least = [1 + int(torch.randint(0, bound, (), generator=draw)) for bound in bounds]

    def energy(widths: torch.Tensor) -> float:
        return float(widths.double() @ prices)

    floor, dense = energy(torch.tensor(least)), energy(torch.tensor(bounds))
    budget = floor + share * (dense - floor) + 1e-12
    left = [sorted(range(bound), key=lambda c, u=unit: (-float(scores[u, c]), c)) for unit, bound in enumerate(bounds)]
    while energy(torch.tensor([len(channels) for channels in left])) > budget:
        # of every unit its lowest channel is next; among equal scores the later unit goes first
        candidates = [(float(scores[u, left[u][-1]]), -u) for u in range(len(bounds)) if len(left[u]) > least[u]]
        unit = -min(candidates)[1]
        left[unit].pop()
    dead = lowest_scores(scores, bounds, energy, budget, least)
    kept = [{c for c in range(bound) if not dead[u, c]} for u, bound in enumerate(bounds)]
    assert kept == [set(channels) for channels in left]
    assert not any(bool(dead[u, bound:].any()) for u, bound in enumerate(bounds))


def test_a_budget_below_the_least_widths_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="expected a budget of at least 3 "):
        lowest_scores(torch.rand(2, 4), [4, 3], lambda widths: float(widths.sum()), 2.5, [2, 1])


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(FloatingPointError, match="expected scores that are numbers, got NaN"):
        lowest_scores(torch.tensor([[1.0, torch.nan]]), [2], lambda widths: 1.0, 2.0, [1])

"""What repair goes by: what channels are worth, and what they save. How it goes on is in test_readings.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import repair
from bench.plan import Ground
from shared.meters.reading import Held
from shared.meters.settings import SHORT
from shared.platforms import MeasuredPlatform, choose
from shared.platforms.measured import CLOCK_SHORT


@given(st.data())
def test_a_channels_worth_is_a_share_of_its_unit(drawn: st.DataObject) -> None:
    """By hand, whatever the scale of a unit's norms."""
    bounds = drawn.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    norms = torch.zeros(len(bounds), max(bounds), dtype=torch.float64)
    for unit, bound in enumerate(bounds):
        scale = 4.0 ** drawn.draw(st.integers(-9, 9))
        drawn_norms = drawn.draw(st.lists(st.integers(1, 1000), min_size=bound, max_size=bound))
        norms[unit, :bound] = scale * torch.tensor(drawn_norms)
    table = repair.worth(norms)
    for unit, bound in enumerate(bounds):
        strongest = sorted(norms[unit, :bound].tolist(), reverse=True)
        by_hand = [math.log(sum(strongest[:kept]) / sum(strongest)) for kept in range(1, bound + 1)]
        assert (table[unit, 1 : bound + 1] - table[unit, bound]).tolist() == pytest.approx(by_hand)


def test_a_unit_of_zeros_is_worth_the_same_at_every_width() -> None:
    table = repair.worth(torch.tensor([[0.0, 0.0, 0.0]]))
    assert table.isfinite().all() and (table == table[0, 0]).all()


@pytest.mark.parametrize("error", [0.0, 0.005, 0.05, 1e6])
def test_savings_trust_readings_as_far_as_they_are_sure(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    """Readings that show three times what the model tells; oracle: Bayes' rule on a grid of factors."""
    whole, dense = ground.structure.upper_bounds, ground.dense_reading
    here = choose("cpu", "latency")
    assert isinstance(here, MeasuredPlatform)

    def estimate(widths: Sequence[int]) -> float:
        return float(ground.fit.model(ground.structure.positions(list(widths))))

    def read(subject: object, rows: Sequence[Sequence[int]], *rest: object) -> list[SimpleNamespace]:
        """On a day when all takes twice as long; 10 dense networks' amount for the whole one otherwise."""
        shares = [1 - 3 * (estimate(whole) - estimate(row)) / (10 * dense) for row in rows]

        def held(share: float) -> Callable[[SimpleNamespace, float], Held]:
            return lambda other, standard: Held(share * standard, (0.0, 0.0), error * dense)

        return [SimpleNamespace(amount=20 * dense * share, held_against=held(share)) for share in shares]

    monkeypatch.setattr(here, "read", read)
    monkeypatch.setattr(repair, "hardware_of", lambda ground: (here, None))
    ours = repair._savings(ground, whole, 10 * dense)(torch.tensor(whole))
    slopes = ground.fit.model.gradient(ground.structure.positions(list(whole)))[1:-1]
    factors = np.linspace(-20, 20, 400_001)
    for bound, slope, our in zip(whole, slopes.tolist(), ours.tolist(), strict=True):
        half = repair.TOGETHER * (bound // 2 // repair.TOGETHER) or bound // 2
        told = (bound - half) * slope
        if error == 0.0:
            expected = 3.0
        else:
            likelihood = np.exp(-0.5 * ((factors - 1) ** 2 + (told * (3 - factors) / (error * dense)) ** 2))
            expected = float((factors * likelihood).sum() / likelihood.sum())
        assert our / slope == pytest.approx(expected, rel=1e-4)


def test_readings_that_decide_are_closer_than_a_profiles() -> None:
    """On boards, too, which go by the visits and windows alone."""
    for short in (SHORT, CLOCK_SHORT):
        closer = repair.closer(short)
        assert (closer.visits, closer.target) == (2 * short.visits, short.target / 2)
        assert closer.limit_s == 4 * short.limit_s and closer.window_s == short.window_s

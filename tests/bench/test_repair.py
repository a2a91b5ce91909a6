"""What repair goes by: what channels are worth, and what they save. How it goes on is in test_readings.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import repair
from bench.plan import Ground
from shared.meters.reading import Held
from shared.platforms import MeasuredPlatform, choose


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


@pytest.mark.parametrize("half_width", [0.0, 0.01, 0.1, 1e6])
def test_savings_trust_readings_as_far_as_they_are_sure(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, half_width: float
) -> None:
    """Readings that show three times what the model tells; oracle: Bayes' rule on a grid of factors."""
    whole, dense = ground.structure.upper_bounds, ground.dense_reading
    here = choose("cpu", "latency")
    assert isinstance(here, MeasuredPlatform)

    def estimate(widths: Sequence[int]) -> float:
        return float(ground.fit.model(ground.structure.positions(list(widths))))

    def read(subject: object, rows: Sequence[Sequence[int]], *rest: object) -> list[SimpleNamespace]:
        amounts = [10 * dense - 3 * (estimate(whole) - estimate(row)) for row in rows]
        helds = [Held(amount, (amount - half_width * dense, amount + half_width * dense)) for amount in amounts]
        return [SimpleNamespace(amount=held.amount, held_against=lambda *_, held=held: held) for held in helds]

    monkeypatch.setattr(here, "read", read)
    monkeypatch.setattr(repair, "hardware_of", lambda ground: (here, None))
    ours = repair._savings(ground, whole)(torch.tensor(whole))
    slopes = ground.fit.model.gradient(ground.structure.positions(list(whole)))[1:-1]
    factors = np.linspace(-20, 20, 400_001)
    for bound, slope, our in zip(whole, slopes.tolist(), ours.tolist(), strict=True):
        half = repair.TOGETHER * (bound // 2 // repair.TOGETHER) or bound // 2
        told, error = (bound - half) * slope, max(half_width, 1e-9) * dense / repair.SIDES
        if half_width == 0.0:
            expected = 3.0
        else:
            likelihood = np.exp(-0.5 * ((factors - 1) ** 2 + (told * (3 - factors) / error) ** 2))
            expected = float((factors * likelihood).sum() / likelihood.sum())
        assert our / slope == pytest.approx(expected, rel=1e-4)

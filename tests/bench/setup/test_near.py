"""Each budget has an energy model of its own: the global one, corrected near it, but for the paper's kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from bench.setup import plan
from bench.setup.budgets import Budget
from bench.setup.request import Request
from bench.setup.setup import Setup, prepare
from shared.platforms import SimulatedPlatform

POSITIONS = [1.0, *[4.0] * 14, 10.0]


def budget(setup: Setup, fraction: float) -> Budget:
    return Budget(fraction, fraction * setup.reach.dense_reading)


def test_a_budget_s_model_is_the_global_one_times_its_factor(setup: Setup) -> None:
    tight, loose = budget(setup, 0.3), budget(setup, 0.6)
    assert setup.model(None) is setup.fit.model and setup.fit.kind == "bilinear+linear"
    near = setup.near(tight)
    assert near.factor != 1 and abs(near.bias) < 0.01
    whole = setup.fit.model(POSITIONS)
    torch.testing.assert_close(setup.model(tight)(POSITIONS), near.factor * whole)
    assert setup.near(loose).factor != near.factor
    widths = tuple(map(int, POSITIONS[1:-1]))
    assert setup.estimate(widths, tight) == pytest.approx(near.factor * setup.estimate(widths, None))
    assert setup.reach_at(tight).floor == pytest.approx(near.factor * setup.reach.floor)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (Request(protocol="smoke"), "bilinear+linear"),
        (Request(protocol="paper"), "bilinear"),
        (Request(protocol="smoke", energy_model="bilinear"), "bilinear"),
        (Request(protocol="paper", energy_model="bilinear+linear"), "bilinear+linear"),
    ],
)
def test_the_paper_s_kind_is_judged_and_not_corrected(request_: Request, kind: str, in_cache: Any) -> None:
    setup = prepare(request_)
    near = setup.near(Budget(0.5, (setup.reach.floor + setup.reach.top) / 2))
    assert setup.fit.kind == kind and (near.factor == 1) == (kind == "bilinear")
    assert near.samples == 1000


def test_a_platform_is_read_once_for_a_budget(setup: Setup, in_cache: Any) -> None:
    fresh = replace(setup)
    with patch.object(SimulatedPlatform, "local_profile", side_effect=setup.platform.local_profile) as read:
        for _ in range(2):
            fresh.near(budget(setup, 0.4))
        assert read.call_count == 1
        loaded = fresh.with_dense_weights()
        assert loaded.near(budget(setup, 0.4)) is fresh.near(budget(setup, 0.4)) and read.call_count == 1
        replace(loaded, profile=setup.profile).near(budget(setup, 0.4))  # another setup may have another model
        assert read.call_count == 2


def test_a_further_budget_leaves_the_keys_of_others(in_cache: Any) -> None:
    def keys(budgets: str) -> dict[str, str]:
        made = plan.make(Request(methods="uniform,dense", protocol="smoke", budgets=budgets))
        made = replace(made, setup=made.setup.with_dense_weights())
        return {job.name: made.key(job) for job in made.jobs}

    few, more = keys("0.4"), keys("0.4,0.3,0.6")
    assert few.items() <= more.items() and len(more) == len(set(more.values())) == 4


def test_a_plan_judges_its_budgets_before_anything_trains_and_without_compressing_methods_none(in_cache: Any) -> None:
    with patch.object(Setup, "near", autospec=True, side_effect=AssertionError("read")):
        assert len(plan.make(Request(methods="dense", protocol="smoke")).jobs) == 1
        with pytest.raises(AssertionError, match="read"):
            plan.make(Request(methods="dense,uniform", protocol="smoke"))

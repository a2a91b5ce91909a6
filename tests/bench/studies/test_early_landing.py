"""The study of landing before fine-tuning or after it: both orders cut the same share, and the page's sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.run.stages import make_task
from bench.run.teacher import live
from bench.setup.budgets import Budget
from bench.setup.plan import Job
from bench.setup.request import Request
from bench.setup.setup import Setup
from bench.studies import early_landing
from bench.studies.early_landing import SHARE, Scores, compare, page
from shared.networks import structure


def test_both_orders_cut_the_same_share(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = setup.profile.dense_reading
    job = Job("uniform", Budget(0.5, 0.5 * dense), 0)
    trained, cut_on = [], []
    fine_tune, cut = early_landing.fine_tune, early_landing._cut

    def watched_fine_tune(small, task, ledger):  # type: ignore[no-untyped-def]
        trained.append(structure(small).upper_bounds)
        return fine_tune(small, task, ledger)

    def watched_cut(network, setup, task):  # type: ignore[no-untyped-def]
        small = cut(network, setup, task)
        cut_on.append((structure(network).upper_bounds, structure(small).upper_bounds))
        return small

    monkeypatch.setattr(early_landing, "fine_tune", watched_fine_tune)
    monkeypatch.setattr(early_landing, "_cut", watched_cut)
    scores = compare(job, setup, make_task(job, setup, live(setup.dense.network)))
    (whole, early), (same, late) = cut_on
    assert whole == same and trained == [early, whole]  # so the second cut comes after fine-tuning
    assert scores.removed == (sum(whole) - sum(early), sum(whole) - sum(late)) and min(scores.removed) > 0
    rows = setup.structure.positions(torch.tensor([whole, early, late])).numpy()
    amounts = setup.platform.measure(setup.structure.operations, rows, setup.inference_batch)
    assert (amounts[1:] <= SHARE * amounts[0]).all() and (amounts[1:] > 0.85 * amounts[0]).all()
    assert all(0 <= one <= 1 for one in scores[:3])


def test_the_page_gives_every_pair_and_the_mean_by_hand(setup: Setup) -> None:
    budget = Budget(0.3, 0.3 * setup.profile.dense_reading)
    scores = {
        Job("ecc", budget, 0): Scores(0.9, 0.85, 0.80, (30, 31)),
        Job("ecc", budget, 1): Scores(0.9, 0.84, 0.83, (30, 31)),
        Job("ecc", budget, 2): Scores(0.9, 0.86, 0.83, (30, 31)),
        Job("uniform", budget, 0): Scores(0.8, 0.5, 0.6, (7, 8)),
    }
    text = page(replace(setup, request=Request(protocol="smoke")), scores)
    assert "| ecc | 0 | 90.00 | 85.00 | 80.00 | 5.00 | 30, 31 |" in text
    assert "| ecc | +3.00 | 1.15 | 3 |" in text  # gains 5, 1, 3: deviation 2, by the root of 3
    assert "| uniform | -10.00 | – | 1 |" in text
    assert "at 95% of what they were" in text and "compressed to 0.3 of the dense reading (1080ti, simulated;" in text

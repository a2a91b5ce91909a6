"""The choice of ecc-invariant's importance: candidates are invariant, and the page chooses the best of these alone."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from bench.studies import netadapt_adam
from bench.studies.choices import COLUMNS
from bench.studies.importances import CHOICE, INVARIANT, VARIANTS
from tests.methods.ecc.test_invariant import before_and_after

SCALE = 7.0


@pytest.mark.parametrize("layer", ["depthwise", "second"])
@pytest.mark.parametrize("name", INVARIANT)
def test_candidates_do_not_change_with_a_scale_that_batch_norm_undoes(name: str, layer: str) -> None:
    before, after = before_and_after(VARIANTS[name], layer, SCALE)
    torch.testing.assert_close(after, before, rtol=5e-3, atol=0)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in (*INVARIANT, "uniform-gradual")])
def test_the_others_do(name: str) -> None:
    before, after = before_and_after(VARIANTS[name], "second", SCALE)
    assert ((after / before.clamp(min=1e-30) - 1).abs() > 0.05).any()


def test_the_best_invariant_one_is_chosen_whatever_the_others_score() -> None:
    scores = dict(zip(VARIANTS, (0.95, 0.88, 0.90, 0.97, 0.89, 0.99), strict=True))
    rows = [
        (network, budget, name, seed, score + shift)
        for network in ("mobilenet", "alexnet")
        for budget in ("0.45", "0.3")
        for name, score in scores.items()
        for seed, shift in ((101, 0.005), (102, -0.005))
    ]
    page = CHOICE.page(pd.DataFrame(rows, columns=COLUMNS))
    assert f"Chosen among the candidates by the mean: **{INVARIANT[1]}**." in page
    line = next(line for line in page.splitlines() if line.startswith("| mobilenet, 0.45"))
    assert [cell.strip() for cell in line.split("|")[2:4]] == ["95.00 ± 0.71", "88.00 ± 0.71"]
    assert "over the seeds 101, 102," in page


def test_what_one_adam_is_worth_is_a_difference_of_means() -> None:
    rows = [
        (network, "0.3", name, 101, score)
        for network in ("mobilenet", "alexnet")
        for name, score in zip(netadapt_adam.VARIANTS, (0.80, 0.85, 0.78, 0.77), strict=True)
    ]
    page = netadapt_adam.CHOICE.page(pd.DataFrame(rows, columns=COLUMNS))
    assert "worth +5.00 points to `netadapt` and -1.00 to `netadapt-original`" in page
    assert "`python -m bench.studies.netadapt_adam reports` makes this page." in page

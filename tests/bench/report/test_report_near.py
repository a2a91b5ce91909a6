"""The page's section about energy models near budgets shows the records' figures, and runs of two models part."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.record.model import Record
from bench.report import near
from bench.report.frame import checked
from shared.errors import BadInput

Make = Callable[..., Record]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_errors_near_each_budget(quick_runs: list[Record]) -> None:
    text = near.section(checked(quick_runs))
    assert text is not None and "the factor that corrects `bilinear+linear`" in text
    cells = rows(text)
    expected = ["0.9900", "1.23", "−0.12", "−0.31 to +0.07", "−4.56", "1,000"]
    assert cells[2] == ["0.25", *expected] and cells[3] == ["0.35", *expected]


def test_the_errors_on_the_networks_that_methods_returned(make_record: Make) -> None:
    """Ê is 0.995 of the budget; the reading before landing is set. Two seeds give their mean."""
    runs = [make_record("ecc", 0.35, seed, reading_share=share) for seed, share in ((0, 0.995), (1, 1.01))]
    text = near.section(checked([*runs, make_record("uniform", 0.25, reading_share=0.9)]))
    assert text is not None
    assert rows(text)[-2:] == [["ECC", "–", "−0.74"], ["Uniform", "+10.56", "–"]]  # (0 + 0.995 / 1.01 - 1) / 2


def test_a_model_without_correction_is_said_to_have_none(make_record: Make) -> None:
    run = make_record()
    plain = run.energy_fit.model_copy(update={"kind": "bilinear"})
    text = near.section(checked([run.model_copy(update={"energy_fit": plain})]))
    assert text is not None and "which is not corrected" in text and "factor that corrects" not in text


def test_runs_without_local_profiles_have_no_section(make_record: Make) -> None:
    assert near.section(checked([make_record(local_fit=None)])) is None
    assert near.section(checked([make_record("dense", None)])) is None


def test_runs_of_a_budget_share_its_model(make_record: Make) -> None:
    run = make_record("amc")
    assert run.local_fit is not None
    for other in (run.local_fit.model_copy(update={"fingerprint": "another"}), None):
        runs = [make_record("ecc"), run.model_copy(update={"local_fit": other})]
        with pytest.raises(BadInput, match=r"expected one energy model per budget, got .* for 0\.35 of dense in"):
            checked(runs)
    checked([make_record("ecc", 0.35), make_record("ecc", 0.25)])  # two budgets have two models

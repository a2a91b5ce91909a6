"""The grid of learning rates: controls alone choose, others stand beside them, and known scores are kept."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.setup.budgets import Budget
from bench.setup.plan import Job
from bench.setup.request import Request
from bench.studies import netadapt_adam, trials, tuning
from bench.studies.importances import VARIANTS
from bench.studies.trials import Trial
from methods.contract import Infeasible
from methods.ecc import ECC

ASKED = Request(protocol="smoke", methods="ecc", meter="sim")
# search scores by method over the grid: the controls' mean is best at 2e-3, ECC's at 8e-3
SCORES = {
    "uniform": (0.70, 0.80, 0.84, 0.82, 0.60),
    "uniform-gradual": (0.71, 0.82, 0.83, 0.84, 0.70),
    "ecc": (0.5, 0.6, 0.7, 0.8, 0.9),
}


@pytest.fixture
def tune(tmp_path: Path, in_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, list[Trial]]]:
    """Tunes with planted scores; returns the page and the trials that were run."""
    monkeypatch.setattr(trials, "ProcessPoolExecutor", lambda jobs, *_: ThreadPoolExecutor(jobs))

    def run(scores: dict[str, tuple[float, ...]] = SCORES) -> tuple[str, list[Trial]]:
        done = []

        def score(trial: Trial) -> float:
            done.append(trial)
            return scores[trial.job.method][tuning.GRID.index(trial.rate or 0.0)]

        monkeypatch.setattr(trials, "_score", score)
        tuning.tune(ASKED, jobs=1, folder=tmp_path, console=Console(quiet=True))
        return (tmp_path / "learning-rate-smoke.md").read_text(), done

    return run


def test_the_controls_alone_choose_the_rate(tune: Callable[..., tuple[str, list[Trial]]]) -> None:
    page, done = tune()
    asked = {(trial.job.method, trial.rate) for trial in done}
    assert asked == {(name, rate) for name in SCORES for rate in tuning.GRID}
    assert len({trial.job.budget for trial in done}) == 1  # the tightest
    assert "| 0.002 (best) | 84.00 | 83.00 | 83.50 | 70.00 |" in page
    assert "\nChosen: 0.002.\n" in page and "Of its own ecc would take 0.008, for +20.00 points." in page


def test_a_best_rate_on_the_edge_is_said_to_be_there(tune: Callable[..., tuple[str, list[Trial]]]) -> None:
    page, _ = tune(SCORES | dict.fromkeys(("uniform", "uniform-gradual"), (0.5, 0.6, 0.7, 0.8, 0.9)))
    assert "Chosen: 0.008. It lies on the edge of the grid: widen the grid." in page


def test_known_scores_are_not_computed_again(
    tune: Callable[..., tuple[str, list[Trial]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = tune()
    again, done = tune({name: (0.0,) * 5 for name in SCORES})
    assert again == first and not done
    monkeypatch.setattr(trials, "code_fingerprint", lambda: "edited")
    changed, done = tune({name: (0.0, 0.1, 0.2, 0.1, 0.0) for name in SCORES})
    assert len(done) == 15 and changed != first


def test_a_stopped_study_keeps_what_it_has(tune: Callable[..., tuple[str, list[Trial]]], tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Scores(dict):  # type: ignore[type-arg]
        def __getitem__(self, name: str) -> tuple[float, ...]:
            if name == "ecc":
                raise Stop
            return super().__getitem__(name)

    with pytest.raises(Stop):
        tune(Scores(SCORES))
    page, done = tune()
    assert 5 <= len(done) < 15 and "Chosen: 0.002." in page


def test_the_key_of_a_trial_covers_all_that_decides_its_score() -> None:
    base = Trial(ASKED, Job("ecc", Budget(0.5, 1.0), 0), ECC(), 1e-3, "shared")
    others = [
        replace(base, rate=2e-3),
        replace(base, rate=None),
        replace(base, shared="other weights"),
        replace(base, method=ECC(rho_1=1.0)),
        replace(base, job=replace(base.job, seed=1)),
        replace(base, job=replace(base.job, budget=Budget(0.4, 0.8))),
        replace(base, request=replace(ASKED, network="alexnet")),
        *(replace(base, method=method) for method in list(VARIANTS.values())[1:]),
        *(replace(base, method=method) for method in netadapt_adam.VARIANTS.values()),
    ]
    keys = [trial.key for trial in [base, *others]]
    assert len(set(keys)) == len(keys)
    assert base.key == replace(base, request=replace(ASKED, methods="uniform,amc", seeds="4")).key


def test_a_trial_s_key_covers_weights_images_and_the_model_of_its_budget(in_cache: Path) -> None:
    plan = trials.planned(ASKED)
    job, setup = plan.jobs[0], plan.setup
    others = [
        replace(setup, weights=replace(setup.dense, fingerprint="others")),
        replace(setup, dataset=replace(setup.dataset, fingerprint="others")),
        replace(setup, fit=replace(setup.fit, model=replace(setup.fit.model, intercept=2 * setup.fit.model.intercept))),
    ]
    keys = [trials.trial(replace(plan, setup=one), job, ECC()).key for one in (setup, *others)]
    assert len(set(keys)) == 4


def test_a_miss_is_kept_as_one_and_counts_as_the_worst(tune: Callable[..., tuple[str, list[Trial]]]) -> None:
    page, _ = tune(SCORES | {"ecc": (0.5, 0.6, 0.7, 0.8, None)})  # type: ignore[dict-item]
    assert "Of its own ecc would take 0.004" in page and "| 0.008 | 60.00 | 70.00 | 65.00 | 0.00 |" in page
    assert "A score of 0.00 is a miss" in page
    again, done = tune()
    assert again == page and not done


def test_a_trial_out_of_reach_is_a_miss(in_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = trials.planned(ASKED)

    def unable(*_: object) -> None:
        raise Infeasible("no")

    monkeypatch.setattr(trials, "compressed", unable)
    assert trials._score(trials.trial(plan, plan.jobs[0], ECC())) is None

"""Requests become plans, or one clear line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import plan
from bench.plan import Ground, Request
from shared.errors import BadInput


@pytest.fixture(autouse=True)
def _ground(ground: Ground, in_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "lay_ground", lambda request: ground)


def test_jobs_are_the_product_and_the_dense_control_has_no_budget() -> None:
    made = plan.make(Request(methods="uniform,dense", protocol="smoke", budgets="0.5,0.4", seeds="0,7"))
    assert [job.name for job in made.jobs] == [
        "uniform-0.5-s0", "uniform-0.4-s0", "dense-dense-s0", "uniform-0.5-s7", "uniform-0.4-s7", "dense-dense-s7",
    ]  # fmt: skip
    assert made.slug == "mobilenet-fashion-mnist-1080ti-simulated-smoke"


def test_fractions_are_of_the_dense_reading_and_joules_are_taken_as_they_are(ground: Ground) -> None:
    joules = 0.5 * ground.dense_reading_joules
    by_fraction = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5")).jobs[0].budget
    by_joules = plan.make(Request(methods="uniform", protocol="smoke", budgets=f"{joules!r}J")).jobs[0].budget
    assert by_fraction is not None and by_joules is not None
    assert by_fraction.joules == by_joules.joules == pytest.approx(joules)
    assert by_joules.fraction == pytest.approx(0.5)


def test_repeated_items_count_once() -> None:
    assert (
        len(plan.make(Request(methods="uniform,uniform", protocol="smoke", budgets="0.5,0.5", seeds="1,1")).jobs) == 1
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": "ecc,nope"}, "'nope'"),
        ({"methods": "ecc,,amc"}, "empty item"),
        ({"protocol": "nope"}, "'nope'"),
        ({"budgets": "much"}, "'much'"),
        ({"budgets": "0"}, "positive"),
        ({"budgets": "-0.5"}, "positive"),
        ({"budgets": "nan"}, "'nan'"),
        ({"budgets": "inf"}, "'inf'"),
        ({"budgets": "3.2ms"}, "latency"),
        ({"budgets": "1.0"}, "not below the dense network"),
        ({"budgets": "5J"}, "not below the dense network"),
        ({"budgets": "0.0001"}, "below what the network can reach"),
        ({"seeds": "one"}, "integer seed"),
        ({"seeds": "1.5"}, "integer seed"),
        ({"seeds": "-1"}, "integer seed"),
    ],
)
def test_bad_requests_say_what_was_expected(change: dict[str, str], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        plan.make(replace(Request(methods="uniform", protocol="smoke"), **change))
    message = str(caught.value)
    assert words in message and message.startswith("expected") and "; try " in message and "\n" not in message


def test_the_range_error_prints_the_range(ground: Ground) -> None:
    with pytest.raises(BadInput, match=f"{ground.floor_joules:.4g} J"):
        plan.make(Request(methods="uniform", protocol="smoke", budgets="0.0001"))


def test_key_depends_on_all_that_decides_the_outcome(ground: Ground) -> None:
    made = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5,0.4", seeds="0,1"))
    keys = {made.key(job, weights, source) for job in made.jobs for weights in "ab" for source in "cd"}
    assert len(keys) == 4 * 2 * 2
    longer = replace(made, ground=replace(ground, protocol=replace(ground.protocol, iterations=5)))
    assert longer.key(made.jobs[0], "a", "c") not in keys

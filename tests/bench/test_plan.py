"""Requests become plans, or one clear line."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from bench import plan
from bench.plan import Ground, Request
from shared.errors import BadInput


@pytest.fixture(autouse=True)
def _ground(ground: Ground, in_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "lay_ground", lambda *_, **__: ground)


def test_jobs_are_the_product_and_the_dense_control_has_no_budget() -> None:
    made = plan.make(Request(methods="uniform,dense", protocol="smoke", budgets="0.5,0.4", seeds="0,7"))
    assert [job.name for job in made.jobs] == [
        "uniform-0.5-s0", "uniform-0.4-s0", "dense-dense-s0", "uniform-0.5-s7", "uniform-0.4-s7", "dense-dense-s7",
    ]  # fmt: skip
    assert made.slug == "mobilenet-fashion-mnist-1080ti-simulated-smoke"


def test_fractions_are_of_the_dense_reading_and_joules_are_taken_as_they_are(ground: Ground) -> None:
    joules = 0.5 * ground.dense_reading
    by_fraction = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5")).jobs[0].budget
    by_joules = plan.make(Request(methods="uniform", protocol="smoke", budgets=f"{joules!r}J")).jobs[0].budget
    assert by_fraction is not None and by_joules is not None
    assert by_fraction.amount == by_joules.amount == pytest.approx(joules)
    assert by_joules.fraction == pytest.approx(0.5)


@pytest.mark.parametrize("budgets", ["0.5,0.5", "0.5,.5,0.500,5e-1,+0.5"])
def test_repeated_items_count_once(budgets: str) -> None:
    assert len(plan.make(Request(methods="uniform,uniform", protocol="smoke", budgets=budgets, seeds="1,1")).jobs) == 1


def test_the_same_budget_as_fraction_and_in_joules_counts_once(ground: Ground) -> None:
    both = f"0.5,{0.5 * ground.dense_reading!r}J"
    assert len(plan.make(Request(methods="uniform", protocol="smoke", budgets=both)).jobs) == 1


def test_different_joules_of_one_name_are_refused() -> None:
    with pytest.raises(BadInput, match="differ in six digits"):
        plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5,0.50000001"))
    assert len(plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5,0.50001")).jobs) == 2


def test_the_command_names_no_place_and_no_default() -> None:
    assert Request().command == "python -m bench run"
    asked = Request(methods="ecc,uniform", budgets="0.35,0.0247J", seeds="0,1", data="/somewhere/else")
    assert asked.command == "python -m bench run --methods ecc,uniform --budgets 0.35,0.0247J --seeds 0,1"
    assert shlex.split(Request(budgets="0.35, 0.3").command)[-1] == "0.35, 0.3"
    meters = {
        "nvml": "nvml",
        "ina3221:VDD_IN": "ina3221:VDD_IN",
        "replay:/a/b/power.csv": "replay:power.csv",
        "board:VDD_IN@jetson": "board:VDD_IN@jetson",
        "board:VDD_IN@/a/b/errands/": "board:VDD_IN@./errands",
        "board:./errands": "board:./errands",
        "board:VDD_IN@/home/a@b/errands": "board:VDD_IN@./errands",
        "board:/home/a@b/errands": "board:./errands",
        "board:VDD_IN@user@jetson": "board:VDD_IN@user@jetson",
    }
    for meter, told in meters.items():
        assert Request(meter=meter).command == f"python -m bench run --meter {told}"


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a b", "n" * 200, "ümlaut"])
def test_a_method_whose_name_names_no_folder_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.registry.BUILT_IN, name, "methods.controls.uniform:Uniform")
    with pytest.raises(BadInput, match="method names of letters"):
        plan.make(Request(methods=name, protocol="smoke"))


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


@pytest.mark.parametrize("factor", [1.0, 1.00012, 0.99987, 1 / 3])
def test_the_ends_of_the_printed_range_can_be_asked_for(
    factor: float, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other joules of the dense network too, since rounding to nearest goes inwards half of the time."""
    other = replace(ground, profile=replace(ground.profile, dense_reading=factor * ground.dense_reading))
    monkeypatch.setattr(plan, "lay_ground", lambda *_, **__: other)
    with pytest.raises(BadInput) as caught:
        plan.make(Request(methods="uniform", protocol="smoke", budgets="0.0001"))
    found = re.search(
        r"\(([\d.e-]+) J to below ([\d.e-]+) J per image, fractions ([\d.e-]+) to below ([\d.e-]+)\)", str(caught.value)
    )
    assert found is not None
    low, high, least, most = found.groups()
    assert float(low) == pytest.approx(other.floor, rel=1e-3)
    assert float(high) == pytest.approx(other.top, rel=1e-3)
    for budget in (f"{low}J", f"{float(high) * (1 - 1e-12)!r}J", least, repr(float(most) * (1 - 1e-12))):
        assert len(plan.make(Request(methods="uniform", protocol="smoke", budgets=budget)).jobs) == 1


def test_key_depends_on_all_that_decides_the_outcome(ground: Ground) -> None:
    made = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5,0.4", seeds="0,1"))
    keys = {made.key(job, *rest) for job in made.jobs for rest in product("ab", "cd", "ef")}
    assert len(keys) == 4 * 2 * 2 * 2
    longer = replace(made, ground=replace(ground, protocol=replace(ground.protocol, iterations=5)))
    assert longer.key(made.jobs[0], "a", "c", "e") not in keys

"""Requests become plans, or one clear line."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from bench.setup import plan
from bench.setup.budgets import Budget
from bench.setup.plan import Job, Plan
from bench.setup.request import Request
from bench.setup.setup import Setup
from shared import platforms
from shared.computing import Computing
from shared.errors import BadInput


@pytest.fixture(autouse=True)
def _prepared(setup: Setup, in_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "prepare", lambda request, *_, **__: replace(setup, request=request))


def test_jobs_are_the_product_and_the_dense_control_has_no_budget() -> None:
    made = plan.make(Request(methods="uniform,dense", protocol="smoke", budgets="0.5,0.4", seeds="0,7"))
    assert [job.name for job in made.jobs] == [
        "uniform-0.5-s0", "uniform-0.4-s0", "dense-dense-s0", "uniform-0.5-s7", "uniform-0.4-s7", "dense-dense-s7",
    ]  # fmt: skip
    assert made.slug == "mobilenet-fashion-mnist-1080ti-simulated-smoke"


def test_fractions_are_of_the_dense_reading_and_joules_are_taken_as_they_are(setup: Setup) -> None:
    joules = 0.5 * setup.reach.dense_reading
    by_fraction = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5")).jobs[0].budget
    by_joules = plan.make(Request(methods="uniform", protocol="smoke", budgets=f"{joules!r}J")).jobs[0].budget
    assert by_fraction is not None and by_joules is not None
    assert by_fraction.amount == by_joules.amount == pytest.approx(joules)
    assert by_joules.fraction == pytest.approx(0.5)


@pytest.mark.parametrize("budgets", ["0.5,0.5", "0.5,.5,0.500,5e-1,+0.5"])
def test_repeated_items_count_once(budgets: str) -> None:
    assert len(plan.make(Request(methods="uniform,uniform", protocol="smoke", budgets=budgets, seeds="1,1")).jobs) == 1


def test_the_same_budget_as_fraction_and_in_joules_counts_once(setup: Setup) -> None:
    both = f"0.5,{0.5 * setup.reach.dense_reading!r}J"
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
        os.fsdecode(b"replay:/a/\xe9.csv"): r"'replay:\udce9.csv'",  # a record is UTF-8
    }
    for meter, told in meters.items():
        assert Request(meter=meter).command == f"python -m bench run --meter {told}"


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a b", "n" * 200, "ümlaut"])
@pytest.mark.parametrize("kind", ["method", "network"])
def test_a_name_that_names_no_folder_is_refused_before_anything_is_trained(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.registry.BUILT_IN, name, "methods.controls.uniform:Uniform")
    monkeypatch.delattr(plan, "prepare")
    asked = replace(Request(methods="uniform"), **{"methods" if kind == "method" else kind: name})
    with pytest.raises(BadInput, match=f"expected a {kind}'s name of letters, .*got {re.escape(repr(name))}"):
        plan.make(asked)


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
    factor: float, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other joules of the dense network too, since rounding to nearest goes inwards half of the time.

    The printed range is the global model's; near its ends the model that is corrected there may reach less.
    """
    other = replace(setup, profile=replace(setup.profile, dense_reading=factor * setup.reach.dense_reading))
    monkeypatch.setattr(plan, "prepare", lambda *_, **__: other)
    number = r"([\d.e-]+)"
    found = re.match(f"{number} J to below {number} J per image, fractions {number} to below", str(other.reach))
    assert found is not None
    low, high, least = found.groups()
    assert float(low) == pytest.approx(other.reach.floor, rel=1e-3)
    assert float(high) == pytest.approx(other.reach.top, rel=1e-3)
    monkeypatch.setattr(Setup, "reach_at", lambda setup, _: setup.reach)
    for budget in (f"{low}J", f"{float(high) * (1 - 1e-12)!r}J", least):
        assert len(plan.make(Request(methods="uniform", protocol="smoke", budgets=budget)).jobs) == 1


def test_a_budget_is_judged_again_by_the_model_that_is_corrected_near_it(setup: Setup) -> None:
    """Near the floor networks take more than the global model says; that shows before anything trains."""
    floor = setup.reach.floor
    corrected = setup.reach_at(Budget(floor / setup.reach.dense_reading, floor))
    assert corrected.floor > 1.02 * floor
    request = Request(methods="uniform", protocol="smoke", budgets=f"{1.01 * floor}J")
    with pytest.raises(BadInput, match="reachable range of the energy model corrected near it"):
        plan.make(request)
    assert plan.make(replace(request, methods="dense")).jobs  # it takes no budget


def test_without_budgets_a_plan_takes_the_protocol_s() -> None:
    (job,) = plan.make(Request(methods="uniform", protocol="smoke")).jobs
    assert job.name == "uniform-0.4-s0"


def test_without_budgets_a_plan_takes_what_the_platform_can_be_held_to(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On hardware whose dense network reads so little that the protocol's fraction lies below the floor."""
    dense = 2 * setup.reach.floor
    other = replace(setup, profile=replace(setup.profile, dense_reading=dense))
    monkeypatch.setattr(plan, "prepare", lambda *_, **__: other)
    (job,) = plan.make(Request(methods="uniform", protocol="smoke")).jobs
    assert job.budget == Budget(0.75, 0.75 * dense)  # halfway from 0.5 to 1


def outcomes(setup: Setup) -> Iterator[tuple[str, str]]:
    """What was changed, and the key of a job then. Each change alone decides another outcome."""
    job = Job("uniform", Budget(0.5, 0.5 * setup.reach.dense_reading), 0)

    def key(job: Job = job, **changes: object) -> str:
        return Plan(replace(setup, **changes), (job,)).key(job)  # type: ignore[arg-type]

    assert job.budget is not None
    yield "nothing", key()
    yield "method", key(replace(job, method="random"))
    yield "budget", key(replace(job, budget=replace(job.budget, amount=0.4 * setup.reach.dense_reading)))
    yield "no budget", key(replace(job, budget=None))
    yield "seed", key(replace(job, seed=1))
    for field in fields(setup.protocol):
        if field.name not in ("budgets", "seeds"):
            value = getattr(setup.protocol, field.name)
            other = f"{value}x" if isinstance(value, str) else (value or 0) + 1
            yield field.name, key(protocol=replace(setup.protocol, **{field.name: other}))
    model = replace(setup.fit.model, coefficients=2 * setup.fit.model.coefficients)
    yield "energy model", key(fit=replace(setup.fit, model=model))
    yield "dense weights", key(weights=replace(setup.dense, fingerprint="others"))
    yield "data set", key(dataset=replace(setup.dataset, fingerprint="other images"))
    yield "device", key(platform=platforms.get("tx2"))
    yield "training device", key(computing=Computing(torch.device("cpu"), compiled=True))
    for name in ("code_fingerprint", "method_fingerprint"):
        with patch.object(plan, name, lambda *_: "edited"):
            yield name, key()
    with patch.object(torch, "__version__", "0.0"):
        yield "torch", key()


def test_the_key_depends_on_all_that_decides_the_outcome(setup: Setup) -> None:
    found = dict(outcomes(setup))
    assert len(set(found.values())) == len(found) > 20


def test_the_key_does_not_depend_on_what_else_the_plan_holds(setup: Setup) -> None:
    job = Job("uniform", Budget(0.5, 0.5 * setup.reach.dense_reading), 0)
    other = replace(
        setup,
        request=replace(setup.request, methods="ecc", data="/elsewhere", seeds="5"),
        protocol=replace(setup.protocol, budgets=(0.1,), seeds=(5, 6)),
    )
    assert Plan(other, (job, job)).key(job) == Plan(setup, (job,)).key(job)

"""What a plan says it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from bench.run import cost, landing
from bench.run.progress import minutes
from bench.setup import plan
from bench.setup.request import Request
from bench.setup.setup import Setup
from methods import registry
from shared.platforms import PlatformReading, SimulatedPlatform

STEP_S, FORWARD_S = 0.5, 0.001


@pytest.fixture
def timings(setup: Setup, in_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Setup]]:
    """The setups that were timed, with prices as above."""
    timed: list[Setup] = []

    def unit_costs(network: object, feed: object, given: Setup) -> tuple[float, float]:
        timed.append(given)
        return STEP_S, FORWARD_S

    monkeypatch.setattr(plan, "prepare", lambda *_, **__: setup)
    monkeypatch.setattr(cost, "unit_costs", unit_costs)
    cost._prices.cache_clear()
    yield timed
    cost._prices.cache_clear()


def test_seconds_are_iterations_and_samples_at_their_prices(setup: Setup, timings: list[Setup]) -> None:
    made = plan.make(Request(methods="uniform,amc", protocol="smoke", budgets="0.5,0.4"))
    estimate = cost.estimate(made, made.jobs)
    samples = registry.get("amc").search_samples(setup.protocol, setup.structure)
    assert samples > 0 and estimate.search_samples == 2 * samples
    assert (estimate.training_iterations, estimate.fine_tune_iterations) == (4 * 4, 4 * 2)
    training = (4 + 2) * STEP_S
    assert list(estimate.job_seconds.values()) == pytest.approx(
        [training, training, *[training + samples * FORWARD_S] * 2]
    )


def test_a_plan_is_timed_once_however_often_it_is_estimated(setup: Setup, timings: list[Setup]) -> None:
    made = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5,0.4"))
    whole = cost.estimate(made, made.jobs)
    rest = cost.estimate(made, list(made.jobs[1:]))
    assert timings == [setup]
    assert rest.training_iterations == whole.training_iterations / 2
    other = replace(made, setup=replace(setup))
    cost.estimate(other, other.jobs)
    assert len(timings) == 2


def test_search_samples_are_those_of_the_jobs_own_budget(setup: Setup, timings: list[Setup]) -> None:
    """NetAdapt looks for longer when it has further to go; the protocol's budgets do not matter."""
    long = replace(setup.protocol, iterations=1_000_000)
    made = plan.make(Request(methods="netadapt", protocol="smoke", budgets="0.9,0.3"))
    made = replace(made, setup=replace(setup, protocol=long))
    near, far = (cost.estimate(made, [job]).search_samples for job in made.jobs)
    assert 0 < near < far / 5


@pytest.mark.parametrize("group", [1, 8])
def test_hardware_reads_each_network_to_land_it_and_all_of_them_in_the_end(
    group: int, setup: Setup, timings: list[Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading_s(self: object, rows: int, effort: str = "final") -> float:
        return {"landing": 7.0, "final": 100.0}[effort] * (rows + 1)

    made = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5,0.4,0.3"))
    assert cost.estimate(made, made.jobs).reading_s == 0.0
    assert "readings" not in cost.estimate(made, made.jobs).describe(1)
    monkeypatch.setattr(SimulatedPlatform, "reading_s", reading_s)
    monkeypatch.setattr(SimulatedPlatform, "channel_group", group)
    monkeypatch.setattr(SimulatedPlatform, "at_once", 1)
    estimate = cost.estimate(made, made.jobs)
    assert estimate.describe(2).endswith(f", then at most about {minutes(estimate.reading_s)} of readings")
    each = (estimate.reading_s - 100.0 * 4) / 3 / (7.0 * 2)
    norms = torch.ones(len(setup.structure.units), max(setup.structure.upper_bounds))
    path = list(landing.removal_path(norms, setup.structure.upper_bounds, setup))[1:]
    reads = [partial(played, enough) for enough in path]
    taken = [1 + landing._bisection(iter(path), read, 0.5, 1).readings for read in reads]
    assert max(taken) <= each <= max(taken) + 1


def played(enough: tuple[int, ...], rows: list[tuple[int, ...]]) -> list[PlatformReading]:
    """Readings of 0 for widths at which no more channels are left than there may be, else of 1."""
    amounts = [float(sum(row) > sum(enough)) for row in rows]
    return [PlatformReading(amount, (amount, amount)) for amount in amounts]


def test_wall_time_is_at_least_that_of_the_longest_job(timings: list[Setup]) -> None:
    made = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5,0.4", seeds="0,1"))
    estimate = replace(
        cost.estimate(made, made.jobs), job_seconds=dict(zip(made.jobs, (10.0, 10.0, 10.0, 50.0), strict=True))
    )
    assert "about 80 s on 1 processes" in estimate.describe(1)
    assert "about 50 s on 4 processes" in estimate.describe(4)
    assert estimate.describe(1).startswith("4 runs: 16 training iterations, 8 of fine-tuning, up to about 0 search")


def test_no_more_search_images_than_there_are(setup: Setup, timings: list[Setup]) -> None:
    made = plan.make(Request(methods="random", protocol="smoke", budgets="0.5"))
    few, many = (
        cost.estimate(replace(made, setup=replace(setup, protocol=replace(setup.protocol, search_images=n))), made.jobs)
        for n in (len(setup.dataset.search), 10_000_000)
    )
    assert few.search_samples == many.search_samples > 0


@pytest.mark.parametrize(("batch_size", "part"), [(16, 16), (64, 64), (65, 64), (640, 64)])
def test_of_many_pixels_a_part_is_timed(
    batch_size: int, part: int, setup: Setup, timings: list[Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "TIMED_PIXELS", 64 * 28 * 28)
    large = replace(setup, protocol=replace(setup.protocol, batch_size=batch_size))
    made = replace(plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5")), setup=large)
    (seconds,) = cost.estimate(made, made.jobs).job_seconds.values()
    assert timings[0].protocol.batch_size == part
    assert seconds == pytest.approx((4 + 2) * STEP_S * batch_size / part)


def test_where_no_table_fits_the_teacher_s_passes_are_paid(
    setup: Setup, timings: list[Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost.teacher, "LARGEST_TABLE_BYTES", 0)
    made = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5"))
    (seconds,) = cost.estimate(made, made.jobs).job_seconds.values()
    assert seconds == pytest.approx((4 + 2) * (STEP_S + 16 * FORWARD_S))


def test_missing_dense_weights_are_told_with_their_price(
    setup: Setup, timings: list[Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan.make(Request(methods="uniform", protocol="smoke", budgets="0.5"))
    assert cost.missing_weights(made) is None  # shipped
    monkeypatch.setattr(cost.dense, "find", lambda *_: None)
    recipe = cost.dense.Recipe(iterations=720, batch_size=32)
    monkeypatch.setattr(cost.dense, "recipe_of", lambda _: recipe)
    told = cost.missing_weights(made)
    assert told is not None and "\n" not in told
    assert "`python -m bench dense --network mobilenet --dataset fashion-mnist --weights FILE`" in told
    passes = 720 * 32 / len(setup.dataset.train)
    assert f"720 iterations of batch 32, {passes:.1f} passes over the images, about 12 min more" in told  # 2 * 0.5 s
    assert "else `run` trains them first, 720 iterations" in told
    files = replace(made.setup, workload=replace(made.setup.workload, dataset="imagenet"))
    elsewhere = cost.missing_weights(replace(made, setup=files)) or ""
    assert "--dataset imagenet --data DIR --weights FILE" in elsewhere
    assert "which `run` asks for; without --weights it trains them, 720 iterations" in elsewhere

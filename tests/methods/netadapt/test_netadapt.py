"""NetAdapt on a small task: what it tries, what it keeps, what it spends."""

import itertools
from dataclasses import replace

import pytest
import torch

from methods.contract import Infeasible, Task
from methods.netadapt import NetAdapt
from shared.energy import BilinearModel
from shared.networks import active_widths, importance


@pytest.fixture(scope="module")
def watched(tiny_task, watch):  # type: ignore[no-untyped-def]
    """One run that most tests of this module look at."""
    return watch(NetAdapt(), tiny_task(budget_fraction=0.4, iterations=90))


def estimate(task: Task, widths: tuple[int, ...]) -> float:
    return float(task.energy_model(task.structure.positions(widths)))


def chain_model(task: Task, constant: float, coefficients: list[float]) -> BilinearModel:
    bounds = tuple(map(float, task.structure.position_bounds))
    terms = tuple((j, j + 1) for j in range(len(coefficients)))
    return BilinearModel(torch.tensor(constant).double(), torch.tensor(coefficients).double(), terms, bounds)


def test_every_step_shrinks_one_unit_to_its_largest_width_within_the_target(watched) -> None:  # type: ignore[no-untyped-def]
    task, trace = watched.task, watched.outcome.trace
    before = task.structure.upper_bounds
    assert len(trace["widths"]) > 3
    for target, unit, widths in zip(trace["target_energy"], trace["unit"], trace["widths"], strict=True):
        assert [index for index in range(len(widths)) if widths[index] != before[index]] == [unit]
        assert widths[unit] < before[unit]
        one_more = [*widths[:unit], widths[unit] + 1, *widths[unit + 1 :]]
        assert estimate(task, widths) <= target < estimate(task, one_more)
        before = widths


def test_energy_falls_strictly_and_ends_within_the_budget(watched) -> None:  # type: ignore[no-untyped-def]
    task, trace = watched.task, watched.outcome.trace
    energy = [task.dense_energy, *trace["energy"]]
    assert all(after < before for before, after in itertools.pairwise(energy))
    assert trace["target_energy"][-1] == task.budget
    final = estimate(task, active_widths(watched.outcome.network))
    assert final <= task.budget
    assert final == pytest.approx(energy[-1], rel=1e-12)
    assert watched.outcome.notes["budget_unused_share"] == pytest.approx(1 - final / task.budget)


def test_candidates_keep_their_zeros_through_training(watched) -> None:  # type: ignore[no-untyped-def]
    """When it is judged, after its training, a candidate has lost channels of one unit alone, and none came back."""
    before, trace = watched.task.structure.upper_bounds, watched.outcome.trace
    for candidates, scores, widths in zip(watched.steps(), trace["accuracy"], trace["widths"], strict=True):
        units = [unit for unit, score in enumerate(scores) if score is not None]
        for unit, candidate in zip(units, candidates, strict=True):
            assert [u for u in range(len(before)) if candidate["widths"][u] != before[u]] == [unit]
        assert tuple(widths) in [candidate["widths"] for candidate in candidates]
        before = tuple(widths)


def test_the_least_important_channels_go(watched) -> None:  # type: ignore[no-untyped-def]
    task = watched.task
    norms = importance(task.network, task.structure)
    for candidate in watched.steps()[0]:
        (unit,) = (u for u, c in enumerate(task.structure.upper_bounds) if candidate["widths"][u] != c)
        producer = next(part.tensor for part in task.structure.units[unit].slices if part.role == "producer")
        alive = candidate["weights"][producer].flatten(1).any(1)
        order = norms[unit, : len(alive)].argsort(descending=True)
        assert set(order[: candidate["widths"][unit]].tolist()) == set(alive.nonzero().flatten().tolist())


def test_the_best_candidate_wins_and_hands_its_weights_on(watched) -> None:  # type: ignore[no-untyped-def]
    """The classifier's bias is never cut, so it tells whose weights the next candidates and the result start from."""
    trace, start, distinct = watched.outcome.trace, 0, 0
    for scores, unit, candidates in zip(trace["accuracy"], trace["unit"], watched.steps(), strict=True):
        judged = [candidate["accuracy"] for candidate in candidates]
        assert [score for score in scores if score is not None] == judged
        assert scores[unit] == max(judged)
        assert scores.index(max(judged)) == unit  # the first among equals
        distinct += len(set(judged)) > 1
        start += len(candidates)
        winner = candidates[[index for index, score in enumerate(scores) if score is not None].index(unit)]
        assert torch.equal(watched.starts[start]["classifier.bias"], winner["weights"]["classifier.bias"])
    assert distinct > 1  # else the test would not tell the best from any other


def test_iterations_are_spent_to_the_last_one(watched) -> None:  # type: ignore[no-untyped-def]
    task, trace, notes = watched.task, watched.outcome.trace, watched.outcome.notes
    assert task.ledger.remaining == 0
    spent = 0
    for short_term, candidates in zip(trace["short_term_iterations"], watched.steps(), strict=True):
        assert short_term >= task.protocol.minimum_short_term_iterations
        for candidate in candidates:
            spent += short_term
            assert candidate["spent"] == spent
    assert notes["candidates"] == len(watched.judged)
    assert notes["long_term_iterations"] == task.ledger.limit - spent < len(watched.steps()[-1])
    assert notes["surviving_iterations"] == sum(trace["short_term_iterations"]) + notes["long_term_iterations"]
    shortest, *_, longest = sorted(trace["short_term_iterations"])
    assert (notes["short_term_iterations_least"], notes["short_term_iterations_most"]) == (shortest, longest)
    assert shortest < longest
    assert task.ledger.search_samples == len(watched.judged) * task.protocol.search_images
    assert task.ledger.search_samples <= NetAdapt().search_samples(task.protocol, task.structure)


@pytest.mark.parametrize(("iterations", "candidates"), [(1000, 4 * 26), (90, 90 // 2), (7, 4 * 26)])
def test_samples_are_foretold_for_the_smallest_budget(iterations: int, candidates: int, tiny_task) -> None:  # type: ignore[no-untyped-def]
    """26 published steps of four units, or as many as get two iterations each; none is left out of a single step."""
    task = tiny_task(iterations=iterations, minimum_short_term_iterations=2)
    protocol = replace(task.protocol, budgets=(0.5, 0.35, 0.9))
    assert NetAdapt().search_samples(protocol, task.structure) == candidates * 50


def test_dense_network_is_left_alone(watched, dense_networks) -> None:  # type: ignore[no-untyped-def]
    assert active_widths(watched.task.network) == watched.task.structure.upper_bounds
    assert watched.task.network is dense_networks("toy")
    first = watched.starts[0]["classifier.bias"]
    assert torch.equal(first, watched.task.network.state_dict()["classifier.bias"])


def test_published_schedule_where_iterations_allow_it(tiny_task) -> None:  # type: ignore[no-untyped-def]
    """Targets are E0 * 0.96^n and the last one the budget."""
    task = tiny_task(budget_fraction=0.5, iterations=11, minimum_short_term_iterations=0)
    outcome = NetAdapt().run(task)
    assert outcome.notes["steps"] == outcome.notes["steps_of_the_paper_schedule"] == 17
    assert outcome.trace["target_energy"] == pytest.approx([0.96**step for step in range(1, 17)] + [0.5])
    assert 0 in outcome.trace["short_term_iterations"]  # without a minimum, candidates may be judged as they are
    assert task.ledger.remaining == 0


def test_targets_that_whole_channels_have_met_already_are_left_out(tiny_task) -> None:  # type: ignore[no-untyped-def]
    """A channel of the first unit is 8.2 % of the dense energy here, and no other unit reaches a target alone."""
    task = tiny_task(budget_fraction=0.5, iterations=11, minimum_short_term_iterations=0)
    task = replace(task, energy_model=chain_model(task, 0.0196, [0.98, 1e-4, 1e-4, 1e-4, 1e-4]))
    outcome = NetAdapt().run(task)
    assert outcome.trace["unit"] == [0] * 7
    channel = (0.98 + 1e-4) / 12
    energy = [1 - count * channel for count in range(8)]
    assert outcome.trace["energy"] == pytest.approx(energy[1:])
    following = [next(step for step in range(1, 18) if 0.96**step < before) for before in energy[:-2]]
    assert outcome.trace["target_energy"] == pytest.approx([0.96**step for step in following] + [0.5])


def test_candidates_that_cannot_reach_the_target_are_dropped_and_counted(tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(budget_fraction=0.2, iterations=40)
    outcome = NetAdapt().run(task)
    missing = sum(score is None for scores in outcome.trace["accuracy"] for score in scores)
    assert outcome.notes["candidates_dropped"] == missing > 0
    for target, scores, before in zip(
        outcome.trace["target_energy"],
        outcome.trace["accuracy"],
        [task.structure.upper_bounds, *outcome.trace["widths"]],
        strict=False,
    ):
        for unit, score in enumerate(scores):
            narrowest = [*before[:unit], 1, *before[unit + 1 :]]
            assert (score is None) == (before[unit] == 1 or estimate(task, narrowest) > target)


def test_a_budget_above_the_dense_network_only_trains(tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(budget_fraction=1.5, iterations=7)
    outcome = NetAdapt().run(task)
    assert active_widths(outcome.network) == task.structure.upper_bounds
    assert outcome.notes["long_term_iterations"] == 7 and task.ledger.remaining == 0
    assert outcome.notes["steps"] == 0 and task.ledger.search_samples == 0


def test_a_budget_below_one_channel_per_unit_is_infeasible_at_once(tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(budget_fraction=0.1)
    with pytest.raises(
        Infeasible, match=r"at least 0\.12\d+ J \(the smallest widths \(1, 1, 1, 1\)\), got 0\.1; try more$"
    ):
        NetAdapt().run(task)
    assert task.ledger.training_iterations == 0


def test_where_no_unit_reaches_the_target_alone_steps_are_finer(tiny_task) -> None:  # type: ignore[no-untyped-def]
    """Two terms of 2 % each are all that one unit can lower, a little less than a step of 4 %."""
    task = tiny_task(budget_fraction=0.95)
    task = replace(task, energy_model=chain_model(task, 0.9, [0.02] * 5))
    assert estimate(task, (1, 1, 1, 1)) < task.budget
    outcome = NetAdapt().run(task)
    assert estimate(task, active_widths(outcome.network)) <= task.budget
    assert outcome.notes["finer_steps"] == sum(outcome.trace["finer"]) > 0


def test_a_budget_that_no_unit_can_come_nearer_is_infeasible(tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(budget_fraction=0.95)
    flat = chain_model(task, 1.0, [0.0] * 5)
    with pytest.raises(Infeasible, match=r"at least 1 J \(the smallest widths .*\), got "):
        NetAdapt().run(replace(task, energy_model=flat))


def test_two_runs_are_the_same_bit_for_bit(tiny_task) -> None:  # type: ignore[no-untyped-def]
    runs = [NetAdapt().run(tiny_task(budget_fraction=0.6, iterations=30, seed=seed)) for seed in (3, 3, 4)]
    first, again, other = (run.network.state_dict() for run in runs)
    assert runs[0].trace == runs[1].trace and runs[0].notes == runs[1].notes
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.bias"], other["classifier.bias"])

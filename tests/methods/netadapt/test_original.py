"""`netadapt-original` on small tasks: additive steps, widths in multiples, accuracy lost per joule saved."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from methods.contract import Infeasible, Task
from methods.netadapt import NetAdapt, NetAdaptOriginal
from shared.energy import BilinearModel
from shared.networks import active_widths


@pytest.fixture(scope="module", params=["toy", "wide"])
def watched(request, tiny_task, wide_task, watch):  # type: ignore[no-untyped-def]
    """A run without a minimum of iterations, so with the published steps."""
    make, budget = (tiny_task, 0.45) if request.param == "toy" else (wide_task, 0.4)
    return watch(NetAdaptOriginal(), make(budget, iterations=150, minimum_short_term_iterations=0))


def estimate(task: Task, widths) -> float:  # type: ignore[no-untyped-def]
    return float(task.energy_model(task.structure.positions(widths)))


def smaller(width: int, dense: int) -> list[int]:
    """The widths that a unit may get: multiples of eight, of an eighth of its channels below 64."""
    step = 8 if dense >= 64 else dense // 8 if dense >= 8 else 1
    return [other for other in range(1, width) if other % step == 0]


@pytest.mark.parametrize(
    ("dense", "expected"), [(5, 1), (8, 1), (15, 1), (16, 2), (32, 4), (63, 7), (64, 8), (100, 8), (1024, 8)]
)
def test_widths_are_multiples_of_eight_or_of_an_eighth(dense: int, expected: int) -> None:
    assert NetAdaptOriginal().width_steps((dense, 512)) == (expected, 8)
    assert NetAdapt().width_steps((dense, 512)) == (1, 1)


def test_targets_fall_by_a_fortieth_of_dense_and_ever_less_from_what_was_achieved(watched) -> None:  # type: ignore[no-untyped-def]
    task, trace = watched.task, watched.outcome.trace
    energy = [1.0, *trace["energy"]]  # the dense network takes 1 J
    expected = [energy[n] - 0.025 * 0.96**n for n in range(len(energy) - 1)]
    assert trace["target_energy"][:-1] == pytest.approx(expected[:-1])
    assert trace["target_energy"][-1] in (task.budget, pytest.approx(expected[-1]))
    assert all(target >= task.budget for target in trace["target_energy"])
    assert estimate(task, active_widths(watched.outcome.network)) <= task.budget
    assert trace["coarser"] == [False] * len(trace["unit"]) and watched.outcome.notes["coarser_steps"] == 0


def test_every_step_takes_one_unit_to_the_largest_multiple_within_the_target(watched) -> None:  # type: ignore[no-untyped-def]
    """Oracle: all widths that are allowed, tried one by one, for each candidate and not for winners alone."""
    task, trace = watched.task, watched.outcome.trace
    before = task.structure.upper_bounds
    for target, scores, candidates, after in zip(
        trace["target_energy"], trace["accuracy"], watched.steps(), trace["widths"], strict=True
    ):
        expected = []
        for unit, width in enumerate(before):
            allowed = smaller(width, task.structure.upper_bounds[unit])
            tried = [[*before[:unit], other, *before[unit + 1 :]] for other in allowed]
            reaching = [widths for widths in tried if estimate(task, widths) <= target]
            assert (scores[unit] is None) == (not reaching)
            expected += [tuple(reaching[-1])] if reaching else []
        assert [candidate["widths"] for candidate in candidates] == expected
        assert tuple(after) in expected
        before = tuple(after)


def test_the_least_accuracy_lost_per_joule_wins(wide_task, watch) -> None:  # type: ignore[no-untyped-def]
    """Oracle: each candidate's ratio against what the step started from, at first the dense network.

    The accuracies are drawn, so that losses, gains and ties occur.
    """
    ratio_is_not_accuracy = gains = losses = 0
    for seed in range(8):
        task, draw = wide_task(0.4, iterations=0, minimum_short_term_iterations=0), random.Random(seed)
        vars(task).update(search_accuracy=lambda model, draw=draw: draw.randint(0, 9) / 9)
        run = watch(NetAdaptOriginal(), task)
        assert run.judged[0]["widths"] == task.structure.upper_bounds
        accuracy, energy, trace = run.judged[0]["accuracy"], 1.0, run.outcome.trace
        for scores, unit, candidates in zip(trace["accuracy"], trace["unit"], run.steps(), strict=True):
            units = [index for index, score in enumerate(scores) if score is not None]
            ratios = [
                (accuracy - one["accuracy"] + 1e-6) / (energy - estimate(task, one["widths"])) for one in candidates
            ]
            chosen = candidates[units.index(unit)]
            assert ratios[units.index(unit)] == pytest.approx(min(ratios), rel=1e-6)
            ratio_is_not_accuracy += chosen["accuracy"] < max(one["accuracy"] for one in candidates)
            gains, losses = gains + (min(ratios) < 0), losses + (min(ratios) > 0)
            accuracy, energy = chosen["accuracy"], estimate(task, chosen["widths"])
    assert min(ratio_is_not_accuracy, gains, losses) > 3


def test_where_nothing_is_lost_the_one_that_saves_most_wins(wide_task, watch) -> None:  # type: ignore[no-untyped-def]
    task = wide_task(0.4, iterations=0, minimum_short_term_iterations=0)
    vars(task).update(search_accuracy=lambda model: 0.5)
    run = watch(NetAdaptOriginal(), task)
    not_the_first = 0
    for achieved, candidates in zip(run.outcome.trace["energy"], run.steps(), strict=True):
        energy = [estimate(task, one["widths"]) for one in candidates]
        assert achieved == pytest.approx(min(energy), rel=1e-12)
        not_the_first += energy[0] > min(energy)
    assert not_the_first


def test_samples_are_foretold(wide_task) -> None:  # type: ignore[no-untyped-def]
    """One published step, four units, and the dense network: each sees 50 images."""
    task = wide_task(0.98, iterations=40)
    NetAdaptOriginal().run(task)
    foretold = NetAdaptOriginal().search_samples(task.protocol, task.structure)
    assert task.ledger.search_samples == foretold == (4 + 1) * 50


def test_the_ledger_is_spent_and_the_record_says_on_what(watched) -> None:  # type: ignore[no-untyped-def]
    task, trace, notes = watched.task, watched.outcome.trace, watched.outcome.notes
    candidates = [len(step) for step in watched.steps()]
    spent = sum(n * k for n, k in zip(trace["short_term_iterations"], candidates, strict=True))
    assert task.ledger.remaining == 0 and notes["long_term_iterations"] == task.ledger.limit - spent
    assert notes["surviving_iterations"] == sum(trace["short_term_iterations"]) + notes["long_term_iterations"]
    assert notes["candidates"] == sum(candidates)
    assert notes["candidates_dropped"] == len(task.structure.units) * len(candidates) - sum(candidates)
    assert task.ledger.search_samples == (sum(candidates) + 1) * task.protocol.search_images
    assert task.ledger.search_samples <= NetAdaptOriginal().search_samples(task.protocol, task.structure)
    assert notes["steps_of_the_paper_schedule"] == {0.45: 52, 0.4: 79}[task.protocol.budgets[0]]
    assert notes["reduction_scale_most"] == pytest.approx(1.0)


def test_too_few_iterations_make_coarser_steps_and_the_notes_say_so(wide_task) -> None:  # type: ignore[no-untyped-def]
    task = wide_task(0.7, iterations=40, minimum_short_term_iterations=2)
    outcome = NetAdaptOriginal().run(task)
    assert 0 < outcome.notes["coarser_steps"] == sum(outcome.trace["coarser"])
    assert outcome.notes["reduction_scale_most"] > 1.5
    assert outcome.notes["steps"] < outcome.notes["steps_of_the_paper_schedule"] == 17
    assert min(outcome.trace["short_term_iterations"]) >= 2
    assert task.ledger.remaining == 0
    assert estimate(task, active_widths(outcome.network)) <= task.budget


def test_a_budget_that_the_published_steps_never_add_up_to_is_met(wide_task) -> None:  # type: ignore[no-untyped-def]
    """Below 0.375 of dense; eights overshoot, so that there is an end."""
    task = wide_task(0.3, iterations=40, minimum_short_term_iterations=0)
    outcome = NetAdaptOriginal().run(task)
    assert outcome.notes["steps_of_the_paper_schedule"] is None and outcome.notes["coarser_steps"] == 0
    assert estimate(task, active_widths(outcome.network)) <= task.budget and task.ledger.remaining == 0


def test_one_multiple_less_is_more_than_the_budget_needs_and_the_notes_tell(tiny_task) -> None:  # type: ignore[no-untyped-def]
    """The last step aims at the budget, and the widest multiple below it is taken."""
    task = tiny_task(0.999, iterations=9)
    outcome = NetAdaptOriginal().run(task)
    assert outcome.trace["target_energy"] == [task.budget] and outcome.notes["steps"] == 1
    widths = active_widths(outcome.network)
    (unit,) = (u for u, bound in enumerate(task.structure.upper_bounds) if widths[u] < bound)
    assert widths[unit] == (11, 18, 14, 21)[unit]  # steps of 1, 2, 2, 3
    assert outcome.notes["budget_unused_share"] == pytest.approx(1 - estimate(task, widths) / 0.999)
    assert outcome.notes["budget_unused_share"] > 0.005


def test_smallest_widths_above_the_budget_are_infeasible_at_once(tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(0.13)
    assert estimate(task, (1, 1, 1, 1)) < 0.13 < estimate(task, (1, 2, 2, 3))
    with pytest.raises(
        Infeasible, match=r"at least 0\.\d+ J \(the smallest widths \(1, 2, 2, 3\)\), got 0\.13; try more$"
    ):
        NetAdaptOriginal().run(task)
    assert task.ledger.training_iterations == task.ledger.search_samples == 0


def test_where_no_unit_reaches_the_target_alone_steps_are_finer(tiny_task) -> None:  # type: ignore[no-untyped-def]
    """At most two terms of 1.2 % can go with one unit, less than a step of 2.5 %."""
    task = tiny_task(0.96)
    bounds = tuple(map(float, task.structure.position_bounds))
    terms = tuple((j, j + 1) for j in range(5))
    small = BilinearModel(torch.tensor(0.94).double(), torch.full((5,), 0.012).double(), terms, bounds)
    outcome = NetAdaptOriginal().run(replace(task, energy_model=small))
    assert outcome.notes["finer_steps"] == sum(outcome.trace["finer"]) > 0


class Residual(nn.Module):
    """Two convolutions whose outputs are added: one tie group of 16 channels, between units of 24 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (1, 16, 16)
        self.stem = nn.Conv2d(1, 24, 3, stride=2, padding=1)
        self.left = nn.Conv2d(24, 16, 3, padding=1)
        self.right = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.pool = nn.AvgPool2d(4)
        self.classifier = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        left = torch.relu(self.left(torch.relu(self.stem(x))))
        x = torch.relu(self.head(left + torch.relu(self.right(left))))
        return self.classifier(torch.flatten(self.pool(x), 1))


@pytest.mark.parametrize("method", [NetAdapt(), NetAdaptOriginal()], ids=lambda method: method.name)
def test_a_tie_group_is_one_candidate_and_keeps_the_same_channels(method, tiny_task, on_network, watch) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    task = on_network(tiny_task(0.6, iterations=30), Residual(), [0.1, 0.3, 0.4, 0.1])
    assert task.structure.upper_bounds == (24, 16, 32)
    run = watch(method, task)
    assert all(len(scores) == 3 for scores in run.outcome.trace["accuracy"])
    tied = next(step for step in run.steps()[:1] for step in step if step["widths"][1] < 16)
    rows = [tied["weights"][f"{name}.weight"].flatten(1).any(1) for name in ("left", "right")]
    assert torch.equal(rows[0], rows[1]) and int(rows[0].sum()) == tied["widths"][1]

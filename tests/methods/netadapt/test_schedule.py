"""Steps and candidate widths against exhaustive search and step-by-step sums."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from methods.netadapt.schedule import ADDITIVE, GEOMETRIC, Place, Reachable, next_step, reachable_energy, widest
from methods.netadapt.table import LookupTable
from shared.energy import BilinearModel
from shared.networks.units import Structure, Unit

SCHEDULES = st.sampled_from([GEOMETRIC, ADDITIVE])


@dataclass(frozen=True)
class Case:
    """A network at some widths, its energy, and a budget below that."""

    structure: Structure
    model: BilinearModel
    widths: tuple[int, ...]
    place: Place

    def alone(self, unit: int) -> list[float]:
        """Joules at widths 1, 2, … up to the present one of this unit alone, by the model itself."""
        rows = [[*self.widths[:unit], width, *self.widths[unit + 1 :]] for width in range(1, self.widths[unit] + 1)]
        return self.model(self.structure.positions(rows)).tolist()

    def reachable(self, width_step: int = 1) -> Reachable:
        table = LookupTable.from_model(self.model, self.structure.position_bounds)
        return reachable_energy(table, self.structure.at(self.widths), [width_step] * len(self.widths))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    bounds = draw(st.lists(st.integers(1, 40), min_size=2, max_size=6))
    units = tuple(Unit(index, f"layer{index}", bound, ()) for index, bound in enumerate(bounds))
    structure = Structure(units, (), image_channels=3, outputs=10)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    coefficients = torch.rand(len(bounds) + 1, generator=generator, dtype=torch.float64) ** 2
    terms = tuple((j, j + 1) for j in range(len(bounds) + 1))
    constant = torch.tensor(draw(st.floats(0, 1)), dtype=torch.float64)
    model = BilinearModel(constant, coefficients, terms, tuple(map(float, structure.position_bounds)))
    widths = tuple(draw(st.integers(1, bound)) for bound in bounds)
    energy = float(model(structure.positions(widths)))
    return Case(structure, model, widths, Place(energy, energy, energy * draw(st.floats(0.05, 0.999))))


def test_steps_of_the_geometric_schedule() -> None:
    """Steps for common budgets at 0.96 a step, as the ECC paper's equal-iteration protocol divides them."""
    wanted = {0.9: 3, 0.8: 6, 0.7: 9, 0.63: 12, 0.5: 17, 0.35: 26, 0.25: 34}
    assert {share: GEOMETRIC.published_steps(Place(2.0, 2.0, 2.0 * share)) for share in wanted} == wanted
    assert (
        GEOMETRIC.published_steps(Place(1, 1, 0.96)) == 1 and GEOMETRIC.published_steps(Place(1, 1, 0.96**5)) == 5
    )  # rounding
    assert GEOMETRIC.published_steps(Place(1, 1, 1)) == GEOMETRIC.published_steps(Place(1, 1, 2)) == 0


@given(st.floats(0.1, 10), st.floats(0.2, 1.0), st.floats(0.05, 1.0), st.integers(0, 60))
def test_steps_of_the_additive_schedule(dense: float, now: float, share: float, done: int) -> None:
    """Oracle: the reductions taken off one after the other; what they leave after 2,000 steps they leave for ever."""
    place = Place(dense, dense * now, dense * now * share, (1.0,) * done)
    left, counted = place.energy, 0
    assume(left - place.budget > 1e-6 * dense or left == place.budget)
    while left > place.budget and counted < 2_000:
        left -= 0.025 * dense * 0.96 ** (done + counted)
        counted += 1
        assume(abs(left - place.budget) > 1e-6 * dense)  # where rounding decides, either count is right
    assert ADDITIVE.published_steps(place) == (counted if counted < 2_000 else math.inf)


def test_the_additive_schedule_stops_at_three_eighths_of_dense() -> None:
    """And half of dense takes 40 steps where nothing overshoots."""
    assert ADDITIVE.published_steps(Place(1.0, 1.0, 0.5)) == 40
    assert (
        ADDITIVE.published_steps(Place(1.0, 1.0, 0.376)) < math.inf == ADDITIVE.published_steps(Place(1.0, 1.0, 0.375))
    )
    assert ADDITIVE.published_steps(Place(1.0, 1.0, 1.0)) == ADDITIVE.published_steps(Place(1.0, 1.0, 2.0)) == 0


def test_likely_steps() -> None:
    """Of the additive schedule as if its reductions no longer fell: 0.2 J by 0.05 J * 0.96^10 at a time."""
    place = Place(2.0, 1.2, 1.0, (1.5,) * 10)
    assert ADDITIVE.likely_steps(place) == math.ceil(0.2 / (0.05 * 0.96**10)) == 7
    assert ADDITIVE.likely_steps(Place(1.0, 1.0, 0.5)) == 20 and ADDITIVE.likely_steps(Place(1.0, 1.0, 0.3)) == 28
    assert GEOMETRIC.likely_steps(Place(2.0, 1.2, 1.0, (1.3,))) == 6 == math.ceil(math.log(1 / 1.248) / math.log(0.96))
    assert GEOMETRIC.likely_steps(Place(2.0, 1.2, 1.0, (1.25,))) == 5  # 1.25 * 0.96 is met, not aimed at again


@given(schedule=SCHEDULES, share=st.floats(0.05, 0.99), steps=st.integers(1, 40), done=st.integers(0, 30))
def test_coarser_steps_arrive_and_keep_their_proportions(schedule, share: float, steps: int, done: int) -> None:  # type: ignore[no-untyped-def]
    """Walked without overshoot, `steps` of them end at the budget: equal factors, or reductions that fall by 0.96."""
    budget, at = 3.0 * share, [3.0]
    for walked in range(steps):
        place = Place(3.0, at[-1], budget, (at[-1],) * (done + walked))
        at.append(schedule.coarser_target(place, steps - walked))
    assert at[-1] == pytest.approx(budget, rel=1e-9)
    if schedule is ADDITIVE:
        saved = [before - after for before, after in pairwise(at)]
        for before, after in pairwise(saved):
            assert after == pytest.approx(0.96 * before, rel=1e-6)


@given(case=cases(), schedule=SCHEDULES, width_step=st.sampled_from([1, 2, 8]))
def test_candidate_widths_are_the_largest_that_reach_the_target(case: Case, schedule, width_step: int) -> None:  # type: ignore[no-untyped-def]
    reachable = case.reachable(width_step)
    step = next_step(schedule, case.place, reachable, iterations=10**9, minimum=1)
    dense, budget = case.place.dense_energy, case.place.budget
    target = max(budget, 0.96 * dense if schedule is GEOMETRIC else 0.975 * dense)
    if sum(map(len, reachable)) == 1:  # one smaller width is left in all: this step is the last
        target = budget
    if step is not None and step.finer:
        assert all(min(values, default=math.inf) > target * (1 - 1e-12) for values in map(dict.values, reachable))
        return
    for unit, width in enumerate(case.widths):
        energy = case.alone(unit)
        smaller = [other for other in range(1, width) if other % width_step == 0]
        fitting = [other for other in smaller if energy[other - 1] <= target * (1 - 1e-12)]
        chosen = step.candidates.get(unit) if step is not None else None
        assert chosen == (max(fitting) if fitting else None)
        if chosen is not None:
            assert energy[chosen - 1] <= target
            assert chosen + width_step >= width or target < energy[chosen + width_step - 1] * (1 + 1e-9)
    if step is not None:
        assert step.target_energy == pytest.approx(target, rel=1e-12)
        assert not step.coarser


@given(case=cases(), schedule=SCHEDULES, iterations=st.integers(0, 2000), minimum=st.integers(0, 20))
def test_the_most_steps_that_leave_every_candidate_its_minimum(
    case: Case,
    schedule,  # type: ignore[no-untyped-def]
    iterations: int,
    minimum: int,
) -> None:
    """Oracle: every number of steps from one to that of the published schedule, tried from scratch."""
    energy = [case.alone(unit)[:-1] for unit in range(len(case.widths))]
    dense, budget = case.place.dense_energy, case.place.budget
    finest = sum(map(len, energy))  # more steps than widths can't be
    likely = math.log(budget / dense) / math.log(0.96) if schedule is GEOMETRIC else (dense - budget) / 0.025 / dense
    finest = min(finest, max(1, math.ceil(likely - 1e-9)))
    options = {}
    for steps in range(1, finest + 1):
        if schedule is GEOMETRIC:
            target = dense * (0.96 if steps == finest else (budget / dense) ** (1 / steps))
        else:
            shares = [0.96**n for n in range(steps)]
            target = dense * 0.975 if steps == finest else dense - (dense - budget) * shares[0] / sum(shares)
        target = max(budget, target) if steps > 1 else budget
        count = sum(any(value <= target * (1 - 1e-12) for value in values) for values in energy)
        if count:
            options[steps] = (target, iterations // (count * steps))
    step = next_step(schedule, case.place, case.reachable(), iterations, minimum)
    if not options:
        assert step is None or step.finer
        return
    generous = [steps for steps, (_, short_term) in options.items() if short_term >= minimum]
    expected = max(generous) if generous else min(options)
    assert step is not None
    assert step.coarser == (expected < finest)
    assert step.short_term_iterations == options[expected][1]
    assert step.target_energy == pytest.approx(options[expected][0], rel=1e-12)
    assert expected > 1 or step.target_energy == budget


@given(case=cases(), iterations=st.integers(0, 500), minimum=st.integers(0, 9))
def test_where_no_unit_can_do_a_step_it_is_as_fine_as_the_iterations_allow(
    case: Case, iterations: int, minimum: int
) -> None:
    """Oracle: all numbers of candidates, tried one by one, on energies that one unit alone can hardly change."""
    whole = case.place.energy
    saving = [{width: 1 - 0.01 * (1 - value / whole) for width, value in row.items()} for row in case.reachable()]
    scale = max((1 - value for values in saving for value in values.values()), default=0.0)
    assume(0 < scale < 0.02)
    step = next_step(GEOMETRIC, Place(1.0, 1.0, 0.9), saving, iterations, minimum)
    most = sorted((1 - min(values.values()) for values in saving if values), reverse=True)
    most = [saved for saved in most if saved > 1e-12]
    enough = [k for k in range(1, len(most) + 1) if k * math.ceil(0.1 / most[k - 1] - 1e-12) * minimum <= iterations]
    chosen = max(enough, default=1)
    assert step is not None and step.finer and not step.coarser
    assert step.target_energy == pytest.approx(1 - most[chosen - 1], rel=1e-9)
    assert len(step.candidates) >= chosen  # more where two units save the same
    for unit, width in step.candidates.items():
        assert saving[unit][width] <= step.target_energy
        assert all(saving[unit][other] > step.target_energy * (1 - 1e-12) for other in saving[unit] if other > width)


def test_nothing_to_save_is_no_step() -> None:
    assert next_step(GEOMETRIC, Place(1.0, 1.0, 0.5), [{1: 1.0}, {}], 100, 1) is None


@pytest.mark.parametrize("schedule", [GEOMETRIC, ADDITIVE])
def test_a_budget_by_a_rounding_error_below_takes_one_step(schedule) -> None:  # type: ignore[no-untyped-def]
    step = next_step(schedule, Place(1.0, 1.0, 1.0 - 1e-15), [{3: 0.5, 4: 0.9}, {1: 1.0}], 10, 0)
    assert step is not None and step.target_energy == 1.0 - 1e-15
    assert step.candidates == {0: 4} and not step.coarser


def test_widths_are_multiples_and_small_units_stay_whole() -> None:
    units = tuple(Unit(index, "", bound, ()) for index, bound in enumerate((1, 7, 8, 9, 20, 24)))
    structure = Structure(units, (), image_channels=3, outputs=10)
    bounds = structure.position_bounds
    terms = tuple((j, j + 1) for j in range(7))
    ones = torch.ones(7, dtype=torch.float64)
    model = BilinearModel(ones[0], ones, terms, tuple(map(float, bounds)))
    table = LookupTable.from_model(model, bounds)
    assert [list(row) for row in reachable_energy(table, structure, [8] * 6)] == [[], [], [], [8], [8, 16], [8, 16]]
    by_channel = [list(row) for row in reachable_energy(table, structure, [1] * 6)]
    assert by_channel == [list(range(1, bound)) for bound in structure.upper_bounds]
    mixed = [list(row) for row in reachable_energy(table, structure, [1, 1, 3, 8, 9, 12])]
    assert mixed == [[], [1, 2, 3, 4, 5, 6], [3, 6], [8], [9, 18], [12]]
    row = reachable_energy(table, structure, [8] * 6)[4]
    assert row[16] == pytest.approx(float(model(structure.positions((1, 7, 8, 9, 16, 24)))))


def test_widest_takes_the_largest_even_where_joules_are_not_sorted() -> None:
    """Tables of readings need not rise with the width."""
    assert widest({1: 1.0, 2: 3.0, 3: 2.0, 4: 4.0}, 2.5) == 3
    assert widest({1: 1.0, 2: 3.0}, 0.5) == 0
    assert widest({}, 1.0) == 0


def test_notes_of_the_schedules() -> None:
    assert GEOMETRIC.notes(2.0, [1.8, 1.5], [1.7, 1.4]) == {"factor_least": 1.5 / 1.8, "factor_most": 0.9}
    told = ADDITIVE.notes(2.0, [1.9, 1.652], [1.7, 1.4])
    assert told == pytest.approx({"reduction_scale_least": 0.048 / 0.048, "reduction_scale_most": 0.1 / 0.05})
    assert GEOMETRIC.notes(2.0, [], []) == {"factor_least": 1.0, "factor_most": 1.0}
    assert ADDITIVE.notes(2.0, [], []) == {"reduction_scale_least": 1.0, "reduction_scale_most": 1.0}

"""Steps and candidate widths against exhaustive search."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.netadapt.schedule import next_step, reachable_joules, steps_needed, widest
from methods.netadapt.table import LookupTable
from shared.energy import BilinearModel
from shared.networks.units import Structure, Unit


@dataclass(frozen=True)
class Case:
    """A network at some widths, its energy, and a budget below that."""

    structure: Structure
    model: BilinearModel
    widths: tuple[int, ...]
    joules: float
    budget: float

    def alone(self, unit: int) -> list[float]:
        """Joules at widths 1, 2, … up to the present one of this unit alone, by the model itself."""
        rows = [[*self.widths[:unit], width, *self.widths[unit + 1 :]] for width in range(1, self.widths[unit] + 1)]
        return self.model(self.structure.positions(rows)).tolist()

    def reachable(self) -> list[list[float]]:
        table = LookupTable.from_model(self.model, self.structure.position_bounds)
        return reachable_joules(table, self.structure, self.widths)


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
    joules = float(model(structure.positions(widths)))
    return Case(structure, model, widths, joules, joules * draw(st.floats(0.05, 0.999)))


def test_steps_of_the_published_schedule() -> None:
    """Steps for common budgets at 0.96 a step, as the ECC paper's equal-iteration protocol divides them."""
    wanted = {0.9: 3, 0.8: 6, 0.7: 9, 0.63: 12, 0.5: 17, 0.35: 26, 0.25: 34}
    assert {share: steps_needed(2.0, 2.0 * share) for share in wanted} == wanted
    assert steps_needed(1.0, 0.96) == 1 and steps_needed(1.0, 0.96**5) == 5  # no step more for rounding's sake
    assert steps_needed(1.0, 1.0) == steps_needed(1.0, 2.0) == 0


@settings(deadline=None, max_examples=60)
@given(case=cases())
def test_candidate_widths_are_the_largest_that_reach_the_target(case: Case) -> None:
    step = next_step(case.joules, case.budget, case.reachable(), iterations=10**9, minimum=1)
    target = max(case.budget, 0.96 * case.joules)
    for unit, width in enumerate(case.widths):
        joules = case.alone(unit)
        fitting = [smaller for smaller in range(1, width) if joules[smaller - 1] <= target * (1 - 1e-12)]
        chosen = step.candidates.get(unit) if step is not None else None
        assert chosen == (max(fitting) if fitting else None)
        if chosen is not None:
            assert joules[chosen - 1] <= target < joules[chosen] * (1 + 1e-9)  # one more channel breaks it
    if step is not None:
        assert step.target_joules == pytest.approx(target, rel=1e-12)


@settings(deadline=None, max_examples=100)
@given(case=cases(), iterations=st.integers(0, 2000), minimum=st.integers(0, 20))
def test_the_most_steps_that_leave_every_candidate_its_minimum(case: Case, iterations: int, minimum: int) -> None:
    """Oracle: every number of steps from one to that of the published schedule, tried from scratch."""
    finest = math.ceil(math.log(case.budget / case.joules) / math.log(0.96) - 1e-9)
    options = {}
    joules = [case.alone(unit)[:-1] for unit in range(len(case.widths))]
    for steps in range(1, finest + 1):
        factor = 0.96 if steps == finest else (case.budget / case.joules) ** (1 / steps)
        target = max(case.budget, case.joules * factor) if steps > 1 else case.budget
        count = sum(any(value <= target * (1 - 1e-12) for value in values) for values in joules)
        if count:
            options[steps] = (target, iterations // (count * steps))
    step = next_step(case.joules, case.budget, case.reachable(), iterations, minimum)
    if not options:
        assert step is None
        return
    generous = [steps for steps, (_, short_term) in options.items() if short_term >= minimum]
    expected = max(generous) if generous else min(options)
    assert step is not None
    assert step.steps_left == expected
    assert step.short_term_iterations == options[expected][1]
    assert step.target_joules == pytest.approx(options[expected][0], rel=1e-12)
    assert expected > 1 or step.target_joules == case.budget


def test_widest_takes_the_largest_even_where_joules_are_not_sorted() -> None:
    """Tables of readings need not rise with the width."""
    assert widest([1.0, 3.0, 2.0, 4.0], 2.5) == 3
    assert widest([1.0, 3.0], 0.5) == 0
    assert widest([], 1.0) == 0

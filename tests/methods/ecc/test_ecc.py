"""ECC and its two variants on a tiny task: what every run must keep, whatever the number of iterations."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.contract import Infeasible
from methods.ecc import ECC, ECCInvariant, ECCPaper, UniformGradual
from methods.ecc.ecc import target_energy
from shared.networks import active_channels, active_widths, compact
from shared.widths.uniform import uniform_widths

ALL = [ECC, ECCInvariant, ECCPaper, UniformGradual]


def in_unit(task, energy):
    """The same task with energies of another size: `joules` for the dense network instead of 1."""
    model = task.energy_model
    scaled = replace(model, intercept=model.intercept * energy, coefficients=model.coefficients * energy)
    return replace(task, energy_model=scaled, budget=task.budget * energy)


def run(make, task):
    if make is ECCPaper:  # its speed depends on the unit of energy; the paper has some hundredths of a joule
        task = in_unit(task, 2**-5)
    before = copy.deepcopy(task.network.state_dict())
    outcome = make().run(task)
    assert all(torch.equal(task.network.state_dict()[name], tensor) for name, tensor in before.items())
    return outcome


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("network", ["toy", "mobilenet"])
def test_ends_within_the_budget_and_spends_the_ledger(make, network, tiny_task):
    task = tiny_task(0.5, iterations=30, network=network)
    outcome = run(make, task)
    assert task.ledger.remaining == 0 and task.ledger.search_samples == 0
    widths = active_widths(outcome.network)
    assert list(widths) == outcome.notes["widths"]
    assert min(widths) >= 1 and widths != task.structure.upper_bounds
    energy = float(task.energy(torch.tensor(widths)))
    assert energy <= task.budget
    assert outcome.notes["budget_unused_share"] == pytest.approx(1 - energy / task.budget)
    if make is not ECCPaper:  # a constant beta promises no time
        assert 0.6 * 30 <= outcome.notes["budget_reached_at_iteration"] <= 0.8 * 30


@pytest.mark.parametrize("make", [ECC, UniformGradual])
@pytest.mark.parametrize("iterations", [2, 3, 4, 7, 20, 60])
def test_lands_on_the_budget_in_any_number_of_iterations(make, iterations, tiny_task):
    task = tiny_task(0.4, iterations=iterations)
    outcome = run(make, task)
    assert task.ledger.remaining == 0
    widths = torch.tensor(active_widths(outcome.network))
    assert float(task.energy(widths)) <= task.budget
    assert outcome.notes["budget_reached_at_iteration"] <= max(1, 0.8 * iterations)


def test_leaves_little_of_the_budget_unused(tiny_task):
    """Below 0.5 %, although a channel of this network is worth up to 3 % of the budget."""
    for fraction in (0.6, 0.45, 0.3):
        outcome = run(ECC, tiny_task(fraction, iterations=40, network="mobilenet"))
        assert 0 <= outcome.notes["budget_unused_share"] < 0.005


@pytest.mark.parametrize("make", ALL)
def test_trace_shows_bounds_that_hold_and_an_energy_that_falls(make, tiny_task):
    task = tiny_task(0.5, iterations=250)
    trace = run(make, task).trace
    assert set(trace) == {"iteration", "loss", "energy", "phi", "s", "y", "z"}
    rows = len(trace["iteration"])
    assert rows <= 101 and all(len(column) == rows for column in trace.values())
    if make is ECCPaper:
        return
    assert trace["iteration"][-1] == 250
    assert trace["energy"] == sorted(trace["energy"], reverse=True)
    assert all(bool((earlier >= later).all()) for earlier, later in pairwise(map(torch.tensor, trace["s"])))
    assert trace["energy"] == pytest.approx(task.energy(torch.tensor(trace["phi"])).tolist(), rel=1e-5)
    assert min(trace["z"]) >= 0 and min(min(y) for y in trace["y"]) >= 0 and min(trace["loss"]) > 0
    assert trace["phi"][-1] == trace["s"][-1]
    for phi, s in zip(trace["phi"], trace["s"], strict=True):  # floor(s) channels at least: s follows, phi comes after
        assert all(kept >= bound for kept, bound in zip(phi, s, strict=True))


@pytest.mark.parametrize("network", ["toy", "mobilenet"])
@pytest.mark.parametrize("make", ALL)
def test_what_is_dead_stays_dead_and_carries_nothing(make, network, tiny_task, monkeypatch):
    """No column comes back once its zero is fixed; cutting the dead channels changes no output."""
    task = tiny_task(0.4, iterations=40, network=network)
    seen = []
    original = type(task).trainer

    def watched(self, model):
        trainer = original(self, model)
        step = trainer.step

        def watched_step():
            loss = step()
            seen.append(active_channels(model, task.structure))
            return loss

        trainer.step = watched_step
        return trainer

    monkeypatch.setattr(type(task), "trainer", watched)
    outcome = run(make, task)
    fixed = outcome.notes["budget_reached_at_iteration"] if make is ECCPaper else 0  # its columns may return until then
    assert all(bool((later <= earlier).all()) for earlier, later in pairwise(seen[fixed:]))
    assert len(seen[fixed:]) > 2
    masked = outcome.network.double()
    small = compact(masked)
    assert sum(map(torch.numel, small.parameters())) < sum(map(torch.numel, masked.parameters()))
    images = task.train.batch(0)[0].double()
    for mode in (True, False):
        expected, got = masked.train(mode)(images), small.train(mode)(images)
        assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("make", ALL)
def test_same_seed_is_bit_identical(make, tiny_task):
    first, second = (run(make, tiny_task(0.5, iterations=20)) for _ in range(2))
    assert first.trace == second.trace and first.notes == second.notes
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))


@pytest.mark.parametrize("fraction", [1.0, 1.2])
@pytest.mark.parametrize("make", ALL)
def test_a_budget_that_the_dense_network_meets_removes_nothing(make, fraction, tiny_task):
    task = tiny_task(fraction, iterations=6)
    outcome = run(make, task)
    assert task.ledger.remaining == 0
    assert active_widths(outcome.network) == task.structure.upper_bounds


@pytest.mark.parametrize("make", ALL)
def test_an_unreachable_budget_is_infeasible_before_anything_is_spent(make, tiny_task):
    for task in (tiny_task(0.1, iterations=6), tiny_task(0.5, iterations=1)):
        with pytest.raises(Infeasible, match=r"expected .* got .* try"):
            run(make, task)
        assert task.ledger.training_iterations == 0


@pytest.mark.parametrize("make", ALL)
def test_diverging_weights_are_named(make, tiny_task):
    with pytest.raises(FloatingPointError, match="learning rate"):
        run(make, tiny_task(0.5, iterations=20, learning_rate=1e30))


def test_a_constant_beta_that_is_too_slow_is_a_miss(tiny_task, monkeypatch):
    monkeypatch.setattr(ECCPaper, "beta", lambda self, *_: 1e-9)
    task = tiny_task(0.5, iterations=10)
    with pytest.raises(Infeasible, match="beta"):
        run(ECCPaper, task)
    assert task.ledger.remaining == 0


def test_the_unit_of_energy_does_not_matter(tiny_task):
    plain, scaled = run(ECC, tiny_task(0.5, iterations=15)), run(ECC, in_unit(tiny_task(0.5, iterations=15), 2**-20))
    assert plain.notes == scaled.notes


@pytest.mark.parametrize("fraction", [0.7, 0.4, 0.2])
def test_uniform_gradual_ends_at_the_widths_of_uniform(fraction, tiny_task):
    task = tiny_task(fraction, iterations=30)
    outcome = run(UniformGradual, task)
    expected = uniform_widths(task.structure, task.energy_model, task.budget)
    assert active_widths(outcome.network) == expected
    # on its way too: the widths for the energy that it has
    for s in outcome.trace["s"]:
        energy = float(task.energy(torch.tensor(s)))
        assert uniform_widths(task.structure, task.energy_model, energy * (1 + 1e-9)) == tuple(map(int, s))


@given(st.integers(2, 300_000), st.floats(0.1, 10), st.floats(0.05, 1.5))
def test_schedule_starts_at_dense_and_lands_before_eight_tenths(limit, dense, fraction):
    budget = dense * fraction
    at = lambda iteration: target_energy(iteration, limit, dense, budget)  # noqa: E731
    landing = max(1, int(0.8 * limit) - 1)
    assert at(landing) <= budget and at(limit) <= budget
    some = [at(1 + (limit - 1) * step // 20) for step in range(21)]
    if fraction < 1:
        assert some == sorted(some, reverse=True) and some[0] <= dense
        assert at(landing) == pytest.approx(budget, rel=2e-9)
        assert landing < 20 or at(landing - 1) > at(landing)
    assert at(min(int(0.05 * limit), 100)) >= dense * (1 - 1e-12) or limit < 20


@pytest.mark.parametrize("method", [ECC, ECCInvariant, UniformGradual])
def test_large_numbers_choose_as_small_ones_do(method, tiny_task):
    """Multiply-adds are a billion times as many as joules; penalties on the excess must not outweigh the prices."""
    first, *others = (
        active_widths(method().run(in_unit(tiny_task(network="mobilenet", budget_fraction=0.4), size)).network)
        for size in (1.0, 1e-6, 1e9)
    )
    assert all(other == first for other in others)

"""The dynamics of s, y, z and the operator alone: importances that stay as they are, a published energy model.

The coefficients are AlexNet's on the Jetson TX2, published as energymodel_alex_tx2 in
github.com/hyang1990/energy_constrained_compression; importances are log-normal.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from methods.ecc import ecc, paper
from methods.ecc.ecc import ECC, target_energy
from methods.ecc.paper import ECCPaper
from methods.ecc.prox import channel_price, descending, keep_channels, trim_dual
from methods.ecc.steps import EPSILON, dual_step, project_z, width_gradient, width_step, z_step
from shared.energy import BilinearModel

INTERCEPT = 0.0024820673
COEFFICIENTS = (0.00223371, 0.00753995, 0.00390926, 0.00494067, 0.0033931, 0.0161565, 0.00721406, 0.00195418)
BOUNDS = (64, 192, 384, 256, 256, 4096, 4096)
NARROW = tuple(bound // 16 for bound in BOUNDS)  # quick
ALPHA = 1e-5


@dataclass
class Still:
    """A network whose importances never change: the task of the methods, as far as their dynamics look at it."""

    importance: torch.Tensor
    budget: float
    energy_model: BilinearModel
    iterations: int = 200
    structure: SimpleNamespace = field(init=False)
    ledger: SimpleNamespace = field(init=False)

    def __post_init__(self):
        ends = (self.energy_model.upper_bounds[0], self.energy_model.upper_bounds[-1])
        bounds = tuple(int(bound) for bound in self.energy_model.upper_bounds[1:-1])

        def positions(s):
            first, last = (s.new_full((*s.shape[:-1], 1), end) for end in ends)
            return torch.cat([first, s, last], -1).double()

        self.structure = SimpleNamespace(upper_bounds=bounds, positions=positions)
        self.ledger = SimpleNamespace(limit=self.iterations)

    def energy(self, widths):
        return self.energy_model(self.structure.positions(widths))

    @property
    def dense(self):
        return torch.tensor(self.structure.upper_bounds).double()


def alexnet(budget_fraction, *, seed=0, iterations=200, bounds=NARROW):
    draw = torch.Generator().manual_seed(seed)
    importance = torch.zeros(len(bounds), max(bounds), dtype=torch.float64)
    for row, bound in zip(importance, bounds, strict=True):
        row[:bound] = 3e-4 * torch.randn(bound, generator=draw, dtype=torch.float64).exp()
    chain = tuple((j, j + 1) for j in range(len(COEFFICIENTS)))
    coefficients = torch.tensor(COEFFICIENTS, dtype=torch.float64)
    model = BilinearModel(torch.tensor(INTERCEPT).double(), coefficients, chain, (3.0, *map(float, bounds), 1000.0))
    dense_energy = INTERCEPT + sum(COEFFICIENTS)
    return Still(importance, budget_fraction * dense_energy, model, iterations)


def run_ecc(still, method=None):
    """ECC's loop without weights: s per iteration, and what the operator keeps in the end."""
    method, ranked = method or ECC(), descending(still.importance)
    s, path = still.dense, []
    start = float(still.energy(s))
    for iteration in range(1, still.iterations + 1):
        y = channel_price(ranked, bound=s, step_size=ALPHA)
        keep = keep_channels(still.importance, bound=s, dual=y, rho=method.rho_1, step_size=ALPHA)
        target = target_energy(iteration, still.iterations, start, still.budget)
        if float(still.energy(s)) > target:
            s, y, _ = method.narrow(still, s, ranked, ALPHA, target)
        path.append((iteration, s))
    return path, keep & (still.importance > 0)


def run_paper(still, iterations, penalty=10.0):
    """The literal updates without weights, and without the test that ends them."""
    rho, ranked = {"rho_1": penalty, "rho_2": penalty}, descending(still.importance)
    s, z, path = still.dense, 0.0, []
    y = torch.zeros_like(s)
    beta = ECCPaper().beta(still, s, ranked, ALPHA)
    while float(still.energy(s)) > still.budget and len(path) < iterations:
        y = trim_dual(y, ranked, bound=s, step_size=ALPHA)
        keep = keep_channels(still.importance, bound=s, dual=y, rho=penalty, step_size=ALPHA) & (still.importance > 0)
        phi = keep.sum(1).double()
        slope = still.energy_model.gradient(still.structure.positions(s))[1:-1]
        gradient = width_gradient(phi - s, y, slope, float(still.energy(s)) - still.budget, **rho)
        z = project_z(z, gradient, slope, s > 1, EPSILON)
        assert (gradient + z * slope)[s > 1].max() >= EPSILON * (1 - 1e-6)
        s = width_step(s, gradient + z * slope, s > 1, beta)
        y = dual_step(y, phi, s.floor(), rho_1=penalty)
        z = z_step(z, float(still.energy(s)) - still.budget, rho_2=penalty)
        path.append((s, phi))
    return path


@pytest.mark.parametrize(("make", "rho"), [(ECC, 10.0), (ECCPaper, 10.0), (ECCPaper, 1.0)])
def test_runs_take_the_path_that_is_examined_here(make, rho, tiny_task, monkeypatch):
    """`run` itself with importances held still: what this file says of its own loops holds for the methods."""
    task = tiny_task(0.4, iterations=80, learning_rate=ALPHA, rho=rho)
    model = task.energy_model  # in the paper's hundredths of a joule, on which the speed of a constant beta depends
    small = replace(model, intercept=model.intercept / 32, coefficients=model.coefficients / 32)
    task = replace(task, energy_model=small, budget=task.budget / 32)
    still = Still(alexnet(0.4, bounds=task.structure.upper_bounds).importance, task.budget, small, task.ledger.limit)
    for module in (ecc, paper):
        monkeypatch.setattr(module, "ChannelNorms", lambda *_: lambda: still.importance)
    trace = make().run(task).trace
    path = [s for _, s in run_ecc(still)[0]] if make is ECC else [s for s, _ in run_paper(still, 80, rho)]
    rows = [[float(f"{width:.6g}") for width in s.tolist()] for s in path]
    assert trace["s"] == (rows if make is ECC else rows[: len(trace["s"])])  # the literal run ends at E(phi) <= budget
    assert len(trace["s"]) > 40 and rows[0] != rows[40]


def greedy(still):
    """Importance lost when the channel that costs the least importance per joule goes first, until the budget holds."""
    order = [sorted(row[row > 0].tolist()) for row in still.importance]
    s, lost = still.dense, 0.0
    while float(energy := still.energy(s)) > still.budget:
        candidates = []
        for unit in (s > 1).nonzero().flatten().tolist():
            smaller = s.clone()
            smaller[unit] -= 1
            weakest = order[unit][int(still.dense[unit] - s[unit])]
            candidates.append((weakest / float(energy - still.energy(smaller)), weakest, unit))
        _, weakest, unit = min(candidates)
        s[unit] -= 1
        lost += weakest
    return lost


@pytest.mark.parametrize("iterations", [3, 50, 400])
@pytest.mark.parametrize("fraction", [0.7, 0.35])
def test_lands_on_the_budget_close_to_greedy(fraction, iterations):
    still = alexnet(fraction, iterations=iterations)
    path, keep = run_ecc(still)
    energies = [float(still.energy(s)) for _, s in path]
    assert energies == sorted(energies, reverse=True)
    assert 0.995 * still.budget <= energies[-1] <= still.budget
    landed = next(iteration for iteration, s in path if torch.equal(s, path[-1][1]))
    assert landed <= max(1, 0.8 * iterations)
    assert torch.equal(keep.sum(1).double(), path[-1][1])  # the operator kept s channels
    lost = float(still.importance[~keep].sum())
    assert lost <= 1.05 * greedy(still)
    uniform = 0.0  # the same energy with the same share of every unit
    share = (still.budget / float(still.energy(still.dense))) ** 0.5
    for row in still.importance:
        alive = descending(row[row > 0])
        uniform += float(alive[round(share * len(alive)) :].sum())
    assert lost < 0.6 * uniform


@pytest.mark.parametrize("seed", range(3))
def test_one_price_of_a_joule_explains_all_widths(seed):
    """KKT: one z with a_(k+1) / (2 alpha dE/ds) <= z <= a_(k) / (2 alpha dE/ds) for every unit that can move.

    Within 2 %, because a channel that goes changes the slopes of its neighbours.
    """
    still = alexnet(0.7, seed=seed, iterations=10, bounds=BOUNDS)
    s, ranked = run_ecc(still)[0][-1][1], descending(still.importance)
    slope = still.energy_model.gradient(still.structure.positions(s))[1:-1]
    last_kept = (channel_price(ranked, bound=s, step_size=ALPHA) / slope)[s > 1]
    first_pruned = (channel_price(ranked, bound=s + 1, step_size=ALPHA) / slope)[s < still.dense]
    assert len(first_pruned) > 3
    assert first_pruned.max() <= 1.02 * last_kept.min()


@pytest.mark.parametrize("rho", [(1.0, 1.0), (1.0, 10.0), (100.0, 1e-3)])
def test_the_automatic_step_takes_the_same_widths_at_any_rho(rho):
    still = alexnet(0.7)
    for (_, s), (_, other) in zip(run_ecc(still)[0], run_ecc(still, ECC(*rho))[0], strict=True):
        assert torch.equal(s, other)


def test_literal_updates_fall_monotonically_and_reach_the_budget():
    still = alexnet(0.7, iterations=400)
    path = run_paper(still, 400)
    energies = [float(still.energy(s)) for s, _ in path]
    assert all(later < earlier for earlier, later in pairwise(energies))
    assert energies[-1] <= still.budget
    for (s, _), (_, phi) in pairwise(path):  # the trim: phi >= floor(s) at each operator
        assert bool((phi >= s.floor()).all())


def test_literal_updates_lose_little_more_than_the_automatic_step():
    """They overshoot by whole channels and take one of each unit at the start, no more."""
    still = alexnet(0.7, iterations=400)
    automatic, literal = run_ecc(still)[0][-1][1], run_paper(still, 400)[-1][0].floor()
    ranked = descending(still.importance)
    lost = [sum(float(row[int(k) :].sum()) for row, k in zip(ranked, s, strict=True)) for s in (automatic, literal)]
    assert lost[0] <= lost[1] <= 1.6 * lost[0]

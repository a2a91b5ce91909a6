"""ECC: energy-constrained compression as one constrained optimisation, with an automatic step for the widths.

Yang, Zhu, Liu, "ECC: Platform-Independent Energy-Constrained Deep Neural Network Compression via a Bilinear Regression
Model", CVPR 2019 (arXiv 1812.01803), Algorithms 1 and 2, equations 5 to 12. Names as in the paper: a importances,
s widths, y and z dual variables, phi numbers of channels kept, alpha and beta step sizes. `methods.ecc.paper` has the
paper's own updates; comments here mark each departure from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from methods.contract import Infeasible, Method, Outcome, Properties, Task
from methods.ecc.metric import ChannelNorms
from methods.ecc.prox import channel_price, descending, keep_channels
from methods.ecc.trace import Trace
from shared.checkpoints import State
from shared.networks import Structure, active_channels, zero_channels

PAPER = (
    "Yang, Zhu, Liu: ECC: Platform-Independent Energy-Constrained Deep Neural Network Compression via a Bilinear "
    "Regression Model. CVPR 2019"
)
# Warm-up: nothing is removed during this share of the iterations, at most during so many. Until then Adam's second
# moments, and with them the metric B, are averages over too few steps.
WARM_UP_SHARE, WARM_UP_MOST = 0.05, 100
LANDING_SHARE = 0.8  # of the iterations, by when the budget is met; the rest trains the network at its final widths
LANDING_TOLERANCE = 0.002  # share of the budget that the last removals may leave unused
MARGIN = 1e-9  # share of the budget that E(s) stays below it, so that sums in another order meet the budget as well
EPSILON = 1e-9  # any positive number: the paper's 1e-3 also sets the speed of s, which the schedule does here


class WidthIterate(NamedTuple):
    """The iterate that a step of s starts from. Vectors are (units,), energies in the budget's unit."""

    s: Tensor  # widths
    upper_bounds: Tensor
    y: Tensor  # dual variable of phi <= s
    slope: Tensor  # dE/ds, energy per channel
    excess_energy: float  # E(s) - budget
    budget: float


@dataclass(frozen=True)
class ECC(Method):
    """Trains, prunes and lowers the widths together; meets the budget after 0.8 of the iterations, however many.

    rho_1, rho_2: the penalty parameters of section 4.1, any positive numbers. The widths don't depend on them, since y
    and z are taken where their ascents end.
    """

    rho_1: float = 10.0
    rho_2: float = 10.0

    name: ClassVar[str] = "ecc"
    title: ClassVar[str] = "ECC"
    paper: ClassVar[str] = PAPER
    properties: ClassVar[Properties | None] = Properties(
        direct_metric=True, targets_energy=True, optimization_based=True, platform_free=True
    )

    def run(self, task: Task) -> Outcome:
        """Algorithm 1. Spends the ledger exactly. The dead channels of the returned network are zeroed.

        Raises Infeasible when one channel per unit is above the budget, or with fewer than two iterations, and
        FloatingPointError when training diverges.
        """
        check_reachable(task)
        model = task.copy_of_dense()  # W = W_dense
        trainer = task.trainer(model)
        importances = self.importances(model, task.structure, trainer.optimizer)
        alpha = trainer.optimizer.param_groups[0]["lr"]
        alive = active_channels(model, task.structure).cpu()
        s = phi = alive.sum(1).double()  # s = phi(W_dense)
        y, z = torch.zeros_like(s), 0.0
        dense_energy = energy = float(task.energy(s))  # energy = E(s)
        trace, reached_at = Trace(task.ledger.limit), 0

        def state() -> State:
            of_s = {"s": s, "y": y, "z": z, "energy": energy, "reached_at": reached_at}
            return {"trainer": trainer.state(), "trace": trace.rows, "alive": alive} | of_s

        if checkpoint := task.saved("iterations"):  # the run was stopped
            trainer.restore(checkpoint["trainer"])
            alive, s, y, z, energy, reached_at = (
                checkpoint[name] for name in ("alive", "s", "y", "z", "energy", "reached_at")
            )
            trace.rows, phi = checkpoint["trace"], alive.sum(1).double()

        while task.ledger.remaining:
            # The gradient step inside (7), W - alpha B^-1 grad, with Adam's momentum.
            loss = trainer.step()
            iteration = task.ledger.training_iterations
            target = target_energy(iteration, task.ledger.limit, dense_energy, task.budget)

            # While phi = s and E(s) is on schedule, the operator and the steps below would change nothing.
            if energy > target or bool((phi > s).any()):
                a = finite(importances())
                ranked = descending(a)

                # Departure from (11): y does not ascend by rho_1 (phi - s) per iteration but is set to the end of that
                # ascent, the projection of 3.3.3. This is the price of the next channel to be removed: the derivative
                # of the Lagrangian in the only direction in which s moves, down.
                y = channel_price(ranked, bound=s, step_size=alpha)

                # The proximal operator in (7), Algorithm 2. Departure: a pruned channel is dead for good. So its
                # producer, batch norm and momentum are zeroed as well; a zeroed column alone would grow back from them.
                keep = keep_channels(a, bound=s, dual=y, rho=self.rho_1, step_size=alpha)
                zero_channels(model, task.structure, alive & ~keep, trainer.optimizer)
                alive &= keep
                phi = alive.sum(1).double()

                if energy > target:
                    s, y, z = self.narrow(task, s, ranked, alpha, target)
                    energy = float(task.energy(s))
                    reached_at = iteration

            if trace.due(iteration):
                trace.add(iteration, loss, energy=float(task.energy(phi)), phi=phi.int(), s=s, y=y, z=z)
            task.save("iterations", state)

        notes = {
            "widths": phi.int().tolist(),
            "budget_unused_share": 1 - energy / task.budget,
            "budget_reached_at_iteration": reached_at,
        }
        return Outcome(model, notes, trace.columns())

    def importances(self, model: nn.Module, structure: Structure, optimizer: torch.optim.Adam) -> Callable[[], Tensor]:
        """What gives the a_i of Algorithm 2 after each step of training: float64 (units, largest upper bound)."""
        return ChannelNorms(model, structure, optimizer)

    def narrow(
        self, task: Task, s: Tensor, ranked: Tensor, alpha: float, target_energy: float
    ) -> tuple[Tensor, Tensor, float]:
        """Lower s until E(s) meets the target; return (s, y, z). ranked: descending importances.

        Departure from (10): instead of beta, the schedule decides how far s moves, in whole channels. Each pass of the
        loop is a round of Algorithm 1 without its gradient step, after which the operator would keep phi = s channels.
        Whole channels, because phi <= s means phi <= floor(s): a fraction of a channel would cost energy unused.
        """
        bounds = torch.tensor(task.structure.upper_bounds, dtype=torch.float64)
        shifts = torch.cat([torch.zeros(1, len(s)), torch.eye(len(s))])  # s itself, then one channel less of each unit
        y, z = channel_price(ranked, bound=s, step_size=alpha), 0.0
        while float((energies := task.energy(s - shifts))[0]) > target_energy:
            slope = energies[0] - energies[1:]  # dE/ds: E is linear in every single width
            excess = float(energies[0]) - task.budget
            chosen, z = self.choose(WidthIterate(s, bounds, y, slope, excess, task.budget))
            s = s - chosen.double()
            y = channel_price(ranked, bound=s, step_size=alpha)
        return s, y, z

    def choose(self, at: WidthIterate) -> tuple[Tensor, float]:
        """The direction of (10): the units that lose their next channel, bool (units,), and z."""
        movable = (at.s > 1) & (at.slope > MARGIN * at.budget)
        # Departure from (10): a channel whose removal would leave budget unused stays if the removal of another would
        # not; if all would, the one that saves least goes. So s ends close to the budget without adding channels back.
        fitting = movable & (at.slope <= at.excess_energy + LANDING_TOLERANCE * at.budget)
        if not bool(fitting.any()):
            fitting = movable & (at.slope == at.slope[movable].min())
        # (9) at phi = s is (rho_2 (E(s) - budget) + z) dE/ds - y. Departure from (12): z has no ascent of its own; that
        # sum in brackets is the least at which 3.3.3 lets some unit move: the present price of a joule. So the gradient
        # is positive only for the unit whose next channel is the cheapest per joule, whatever rho_2 and the unit of E.
        price = torch.where(fitting, (EPSILON + at.y) / at.slope, torch.inf)
        cheapest = price.argmin()
        z = max(float(price[cheapest]) - self.rho_2 * at.excess_energy, 0.0)
        return torch.arange(len(at.s)) == cheapest, z


def target_energy(iteration: int, limit: int, start_energy: float, end_energy: float) -> float:
    """The schedule: the largest E(s) allowed after `iteration` (from 1) of `limit` iterations.

    From the end of the warm-up it falls linearly to the budget, less a margin for rounding. It arrives one iteration
    before `LANDING_SHARE` of the limit, since the operator needs one more. With 1,000 iterations, E falls from
    iteration 50 to 799. If the start meets the budget already, the target is the budget and nothing is removed.
    """
    if start_energy <= end_energy:
        return end_energy
    landing = max(1, int(LANDING_SHARE * limit) - 1)
    warm_up = min(WARM_UP_MOST, int(WARM_UP_SHARE * limit), landing - 1)
    progress = min(max((iteration - warm_up) / (landing - warm_up), 0.0), 1.0)
    end = end_energy * (1 - MARGIN)
    return end if progress == 1 else max(start_energy - progress * (start_energy - end), end)


def check_reachable(task: Task) -> None:
    """Raises Infeasible when one channel per unit is above the budget, or with fewer than two iterations."""
    least = float(task.energy(torch.ones(len(task.structure.units))))
    if least > task.budget * (1 - MARGIN):
        got = f"{task.budget:.6g} {task.energy_model.unit}"
        raise Infeasible(f"expected a budget of at least {least:.6g} (one channel per unit), got {got}; try more")
    if task.ledger.limit < 2 and task.dense_energy > task.budget:
        raise Infeasible(f"expected at least 2 training iterations, got {task.ledger.limit}; try a longer protocol")


def finite(importance: Tensor) -> Tensor:
    """`importance`, if all of it is finite. Raises FloatingPointError otherwise."""
    if not bool(importance.isfinite().all()):
        raise FloatingPointError("expected finite weights and moments, got inf or NaN; try a smaller learning rate")
    return importance

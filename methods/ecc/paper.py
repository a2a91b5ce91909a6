"""ECC as published: constant step beta, dual ascent, and a proximal operator whose zeros are not final.

Yang, Zhu, Liu, "ECC: Platform-Independent Energy-Constrained Deep Neural Network Compression via a Bilinear Regression
Model", CVPR 2019 (arXiv 1812.01803), Algorithms 1 and 2, equations 5 to 12; "published code" is
github.com/hyang1990/energy_constrained_compression. Names as in the paper, see `methods.ecc.ecc`. Where paper and
code differ (the end of the loop, floor(s) in (11), corrected moments in B), a comment names the choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from methods.contract import Infeasible, Method, Outcome, Properties, Task, spend_remaining
from methods.ecc.ecc import ECC, LANDING_SHARE, PAPER, check_reachable, finite
from methods.ecc.metric import ChannelNorms
from methods.ecc.prox import descending, keep_channels, trim_dual
from methods.ecc.steps import EPSILON, dual_step, project_z, width_gradient, width_step, z_step
from methods.ecc.trace import Trace
from shared.checkpoints import State
from shared.networks import Structure, active_channels, zero_channels


@dataclass(frozen=True)
class ECCPaper(Method):
    """Algorithm 1 with constant beta. Both rho_1 and rho_2 are the protocol's rho.

    A run whose beta does not meet the budget within the iterations is a miss.
    """

    name: ClassVar[str] = "ecc-paper"
    title: ClassVar[str] = "ECC, constant step"
    paper: ClassVar[str] = PAPER
    properties: ClassVar[Properties | None] = ECC.properties

    def run(self, task: Task) -> Outcome:
        """Algorithm 1. Spends the ledger exactly. The dead channels of the returned network are zeroed.

        Raises Infeasible when the budget can't be met, or is not within the iterations, and FloatingPointError when
        training diverges.
        """
        check_reachable(task)
        model = task.copy_of_dense()  # W = W_dense
        trainer = task.trainer(model)
        norms = ChannelNorms(model, task.structure, trainer.optimizer)
        columns = _columns_only(task.structure)
        alpha, rho = trainer.optimizer.param_groups[0]["lr"], task.protocol.rho
        alive = exist = active_channels(model, task.structure).cpu()  # exist: alive in the dense network, may be again
        s = phi = alive.sum(1).double()  # s = phi(W_dense)
        y, z, beta = torch.zeros_like(s), 0.0, 0.0
        trace = Trace(task.ledger.limit)

        def state() -> State:
            of_s = {"s": s, "y": y, "z": z, "beta": beta}
            return {"trainer": trainer.state(), "trace": trace.rows, "exist": exist, "alive": alive} | of_s

        if checkpoint := task.saved("iterations"):  # the run was stopped
            trainer.restore(checkpoint["trainer"])
            alive, exist, s, y, z, beta = (checkpoint[name] for name in ("alive", "exist", "s", "y", "z", "beta"))
            trace.rows, phi = checkpoint["trace"], alive.sum(1).double()

        # Algorithm 1 loops while E(s) > budget or phi > s. The published code stops as soon as E(phi) <= budget, which
        # suffices: s = phi then satisfies (2b) and (2c).
        while task.ledger.remaining and float(task.energy(phi)) > task.budget:
            loss = trainer.step()  # the gradient step inside (7): W - alpha B^-1 grad, with Adam's momentum
            a = finite(norms())
            ranked = descending(a)
            beta = beta or self.beta(task, s, ranked, alpha)

            y = trim_dual(y, ranked, bound=s, step_size=alpha)  # 3.3.3
            keep = keep_channels(a, bound=s, dual=y, rho=rho, step_size=alpha)  # Algorithm 2
            zero_channels(model, columns, exist & ~keep)  # columns may grow back with the next gradient step
            alive = exist & keep & (a > 0)
            phi = alive.sum(1).double()

            excess = float(task.energy(s)) - task.budget
            # Within the budget s must not move: the projection of z would lower it further while phi lags behind.
            if excess > 0:
                slope = task.energy_per_channel(s)
                gradient = width_gradient(phi - s, y, slope, excess, rho_1=rho, rho_2=rho)  # (9)
                z = project_z(z, gradient, slope, s > 1, EPSILON)  # 3.3.3
                s = width_step(s, gradient + z * slope, s > 1, beta)  # (10)
                excess = float(task.energy(s)) - task.budget
            # (11) with floor(s), as in the published code: phi is whole, so phi <= s means phi <= floor(s). With s,
            # the unused fraction of a channel would lower y again, and the price of the next channel would be lost.
            y = dual_step(y, phi, s.floor(), rho_1=rho)
            z = z_step(z, excess, rho_2=rho)  # (12)

            if trace.due(iteration := task.ledger.training_iterations):
                trace.add(iteration, loss, energy=float(task.energy(phi)), phi=phi.int(), s=s, y=y, z=z)
            task.save("iterations", state)

        energy, reached_at = float(task.energy(phi)), task.ledger.training_iterations
        if energy > task.budget:
            raise Infeasible(
                f"expected the budget {task.budget:.6g} within {reached_at} iterations at beta = {beta:.4g}, "
                f"got {energy:.6g}; try more iterations or ecc"
            )
        zero_channels(model, task.structure, exist & ~alive, trainer.optimizer)  # W*: its zeros are fixed from here on
        spend_remaining(task, trainer)
        notes = {
            "widths": phi.int().tolist(),
            "budget_unused_share": 1 - energy / task.budget,
            "budget_reached_at_iteration": reached_at,
            "beta": beta,
        }
        return Outcome(model, notes, trace.columns())

    def beta(self, task: Task, s: Tensor, ranked: Tensor, alpha: float) -> float:
        """The constant step that should meet the budget within `LANDING_SHARE` of the iterations.

        The paper sets beta by hand, per network and budget. Here beta = N / (epsilon * iterations), where N is the
        number of channels that the budget requires to remove if the importances (ranked) stay as they are. The
        projection of z gives some unit a gradient of epsilon, so that s loses at least beta * epsilon channels per
        iteration. Changes of the importances only make it more.
        """
        narrowed, _, _ = ECC().narrow(task, s, ranked, alpha, task.budget)
        return float((s - narrowed).sum()) / (EPSILON * LANDING_SHARE * task.ledger.limit)


def _columns_only(structure: Structure) -> Structure:
    """The structure with only the slices that the paper's proximal operator zeroes: columns and depthwise filters."""
    return replace(
        structure,
        units=tuple(
            replace(unit, slices=tuple(part for part in unit.slices if part.role in ("consumer", "depthwise")))
            for unit in structure.units
        ),
    )

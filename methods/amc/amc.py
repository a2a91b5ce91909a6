"""AMC: channel pruning by reinforcement learning, under an energy budget and in stages.

He, Lin, Liu, Wang, Li, Han, "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018. The
ECC paper (CVPR 2019, section 4.1) compares with it under an energy model: 400 episodes and four rounds of pruning and
training that share the iterations. Where it gives no detail the choice is named at its line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.amc.env import PruningEnv, Strategy
from methods.contract import Infeasible, Method, Outcome, Properties, Task
from shared.bounded_widths import BoundedWidths, lower_bounds
from shared.candidates import Candidates
from shared.energy.budget import BudgetTooSmallError
from shared.networks import Structure, structure
from shared.protocol import Protocol
from shared.reconstruction import Reconstruction, calibration_batches
from shared.rng import forked


@dataclass(frozen=True)
class AMC(Method):
    """DDPG chooses the widths, least squares repairs the consumers, training follows; once per stage.

    hidden: sizes of the agent's layers.
    """

    hidden: tuple[int, ...] = (300, 300)

    name: ClassVar[str] = "amc"
    title: ClassVar[str] = "AMC"
    paper: ClassVar[str] = (
        "He, Lin, Liu, Wang, Li, Han: AMC: AutoML for Model Compression and Acceleration on Mobile Devices. ECCV 2018"
    )
    properties: ClassVar[Properties | None] = Properties(
        direct_metric=True, targets_energy=False, optimization_based=False, platform_free=True
    )

    def run(self, task: Task) -> Outcome:
        """Search, prune, reconstruct and train in each stage; spends the ledger exactly.

        Raises Infeasible when a fifth of every dense width is above the budget.
        """
        protocol = task.protocol
        lower = lower_bounds(task.structure.upper_bounds)
        try:  # before anything is spent; the stages before the last one have larger budgets
            BoundedWidths(task.energy, task.budget_joules, lower=lower, upper=task.structure.upper_bounds)
        except BudgetTooSmallError as error:
            raise Infeasible(str(error)) from error

        model, table = task.copy_of_dense(), task.structure
        stages = _stages(protocol)
        results: list[PruningEnv] = []
        skipped: tuple[str, ...] = ()
        for stage in range(stages):
            # The ECC paper does not tell the stages' budgets; equal factors, as the AMC paper's densities suggest.
            left = (stages - 1 - stage) / stages
            budget_joules = task.budget_joules * (task.dense_energy_joules / task.budget_joules) ** left
            if stage:
                table = structure(model)
            candidates, skipped = self._candidates(task, model, table, stage)
            env = PruningEnv(
                table,
                task.energy,
                budget_joules,
                reward=lambda widths, networks=candidates: task.search_accuracy(networks.at(widths)),  # type: ignore[misc]
                lower=lower,
            )
            self._search(task, env, _share(protocol.episodes, stages, stage), stage)
            results.append(env)
            # The best strategy seen, not the last policy's. Whatever it leaves of the budget stays unused.
            model = candidates.cut(_best(env).widths)
            trainer = task.trainer(model)
            for _ in range(_share(task.ledger.limit, stages, stage)):
                trainer.step()
        return Outcome(model, _notes(task, results, skipped), _trace(results))

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """Images of all episodes and of every stage's calibration."""
        calibration = calibration_batches(protocol.batch_size) * protocol.batch_size
        return protocol.episodes * protocol.search_images + _stages(protocol) * calibration

    def _candidates(
        self, task: Task, model: nn.Module, table: Structure, stage: int
    ) -> tuple[Candidates, tuple[str, ...]]:
        batches = task.calibration_batches(calibration_batches(task.protocol.batch_size))
        reconstruction = Reconstruction(model, table, batches, task.generator("reconstruction", stage))
        return Candidates(model, table, reconstruction), reconstruction.skipped

    def _search(self, task: Task, env: PruningEnv, episodes: int, stage: int) -> None:
        from methods.amc.agent import Agent  # stable-baselines3 takes its time to import

        with forked(task.seed, "amc", stage):
            Agent(env, episodes=episodes, hidden=self.hidden).search()


def _stages(protocol: Protocol) -> int:
    """No stage without an episode."""
    return max(1, min(protocol.stages, protocol.episodes))


def _share(total: int, stages: int, stage: int) -> int:
    """An equal share of `total`; the last stage takes the remainder too."""
    return total // stages + (total % stages if stage == stages - 1 else 0)


def _best(env: PruningEnv) -> Strategy:
    if env.best is None:
        raise Infeasible("expected at least one episode, got none; try a protocol with episodes")
    return env.best


def _notes(task: Task, results: list[PruningEnv], skipped: tuple[str, ...]) -> dict[str, object]:
    """Facts for the record; lists have one entry per stage."""
    best = [_best(env) for env in results]
    return {
        "episodes": [len(env.history) for env in results],
        "stages": len(results),
        "stage_budgets_joules": [env.budget_joules for env in results],
        "best_widths": [list(found.widths) for found in best],
        "first_reward": [env.history[0].reward for env in results],
        "best_reward": [found.reward for found in best],
        "reconstruction_skipped": list(skipped),
        "budget_unused_share": 1.0 - best[-1].energy_joules / task.budget_joules,
    }


def _trace(results: list[PruningEnv]) -> dict[str, list[object]]:
    """One entry per episode."""
    rows = [(stage, found) for stage, env in enumerate(results) for found in env.history]
    return {
        "stage": [stage for stage, _ in rows],
        "reward": [found.reward for _, found in rows],
        "energy_joules": [found.energy_joules for _, found in rows],
    }

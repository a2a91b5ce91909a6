"""AMC: channel pruning by reinforcement learning, under an energy budget and in stages.

He, Lin, Liu, Wang, Li, Han, "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018. The
ECC paper (CVPR 2019, section 4.1) compares with it under an energy model: 400 episodes and four rounds of pruning and
training that share the iterations. Where it gives no detail the choice is named at its line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.amc.env import PruningEnv
from methods.contract import Infeasible, Method, Outcome, Properties, Task
from shared.bounded_widths import BoundedWidths, lower_bounds
from shared.candidates import Candidates
from shared.energy.budget import BudgetTooSmallError
from shared.networks import Structure, structure
from shared.protocol import Protocol
from shared.reconstruction import calibration_batches
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

        model = task.copy_of_dense()
        stages = _stages(protocol)
        searches: list[PruningEnv] = []
        for stage in range(stages):
            candidates = self._candidates(task, model, stage)
            searches.append(self._search(task, candidates, stage, stages))
            # The best strategy seen, not the last policy's. Whatever it leaves of the budget stays unused.
            model = candidates.cut(searches[-1].best.widths)
            trainer = task.trainer(model)
            for _ in range(_share(task.ledger.limit, stages, stage)):
                trainer.step()
        notes = _notes(task, searches) | {"reconstruction_skipped": list(candidates.skipped)}
        return Outcome(model, notes, _trace(searches))

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """Images of all episodes and of every stage's calibration."""
        calibration = calibration_batches(protocol.batch_size) * protocol.batch_size
        return protocol.episodes * protocol.search_images + _stages(protocol) * calibration

    def _candidates(self, task: Task, model: nn.Module, stage: int) -> Candidates:
        """Calibrated on the network that the stage starts from."""
        table = structure(model) if stage else task.structure
        batches = task.calibration_batches(calibration_batches(task.protocol.batch_size))
        return Candidates(model, table, batches, task.generator("reconstruction", stage))

    def _search(self, task: Task, candidates: Candidates, stage: int, stages: int) -> PruningEnv:
        """Play the stage's episodes."""
        from methods.amc.agent import Agent  # stable-baselines3 takes its time to import

        # The ECC paper does not tell the stages' budgets; equal factors, as the AMC paper's densities suggest.
        stages_left = stages - 1 - stage
        budget_joules = task.budget_joules * (task.dense_energy_joules / task.budget_joules) ** (stages_left / stages)
        env = PruningEnv(
            candidates.structure,
            task.energy,
            budget_joules,
            reward=lambda widths: task.search_accuracy(candidates.at(widths)),
            lower=lower_bounds(task.structure.upper_bounds),  # of the dense widths in every stage
        )
        with forked(task.seed, "amc", stage):
            Agent(env, episodes=_share(task.protocol.episodes, stages, stage), hidden=self.hidden).search()
        return env


def _stages(protocol: Protocol) -> int:
    """No stage without an episode."""
    return min(protocol.stages, protocol.episodes)


def _share(total: int, stages: int, stage: int) -> int:
    """An equal share of `total`; the last stage takes the remainder too."""
    return total // stages + (total % stages if stage == stages - 1 else 0)


def _notes(task: Task, searches: list[PruningEnv]) -> dict[str, object]:
    """Facts for the record; lists have one entry per stage."""
    best = [env.best for env in searches]
    return {
        "episodes": [len(env.history) for env in searches],
        "stages": len(searches),
        "stage_budgets_joules": [env.budget_joules for env in searches],
        "best_widths": [list(found.widths) for found in best],
        "first_reward": [env.history[0].reward for env in searches],
        "best_reward": [found.reward for found in best],
        "budget_unused_share": 1.0 - best[-1].energy_joules / task.budget_joules,
    }


def _trace(searches: list[PruningEnv]) -> dict[str, list[object]]:
    """One entry per episode."""
    rows = [(stage, found) for stage, env in enumerate(searches) for found in env.history]
    return {
        "stage": [stage for stage, _ in rows],
        "reward": [found.reward for _, found in rows],
        "energy_joules": [found.energy_joules for _, found in rows],
    }

"""AMC: channel pruning by reinforcement learning, under an energy budget and in stages.

He, Lin, Liu, Wang, Li, Han, "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", ECCV 2018. The
ECC paper (CVPR 2019, section 4.1) compares with it under an energy model: 400 episodes, and four rounds of pruning and
training that share the iterations. A comment marks each choice on which that paper gives no detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import nn

from methods.amc.env import PruningEnv, Strategy
from methods.contract import Method, Outcome, Properties, Task, train_stage
from shared.candidates import Candidates
from shared.networks import Structure, resized, structure
from shared.protocol import Protocol
from shared.reconstruction import calibration_batches
from shared.rng import forked
from shared.widths.bounded import BoundedWidths, lower_bounds


class Search(NamedTuple):
    """The result of a stage's episodes."""

    budget: float  # of the stage
    best: Strategy
    history: Sequence[Strategy]  # one per episode
    skipped: Sequence[str]  # layers that are not reconstructed

    @classmethod
    def restored(cls, values: list[Any]) -> Search:
        """The search that a checkpoint holds, where tuples have become lists."""
        budget, best, history, skipped = values
        strategies = [Strategy(reward, tuple(widths), energy) for reward, widths, energy in [best, *history]]
        return cls(budget, strategies[0], strategies[1:], skipped)


@dataclass(frozen=True)
class AMC(Method):
    """In each stage DDPG searches for widths, least squares reconstructs the consumers, and training follows.

    hidden: sizes of the hidden layers of actor and critic.
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
        # Raises Infeasible before anything is spent; the stages before the last one have larger budgets.
        BoundedWidths(task.energy, task.budget, lower=lower, upper=task.structure.upper_bounds)

        stages = _stages(protocol)
        model = task.copy_of_dense()
        searches: list[Search] = []
        if checkpoint := task.saved("stages"):  # the run was stopped in the training after the last of these searches
            searches = [Search.restored(search) for search in checkpoint["stages"]]
            model = resized(task.network, searches[-1].best.widths, task.structure)
            trainer = task.trainer(model)
            trainer.restore(checkpoint["trainer"])
            train_stage(task, trainer, "stages", searches, stages)
        for stage in range(len(searches), stages):
            candidates = self._candidates(task, model, stage)
            searches.append(self._search(task, candidates, stage, stages))
            # The best strategy of all episodes, not the last policy's. What it leaves of the budget stays unused.
            model = candidates.cut(searches[-1].best.widths)
            train_stage(task, task.trainer(model), "stages", searches, stages)
        return Outcome(model, _notes(task, searches), _trace(searches))

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """Search images of all episodes, and the calibration's images of every stage."""
        calibration = calibration_batches(protocol.batch_size) * protocol.batch_size
        return protocol.episodes * protocol.search_images + _stages(protocol) * calibration

    def _candidates(self, task: Task, model: nn.Module, stage: int) -> Candidates:
        """Pruned versions of the network that the stage starts from."""
        units = structure(model) if stage else task.structure
        batches = task.calibration_batches(calibration_batches(task.protocol.batch_size))
        return Candidates(model, units, batches, task.generator("reconstruction", stage))

    def _search(self, task: Task, candidates: Candidates, stage: int, stages: int) -> Search:
        """Run the stage's search."""
        from methods.amc.agent import Agent  # here, since stable-baselines3 is slow to import

        # The ECC paper does not give the stages' budgets. Here each stage lowers the energy by the same factor, as the
        # AMC paper's densities suggest: to 0.5 in two stages by way of 0.707.
        stages_left = stages - 1 - stage
        budget = task.budget * (task.dense_energy / task.budget) ** (stages_left / stages)
        env = PruningEnv(
            candidates.structure,
            task.energy,
            budget,
            reward=lambda widths: task.search_accuracy(candidates.at(widths)),
            lower=lower_bounds(task.structure.upper_bounds),  # of the dense widths, in every stage
        )
        with forked(task.seed, "amc", stage):
            Agent(env, episodes=_share(task.protocol.episodes, stages, stage), hidden=self.hidden).search()
        return Search(budget, env.best, env.history, candidates.skipped)


def _stages(protocol: Protocol) -> int:
    """Number of stages: the protocol's, but each has at least one episode."""
    return min(protocol.stages, protocol.episodes)


def _share(total: int, stages: int, stage: int) -> int:
    """The stage's share of `total`: an equal one; the last stage gets the remainder as well."""
    return total // stages + (total % stages if stage == stages - 1 else 0)


def _notes(task: Task, searches: list[Search]) -> dict[str, object]:
    """Facts for the record. Lists have an entry per stage, except for the layers that the last stage skipped."""
    last = searches[-1]
    return {
        "episodes": [len(search.history) for search in searches],
        "stages": len(searches),
        "stage_budgets": [search.budget for search in searches],
        "best_widths": [list(search.best.widths) for search in searches],
        "first_reward": [search.history[0].reward for search in searches],
        "best_reward": [search.best.reward for search in searches],
        "budget_unused_share": 1.0 - last.best.energy / task.budget,
        "reconstruction_skipped": list(last.skipped),
    }


def _trace(searches: list[Search]) -> dict[str, list[object]]:
    """Columns with one entry per episode."""
    rows = [(stage, strategy) for stage, search in enumerate(searches) for strategy in search.history]
    return {
        "stage": [stage for stage, _ in rows],
        "reward": [strategy.reward for _, strategy in rows],
        "energy": [strategy.energy for _, strategy in rows],
    }

"""The control for AMC's agent: random search with as many networks, the same reconstruction and the same score."""

from __future__ import annotations

from typing import ClassVar

from methods.contract import Method, Outcome, Task, spend_remaining
from shared.candidates import Candidates
from shared.networks import Structure
from shared.protocol import Protocol
from shared.reconstruction import calibration_batches
from shared.rng import numpy_generator
from shared.widths.bounded import BoundedWidths, lower_bounds


class Random(Method):
    """Prunes, reconstructs and scores as many random networks as AMC has episodes, and trains the best one.

    A width is a uniform random ratio of the unit's channels, clipped by AMC's action bound. There is one stage.
    """

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random search"
    paper: ClassVar[str] = "Control: what AMC's agent adds to its tries, its bound and its reconstruction"

    def run(self, task: Task) -> Outcome:
        """Score random networks, then train the best one; spends the ledger exactly.

        Raises Infeasible when a fifth of every dense width is above the budget.
        """
        protocol, upper = task.protocol, task.structure.upper_bounds
        bounds = BoundedWidths(task.energy, task.budget, lower=lower_bounds(upper), upper=upper)
        batches = task.calibration_batches(calibration_batches(protocol.batch_size))
        candidates = Candidates(task.copy_of_dense(), task.structure, batches, task.generator("reconstruction"))
        ratios = numpy_generator(task.seed, "random").random((protocol.episodes, len(upper)))
        checkpoint = task.saved("tries")
        tries: list[tuple[float, list[int]]] = checkpoint["tries"] if checkpoint else []
        for row in ratios[len(tries) :]:
            widths: list[int] = []
            for ratio in row:
                widths.append(bounds.width(widths, ratio))
            tries.append((task.search_accuracy(candidates.at(widths)), widths))
            task.save("tries", lambda: {"tries": tries})
        accuracy, best = max(tries, key=lambda entry: entry[0])  # the first among equals
        model = candidates.cut(best)
        spend_remaining(task, task.trainer(model))
        notes = {
            "tries": protocol.episodes,
            "widths": best,
            "first_reward": tries[0][0],
            "best_reward": accuracy,
            "reconstruction_skipped": list(candidates.skipped),
            "budget_unused_share": 1.0 - bounds.energy(best) / task.budget,
        }
        return Outcome(model, notes, {"reward": [reward for reward, _ in tries]})

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """Search images of all tries, and the calibration's images."""
        calibration = calibration_batches(protocol.batch_size) * protocol.batch_size
        return protocol.episodes * protocol.search_images + calibration

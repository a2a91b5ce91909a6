"""The optimiser of a NetAdapt run: one Adam from the first candidate to the last."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from methods.contract import Task
from methods.netadapt import NetAdapt, NetAdaptOriginal
from shared.networks import active_channels, compact, importance, structure, zero_channels
from shared.networks.ranking import weakest_channels


@pytest.mark.parametrize("method", [NetAdapt(), NetAdaptOriginal()], ids=lambda method: method.name)
def test_with_one_unit_it_is_one_training_that_loses_channels(
    method: NetAdapt, tiny_task: Callable[..., Task], on_network: Callable[..., Task]
) -> None:
    """Each step has one candidate, so the run is the training of the full network in which channels are zeroed."""

    def make() -> Task:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            network = nn.Sequential(
                # before batch norm a bias has no gradient but rounding errors, of which Adam makes full steps
                *(nn.Conv2d(1, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 4, 3, 2, 1)),
                *(nn.AvgPool2d(4), nn.Flatten()),
            )
        network.input_shape = (1, 16, 16)  # type: ignore[assignment]
        return on_network(tiny_task(0.4, iterations=30), network, [0.4, 0.5])

    outcome = method.run(make())
    widths = [24, *(row[0] for row in outcome.trace["widths"])]
    assert len(widths) > 4 and len(outcome.trace["accuracy"][0]) == 1

    task = make()
    model, table = task.copy_of_dense(), task.structure
    trainer = task.trainer(model)
    alive = active_channels(model, table)
    for (before, width), iterations in zip(pairwise(widths), outcome.trace["short_term_iterations"], strict=True):
        norms = importance(model, table).masked_fill(~alive, torch.inf)  # what is gone is not among the weakest
        gone = 24 - before
        dead = weakest_channels(norms, [width + gone], [24])
        zero_channels(model, table, dead, trainer.optimizer)
        alive &= ~dead
        for _ in range(iterations):
            trainer.step()
    while task.ledger.remaining:
        trainer.step()

    expected = compact(model, table).state_dict()
    found = compact(outcome.network, structure(outcome.network)).state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [NetAdapt(), NetAdaptOriginal()], ids=lambda method: method.name)
def test_each_step_goes_on_from_the_weights_and_moments_of_its_winner(
    method: NetAdapt, tiny_task: Callable[..., Task]
) -> None:
    """The winners' trainings, each on its own batches, are one training of the full network that loses channels."""
    outcome, task = method.run(tiny_task(0.7, iterations=40)), tiny_task(0.7, iterations=40)
    trace, bounds = outcome.trace, list(task.structure.upper_bounds)
    model, spent, later = task.copy_of_dense(), 0, 0
    trainer, gone = task.trainer(model), torch.zeros(len(bounds), max(bounds), dtype=torch.bool)
    for scores, unit, widths, iterations in zip(
        trace["accuracy"], trace["unit"], trace["widths"], trace["short_term_iterations"], strict=True
    ):
        tried = [index for index, score in enumerate(scores) if score is not None]
        later += unit != tried[-1]
        norms = importance(model, task.structure).masked_fill(gone, torch.inf)
        left = [*bounds[:unit], widths[unit] + int(gone[unit].sum()), *bounds[unit + 1 :]]
        dead = weakest_channels(norms, left, bounds)
        zero_channels(model, task.structure, dead, trainer.optimizer)
        gone |= dead
        task.ledger.training_iterations = spent + tried.index(unit) * iterations
        for _ in range(iterations):
            trainer.step()
        spent += len(tried) * iterations
    assert len(trace["unit"]) > 2 and later > 1  # others were tried after the winner
    task.ledger.training_iterations = spent
    while task.ledger.remaining:
        trainer.step()

    expected, found = (compact(one, structure(one)).state_dict() for one in (model, outcome.network))
    for name, tensor in expected.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)

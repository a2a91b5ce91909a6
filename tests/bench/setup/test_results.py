"""What runs end with, within float tolerance on any processor: a change here changes the results of every page.

Where a change is meant, raise `bench.setup.fingerprints.RESULTS`, or the revision of the one method that changes, with
the figures below, so that older and newer records don't share a page.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import pytest
import torch

from bench.run import landing
from bench.run.fine_tuning import fine_tune
from bench.setup import fingerprints
from bench.setup.setup import Setup
from methods import registry
from shared.ledger import Ledger
from shared.networks import importance, structure
from shared.training import first_batches, recalibrate_batch_norm

SECOND = ("netadapt", "netadapt-original", "eap", "eap-weights", "lcp", "legr", "wsp", "wsp-weights", "wsp-masked")
REVISION, OF_METHODS = 1, dict.fromkeys(SECOND, 2) | {"eap-weights": 3, "wsp-masked": 3}
TRAINED = {  # method -> sum of absolute weights after 12 iterations, and after 6 of fine-tuning
    "uniform": (166.40, 185.23),
    "uniform-gradual": (168.15, 187.41),
}
LANDED = (  # widths after 40 and 400 removals
    (8, 16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 227, 245),
    (6, 11, 18, 31, 52, 64, 106, 102, 105, 100, 97, 119, 74, 211),
)


def test_the_figures_below_are_of_this_revision() -> None:
    assert fingerprints.RESULTS == REVISION
    revisions = {name: registry.get(name).revision for name in registry.BUILT_IN}
    assert {name: revision for name, revision in revisions.items() if revision > 1} == OF_METHODS


@pytest.mark.parametrize("method", TRAINED)
def test_training_and_fine_tuning(method: str, tiny_task: Any) -> None:
    task = tiny_task(iterations=12)
    network = registry.get(method).run(task).network
    recalibrate_batch_norm(network, first_batches(task.train, 3))
    sums = [size(network)]
    fine_tune(network, task, Ledger(6))
    assert [*sums, size(network)] == pytest.approx(TRAINED[method], rel=1e-3)


def size(network: torch.nn.Module) -> float:
    """Sum of absolute values of all tensors, running statistics included."""
    return math.fsum(float(tensor.double().abs().sum()) for tensor in network.state_dict().values())


def test_landing(setup: Setup) -> None:
    network = setup.dense.network
    path = landing.removal_path(importance(network, structure(network)), setup.structure.upper_bounds, setup)
    found = list(islice(path, 401))
    assert [found[40], found[400]] == [pytest.approx(widths, abs=1) for widths in LANDED]

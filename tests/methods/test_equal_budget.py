"""What every method owes: all iterations, no more, a network within the budget, the dense one untouched, no chance."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from methods import registry
from methods.contract import Task
from shared.energy import BilinearModel
from shared.ledger import BudgetExhausted

METHODS = list(registry.BUILT_IN)


def options(name: str) -> dict[str, Any]:
    """Of the tiny task: what a method needs beyond the toy network, not all of whose units have batch norm."""
    if name == "slimming":
        return {"network": "mobilenet"}
    return {"zeros": True} if registry.get(name).granularity == "weights" else {}


ANY_COUNT = ["dense", "uniform", "magnitude", "netadapt"]  # of iterations will do


@pytest.mark.parametrize(
    ("name", "iterations"),
    [(name, 37) for name in METHODS] + [(name, iterations) for name in ANY_COUNT for iterations in (0, 1)],
)
def test_ledger_is_spent_to_the_last_iteration(name: str, iterations: int, tiny_task) -> None:  # type: ignore[no-untyped-def]
    task = tiny_task(iterations=iterations, **options(name))
    seen = []
    task.ledger.observer = lambda ledger: seen.append(ledger.training_iterations)
    method = registry.get(name)
    outcome = method.run(task)
    assert task.ledger.training_iterations == task.ledger.limit == iterations
    assert set(range(1, iterations + 1)) <= set(seen)
    trainer = task.trainer(outcome.network)
    with pytest.raises(BudgetExhausted):
        trainer.step()
    assert task.ledger.training_iterations == iterations
    assert task.ledger.search_samples <= method.search_samples(task.protocol, task.structure)
    estimate = task.energy_with_zeros(outcome.network)
    assert estimate <= task.budget or not method.compresses


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_bits_and_the_dense_network_untouched(name: str, tiny_task) -> None:  # type: ignore[no-untyped-def]
    tasks = [tiny_task(iterations=12, seed=seed, **options(name)) for seed in (5, 5, 6)]
    dense = copy.deepcopy(tasks[0].network.state_dict())
    outcomes = []
    for shift, task in enumerate(tasks):
        torch.manual_seed(shift)  # nothing may depend on global generators
        outcomes.append(registry.get(name).run(task))
    first, again, other = (outcome.network.state_dict() for outcome in outcomes)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert outcomes[0].notes == outcomes[1].notes and outcomes[0].trace == outcomes[1].trace
    last = list(first)[-1]
    assert not torch.equal(first[last], other[last])
    assert all(torch.equal(dense[key], tensor) for key, tensor in tasks[0].network.state_dict().items())
    json.dumps([outcomes[0].notes, outcomes[0].trace])  # both go into the record


@pytest.mark.parametrize("name", METHODS)
def test_every_batch_is_trained_on_once_in_order_and_every_estimate_is_counted(  # type: ignore[no-untyped-def]
    name: str, tiny_task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of a batch is the count of the ledger, whatever the method trains on it."""
    task, taught, asked = tiny_task(iterations=12, **options(name)), [], []
    teacher = task.teacher

    class Asked(BilinearModel):
        def __call__(self, positions):  # type: ignore[no-untyped-def]
            asked.append(len(positions) if positions.ndim > 1 else 1)
            return super().__call__(positions)

    monkeypatch.setattr(Task, "dense_energy", task.dense_energy)  # which counts none
    task = replace(
        task,
        teacher=lambda index, images: taught.append(index) or teacher(index, images),
        energy_model=Asked(**vars(task.energy_model)),
    )
    method = registry.get(name)
    method.run(task)
    assert taught == list(range(12))
    # methods of weights also count estimates of what zeros save
    assert task.ledger.energy_queries == sum(asked) or method.granularity == "weights"

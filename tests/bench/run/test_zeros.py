"""Runs that remove single weights on eyeriss: rules, landing, fine-tuning, readings and the record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.run import landing, rules, stages, zeros
from bench.run.describe import describe
from bench.run.stages import Run
from bench.run.teacher import live
from bench.setup import plan
from bench.setup.budgets import Budget
from bench.setup.plan import Job
from bench.setup.request import Request
from bench.setup.setup import Setup, prepare
from methods import registry
from methods.contract import Outcome
from shared.errors import BadInput
from shared.networks import structure
from shared.networks.masks import mask_inputs
from shared.platforms import EyerissPlatform
from shared.platforms.eyeriss.chip import Density

DEVICE = Request(protocol="smoke", device="eyeriss")


@pytest.fixture
def chip(setup: Setup, in_cache: Path) -> Setup:
    """The setup on eyeriss."""
    full = prepare(DEVICE)
    return replace(full, protocol=setup.protocol, dataset=setup.dataset, weights=setup.dense)


def sparse_reading(network: nn.Module, setup: Setup) -> float:
    """The platform's joules of a network whose layers have the network's densities, asked in its own way."""
    table, modules = structure(network), dict(network.named_modules())
    density = {
        operation.name: Density(weights=float((modules[operation.module].weight != 0).float().mean()))
        for operation in table.operations
        if operation.module is not None and operation.kind in ("conv", "depthwise", "linear")
    }
    subject = replace(setup.subject, structure=table)
    amounts = EyerissPlatform(density=density).amounts(subject, np.array([table.upper_bounds]), setup.inference_batch)
    return float(amounts[0])


@pytest.mark.parametrize("method", ["eap-weights", "wsp-weights"])
def test_a_run_of_weights_from_the_task_to_the_record(
    method: str, chip: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "unit_costs", lambda *_: (0.06, 0.0002))
    monkeypatch.setattr(stages, "teacher", lambda setup, seed: live(setup.dense.network))
    reach = chip.reach_of_weights
    budget = Budget(0.9, 0.9 * reach.dense_reading)
    run = Run(Job(method, budget, 0), chip, "key", tmp_path / "run")
    for stage in stages.STAGES:
        stages.do(stage, [run])
    record, weights = describe(run)
    measures, landed = record.measures, record.landing
    assert record.status == "ok" and measures is not None and landed is not None and weights is not None
    assert record.granularity == "weights" and landed.removed_channels == 0
    tuned = chip.dense.at(measures.widths)
    tuned.load_state_dict(weights)
    assert measures.reading == pytest.approx(sparse_reading(tuned, chip), rel=1e-6)
    assert measures.reading <= budget.amount and measures.estimate == pytest.approx(measures.reading, rel=1e-6)
    assert 0.85 * reach.dense_reading < measures.reading
    of_network = zeros.found(tuned, run.zeros)  # type: ignore[arg-type]
    full = structure(tuned)
    assert measures.parameters == int(full.parameters(measures.widths)) - of_network.weights
    assert 0 < measures.macs < int(full.macs(measures.widths)) and of_network.weights > 1000
    # fine-tuning has kept the zeros
    before = run.read("land")["network"]  # type: ignore[index]
    for name in run.zeros.entries:  # type: ignore[union-attr]
        assert bool((weights[name][before[name] == 0] == 0).all())
        assert bool((weights[name][before[name] != 0] != before[name][before[name] != 0]).any())


def thinned(chip: Setup, share: float) -> nn.Module:
    network = chip.dense.at(chip.structure.upper_bounds)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                mask = torch.rand(module.weight.shape, generator=draw) < share
                mask[0] = False
                module.weight[mask] = 0
    return network


def test_a_network_above_its_budget_loses_its_least_weights_per_joule(chip: Setup) -> None:
    network = thinned(chip, 0.3)
    was = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    budget = 0.85 * chip.reach.dense_reading
    before, after, removed = zeros.land(network, budget, chip)
    assert before.amount > budget >= after.amount > 0.999 * budget
    assert after.amount == pytest.approx(sparse_reading(network, chip), rel=1e-6)
    prices = {name: chip.zeros.price(name) for name in chip.zeros.entries}  # type: ignore[union-attr]
    tensors = dict(network.named_parameters())
    went = [((was[name] != 0) & (tensors[name] == 0), name) for name in prices]
    assert sum(int(mask.sum()) for mask, _ in went) == removed > 0
    dearest = max(float((was[name][mask] ** 2).max()) / prices[name] for mask, name in went if bool(mask.any()))
    kept = [
        float((tensors[name].detach()[tensors[name] != 0] ** 2).min()) / prices[name]
        for name in prices
        if name != "fc.weight"
    ]
    assert sorted(kept)[-1] >= dearest  # but for the weights that each input channel keeps
    assert structure(network).upper_bounds == chip.structure.upper_bounds
    within, same, none = zeros.land(network, budget, chip)
    assert none == 0 and within == same == after


def test_budgets_can_be_asked_for_down_to_where_networks_can_land(chip: Setup) -> None:
    floor = chip.reach_of_weights.floor
    _, landed, _ = zeros.land(thinned(chip, 0.3), floor * (1 + 1e-6), chip)
    assert landed.amount == pytest.approx(floor, rel=1e-5)
    with pytest.raises(landing.CannotLand, match="without any weight that may go"):
        zeros.land(thinned(chip, 0.3), floor * (1 - 1e-4), chip)


def test_the_budget_rule_counts_zeros_for_methods_of_weights_alone(chip: Setup) -> None:
    budget = Budget(0.95, 0.95 * chip.reach.dense_reading)
    network = thinned(chip, 0.6)
    for method, kept in (("wsp-weights", True), ("wsp", False)):
        run = Run(Job(method, budget, 0), chip, "key", Path("nowhere"))
        task = replace(stages.make_task(run.job, chip, live(chip.dense.network)), zeros=run.zeros)
        problem = None
        try:
            rules.keeps_the_budget(task, chip.dense, Outcome(network))
        except rules.Miss as miss:
            problem = str(miss)
        assert (problem is None) == kept


def test_plans_refuse_weights_where_zeros_save_nothing(in_cache: Path) -> None:
    with pytest.raises(BadInput, match=r"a platform on which zero weights save energy for wsp-weights.*got 1080ti"):
        plan.make(Request(methods="ecc,wsp-weights", protocol="smoke", meter="sim"))
    with pytest.raises(
        BadInput, match=r"reachable range .* fractions 0\.72.* below what a method that removes weights"
    ):
        plan.make(replace(DEVICE, methods="wsp-weights", budgets="0.3"))


def test_methods_of_weights_get_budgets_above_the_feature_maps(in_cache: Path) -> None:
    made = plan.make(replace(DEVICE, methods="uniform,wsp-weights"))
    budgets = {job.method: job.budget.fraction for job in made.jobs if job.budget is not None}
    assert budgets["uniform"] == 0.4 and 0.72 < budgets["wsp-weights"] < 1
    assert registry.get("wsp-weights").granularity == "weights"


@pytest.mark.parametrize(
    ("layer", "mask", "zeros_save", "reason"),
    [
        ("pw1", torch.ones(8, 28, 28), True, None),
        ("pw1", torch.ones(8, 28, 28), False, "a mask of the inputs of pw1, which saves nothing"),
        ("bn1", torch.full((1,), 2.0), True, "a mask of the inputs of bn1, which saves nothing"),
        ("fc", torch.ones(256), True, "a mask of the inputs of fc, which saves nothing"),
        ("dw1", torch.ones(8, 28, 28), True, "a mask of the inputs of dw1, which saves nothing"),
        ("pw1", torch.full((8, 28, 28), 0.5), True, "not zeros and ones in their shape"),
        ("pw1", torch.ones(8, 1, 1), True, "not zeros and ones in their shape"),
    ],
)
def test_only_masks_that_are_described_are_taken(
    layer: str, mask: torch.Tensor, zeros_save: bool, reason: str | None, chip: Setup
) -> None:
    names = [name for name, _ in chip.dense.network.named_modules()]
    layer = next(name for name in names if name.split(".")[-1] == layer) if layer in names else _norm(chip)
    network = chip.dense.at(chip.structure.upper_bounds)
    mask_inputs(network, {layer: mask})
    job = Job("wsp-masked" if zeros_save else "wsp", Budget(0.95, 0.95 * chip.reach.dense_reading), 0)
    task = stages.make_task(job, chip, live(chip.dense.network))
    problem = None
    try:
        rules.described(rules.cut(network, task.train), task, chip.dense)
    except rules.Miss as miss:
        problem = str(miss)
    assert (problem is None) == (reason is None)
    if problem is not None and reason is not None:
        assert reason.replace("bn1", layer) in problem


def _norm(chip: Setup) -> str:
    """The first batch norm."""
    modules = chip.dense.network.named_modules()
    return next(name for name, module in modules if isinstance(module, nn.BatchNorm2d))

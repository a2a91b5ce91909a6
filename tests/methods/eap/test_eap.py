"""EAP: restoration and least squares against brute force, and the sweeps' energies and order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from methods.contract import Infeasible, Task
from methods.eap import eap
from methods.eap.eap import EAP, SWEEPS
from methods.eap.support import RESTORED_SHARE, RIDGE, Reader, Readers, refitted
from shared.networks import active_widths, structure

CHANNELS, REPEAT, OUTPUTS, ROWS = 7, 3, 4, 60


def problem(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input rows, correlated between channels, with weights, and outputs that other inputs gave."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(CHANNELS * REPEAT, CHANNELS * REPEAT, generator=draw, dtype=torch.float64)
    inputs = torch.randn(ROWS, CHANNELS * REPEAT, generator=draw, dtype=torch.float64) @ mixing
    weight = torch.randn(OUTPUTS, CHANNELS * REPEAT, generator=draw, dtype=torch.float64)
    noise = torch.randn(ROWS, OUTPUTS, generator=draw, dtype=torch.float64)
    return inputs, weight, inputs @ weight.T + noise


def readers(inputs: torch.Tensor, weight: torch.Tensor, outputs: torch.Tensor) -> Readers:
    gram, cross = inputs.T @ inputs, inputs.T @ outputs
    return Readers([Reader.of(gram, cross, weight, float(outputs.square().sum()), CHANNELS)])


def ridged(inputs: torch.Tensor, weight: torch.Tensor, outputs: torch.Tensor, columns: list[int]) -> torch.Tensor:
    """Least squares from the rows, (columns, outputs); the ridge is rows that ask for the weights as they are."""
    kept = inputs[:, columns]
    root = float(kept.square().sum(0).mean() * RIDGE) ** 0.5
    rows = torch.cat([kept, root * torch.eye(len(columns), dtype=kept.dtype)])
    wanted = torch.cat([outputs, root * weight[:, columns].T])
    return torch.linalg.lstsq(rows, wanted, driver="gelsd").solution


def residual(inputs: torch.Tensor, weight: torch.Tensor, outputs: torch.Tensor, kept: set[int]) -> float:
    """Computed from the rows: what the kept channels leave of the outputs, as a share."""
    columns = [channel * REPEAT + k for channel in kept for k in range(REPEAT)]
    left = outputs - inputs[:, columns] @ weight[:, columns].T
    return float(left.square().sum() / outputs.square().sum())


@pytest.mark.parametrize("seed", range(5))
def test_errors_are_those_of_the_rows_with_fitted_weights(seed: int) -> None:
    data = problem(seed)
    ours = readers(*data)
    for size in range(CHANNELS + 1):
        for kept in itertools.combinations(range(CHANNELS), size):
            mask = torch.zeros(CHANNELS, dtype=torch.bool)
            mask[list(kept)] = True
            inputs, _, outputs = data
            columns = [channel * REPEAT + k for channel in kept for k in range(REPEAT)]
            left = outputs - inputs[:, columns] @ ridged(*data, columns) if kept else outputs
            assert ours.error(mask) == pytest.approx(float(left.square().sum() / outputs.square().sum()), rel=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_the_largest_stay_and_the_best_come_back_one_by_one(seed: int) -> None:
    data = problem(seed)
    inputs, weight, outputs = data
    magnitudes = [float(weight[:, c * REPEAT : (c + 1) * REPEAT].square().sum()) for c in range(CHANNELS)]
    for width in range(1, CHANNELS + 1):
        restored = int(RESTORED_SHARE * width)
        kept = set(sorted(range(CHANNELS), key=lambda c: -magnitudes[c])[: width - restored])
        for _ in range(restored):
            others = set(range(CHANNELS)) - kept
            kept.add(min(others, key=lambda c: residual(*data, kept | {c})))
        found = readers(inputs, weight, outputs).support(width)
        assert set(found.nonzero().flatten().tolist()) == kept and int(found.sum()) == width


def test_weights_are_the_least_squares_solution() -> None:
    inputs, weight, outputs = problem(3)
    columns = torch.zeros(CHANNELS * REPEAT, dtype=torch.bool)
    columns[[0, 1, 2, 9, 10, 11, 12, 13, 14]] = True
    fitted = refitted(inputs.T @ inputs, inputs.T @ outputs, weight, columns, ridge=1e-15)
    expected = torch.linalg.lstsq(inputs[:, columns], outputs).solution.T
    torch.testing.assert_close(fitted[:, columns], expected)
    assert not bool(fitted[:, ~columns].any())
    before, after = ((outputs - inputs @ one.T).square().sum() for one in (torch.where(columns, weight, 0.0), fitted))
    assert after < before


def test_the_ridge_pulls_towards_the_weights_as_they_are() -> None:
    inputs, weight, outputs = problem(4)
    columns = torch.ones(CHANNELS * REPEAT, dtype=torch.bool)
    inputs = inputs.clone()
    inputs[:, 5] = 0.0  # an input that is always zero says nothing about its weight
    fitted = refitted(inputs.T @ inputs, inputs.T @ outputs, weight, columns, ridge=1e-9)
    torch.testing.assert_close(fitted[:, 5], weight[:, 5])


def test_a_layer_that_was_not_sampled_counts_by_magnitude() -> None:
    magnitudes = torch.tensor([4.0, 1.0, 3.0, 2.0], dtype=torch.float64)
    ours = Readers([Reader.by_magnitude(magnitudes)])
    assert ours.support(2).tolist() == [True, False, True, False]
    assert ours.error(ours.support(2)) == pytest.approx(0.3)
    assert ours.least_width(0.1 + 1e-9) == 3 and ours.least_width(0.3 + 1e-9) == 2 and ours.least_width(0.0) == 4


@pytest.mark.parametrize("network", ["toy", "mobilenet"])
def test_each_sweep_meets_its_energy_from_the_most_to_the_least(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    task: Task = tiny_task(budget_fraction=0.4, network=network)
    seen: list[tuple[float, float, list[str]]] = []
    sweep = eap.sweep_once

    def watched(task: Task, model: torch.nn.Module, energy: float, index: int) -> Any:
        before = structure(model)
        positions = task.structure.positions(before.upper_bounds)
        slope = task.energy_model.gradient(positions)[1:-1]
        joules = (slope * torch.tensor(before.upper_bounds)).tolist()
        model, facts = sweep(task, model, energy, index)
        widths = active_widths(model)
        assert list(widths) == facts["widths"]
        seen.append((energy, float(task.energy_model(task.structure.positions(widths))), facts["order"]))
        names = [unit.name for unit in before.units]
        assert facts["order"] == sorted(names, key=lambda name: -joules[names.index(name)])
        return model, facts

    monkeypatch.setattr(eap, "sweep_once", watched)
    outcome = EAP().run(task)
    assert [energy for energy, _, _ in seen] == pytest.approx([0.4 ** (k / SWEEPS) for k in range(1, SWEEPS + 1)])
    assert all(0.95 * energy < estimate <= energy for energy, estimate, _ in seen)
    assert outcome.notes["widths"] == list(active_widths(outcome.network))
    assert task.ledger.search_samples == EAP().search_samples(task.protocol, task.structure)


def test_in_a_sweep_readers_are_fitted_one_by_one_to_their_outputs_before_it(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Task = tiny_task(budget_fraction=0.4)
    dense = task.copy_of_dense()
    cut, order, fits = eap._cut, [], 0

    def watched(task: Task, model: torch.nn.Module, unit: Any, sampled: Any, width: int, sweep: int) -> torch.Tensor:
        nonlocal fits
        kept = cut(task, model, unit, sampled, width, sweep)
        order.append(unit.name)
        for name, layer, _ in sampled:
            module = name.removesuffix(".weight")
            was = dense.get_submodule(module)
            before = eap.sampled_rows(task, dense, {name: was}, sweep)[name].double()  # type: ignore[dict-item]
            now = eap.sampled_rows(task, model, {name: layer}, sweep)[name].double()
            live = (layer.weight != 0).flatten(1).any(1)
            weight = was.weight.detach().flatten(1)[live].double()  # type: ignore[operator, union-attr]
            repeat = weight.shape[1] // unit.upper_bound
            columns = kept.repeat_interleave(repeat).nonzero().flatten().tolist()
            expected = ridged(now, weight, before @ weight.T, columns)
            found = layer.weight.detach().flatten(1)[live]
            torch.testing.assert_close(found[:, columns].double(), expected.T, rtol=1e-3, atol=1e-4)
            fits += float((found[:, columns] - weight[:, columns]).abs().max()) > 1e-3
        return kept

    monkeypatch.setattr(eap, "_cut", watched)
    _, facts = eap.sweep_once(task, task.copy_of_dense(), 0.5, 0)
    assert order == facts["order"] and fits >= 2


def test_a_budget_below_one_channel_per_unit(tiny_task: Any) -> None:
    with pytest.raises(Infeasible, match="one channel per unit"):
        EAP().run(tiny_task(budget_fraction=0.05))


def test_units_that_fall_at_one_tolerance_fall_one_by_one(tiny_task: Any) -> None:
    """All channels of a unit are alike, so its error falls in proportion to its width: all units fall together."""
    task: Task = tiny_task(budget_fraction=0.4)
    alike = [
        Readers([Reader.by_magnitude(torch.ones(bound, dtype=torch.float64))]) for bound in task.structure.upper_bounds
    ]
    for energy in (0.9, 0.6, 0.41):
        _, widths = eap._widths(task, alike, [3, 0, 2, 1], energy)
        estimate = float(task.energy_model(task.structure.positions(widths)))
        slope = task.energy_model.gradient(task.structure.positions(widths))[1:-1]
        assert energy - float(slope.max()) < estimate <= energy

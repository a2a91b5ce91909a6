"""EAP for weights: each of its three steps against brute force, and the sweeps' energies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.contract import Infeasible, Task
from methods.eap import weights as module
from methods.eap.eap import SWEEPS, sampled_rows
from methods.eap.sparse import RESTORED_SHARE, RIDGE, LayerInputs, fitted, largest, restored
from methods.eap.weights import SHARES, Curve, EAPWeights
from shared.networks import active_widths

ROWS, COLUMNS, OUTPUTS = 40, 9, 5


def problem(seed: int, rows: int = ROWS) -> tuple[LayerInputs, torch.Tensor, torch.Tensor]:
    """Inputs, a weight with some zeros, and outputs Y that other inputs gave."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(COLUMNS, COLUMNS, generator=draw, dtype=torch.float64)
    inputs = torch.randn(rows, COLUMNS, generator=draw, dtype=torch.float64) @ mixing
    weight = torch.randn(OUTPUTS, COLUMNS, generator=draw, dtype=torch.float64)
    weight[torch.rand(weight.shape, generator=draw) < 0.2] = 0
    outputs = inputs @ weight.T + torch.randn(rows, OUTPUTS, generator=draw, dtype=torch.float64)
    return LayerInputs(inputs), weight, outputs


@pytest.mark.parametrize("rows", [ROWS, COLUMNS - 3], ids=["by the Gram matrix", "by the rows"])
def test_products_with_the_gram_matrix(rows: int) -> None:
    inputs, weight, _ = problem(1, rows)
    gram = inputs.rows.T @ inputs.rows
    torch.testing.assert_close(inputs.times_gram(weight), weight @ gram)
    torch.testing.assert_close(inputs.diagonal, gram.diagonal())
    assert inputs.squared_norm(weight) == pytest.approx(float((inputs.rows @ weight.T).square().sum()))


@pytest.mark.parametrize("seed", range(8))
def test_those_come_back_whose_return_lets_the_error_fall_most(seed: int) -> None:
    inputs, weight, outputs = problem(seed)
    available = [(i, j) for i in range(OUTPUTS) for j in range(COLUMNS) if weight[i, j] != 0]

    def error(kept: set[tuple[int, int]]) -> float:
        cut = torch.zeros_like(weight)
        for place in kept:
            cut[place] = weight[place]
        return float((outputs - inputs.rows @ cut.T).square().sum())

    for count in (5, 12, len(available) - 2):
        back = int(RESTORED_SHARE * count)
        kept = set(sorted(available, key=lambda place: -abs(float(weight[place])))[: count - back])
        for number in (2, 1):  # rounds that are left
            base, more = error(kept), back // number
            drops = {place: base - error(kept | {place}) for place in available if place not in kept}
            kept |= set(sorted(drops, key=lambda place: -drops[place])[:more])
            back -= more
        mask = restored(weight, inputs, outputs.T @ inputs.rows, count)
        assert {(int(i), int(j)) for i, j in mask.nonzero()} == kept and int(mask.sum()) == count


@pytest.mark.parametrize("seed", range(4))
def test_conjugate_gradients_end_at_each_outputs_own_least_squares(seed: int) -> None:
    inputs, weight, outputs = problem(seed)
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    found = fitted(weight, mask, inputs, outputs.T @ inputs.rows, iterations=60)
    ridge = RIDGE * float(inputs.diagonal.mean())
    for i in range(OUTPUTS):
        columns = mask[i]
        # the ridge as further rows of the least squares
        rows = torch.cat([inputs.rows[:, columns], ridge**0.5 * torch.eye(int(columns.sum()), dtype=torch.float64)])
        wanted = torch.cat([outputs[:, i], ridge**0.5 * weight[i, columns]])
        expected = torch.linalg.lstsq(rows, wanted[:, None]).solution[:, 0]
        torch.testing.assert_close(found[i, columns], expected, rtol=1e-6, atol=1e-8)
    assert not bool(found[~mask].any())


def test_an_output_without_weights_stays_without() -> None:
    inputs, weight, outputs = problem(2)
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[1] = False
    found = fitted(weight, mask, inputs, outputs.T @ inputs.rows)
    assert bool(torch.isfinite(found).all()) and not bool(found[1].any())


def test_largest_weights() -> None:
    weight = torch.tensor([[3.0, -4.0, 0.5], [1.0, -2.0, 0.0]])
    assert largest(weight, 3).tolist() == [[True, True, False], [False, True, False]]
    among = torch.tensor([[True, False, True], [True, True, True]])
    assert largest(weight, 2, among).tolist() == [[True, False, False], [False, True, False]]


@given(st.floats(1e-9, 2.0), st.floats(1e-9, 2.0))
def test_a_larger_tolerance_keeps_no_more(one: float, other: float) -> None:
    curve = Curve(5_000, [1.0 - share for share in SHARES])
    low, high = sorted((one, other))
    assert 1 <= curve.kept(high) <= curve.kept(low) <= 5_000


def test_curves_interpolate_between_their_shares() -> None:
    curve = Curve(10_000, [1.0 - share for share in SHARES])
    for tolerance in (0.9, 0.5, 0.1):
        assert curve.kept(tolerance) == pytest.approx(10_000 * (1 - tolerance), abs=1.5)


@pytest.mark.parametrize("fraction", [0.6, 0.45])
def test_each_sweep_meets_its_energy_and_keeps_its_zeros(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch, fraction: float
) -> None:
    """Channels go as well, since no weight that reads them is left; what they save is used."""
    task: Task = tiny_task(budget_fraction=fraction, zeros=True)
    seen: list[tuple[float, float]] = []
    sweep = module._sweep_once

    def watched(task: Task, model: torch.nn.Module, layers: Any, zeros: Any, energy: float, index: int) -> Any:
        dead = {name: layer.weight.detach() == 0 for name, layer in layers.items()}
        facts = sweep(task, model, layers, zeros, energy, index)
        assert all(bool((layers[name].weight[mask] == 0).all()) for name, mask in dead.items())
        seen.append((energy, task.energy_with_zeros(model)))
        assert facts["kept"] == {name: int(torch.count_nonzero(layer.weight)) for name, layer in layers.items()}
        return facts

    monkeypatch.setattr(module, "_sweep_once", watched)
    outcome = EAPWeights().run(task)
    assert [energy for energy, _ in seen] == pytest.approx([fraction ** (k / SWEEPS) for k in range(1, SWEEPS + 1)])
    # a channel is several per cent of so small a network, and more go as weights come back elsewhere
    assert all(0.9 * energy < estimate <= energy for energy, estimate in seen)
    assert task.energy_with_zeros(outcome.network) <= task.budget
    assert sum(active_widths(outcome.network)) < sum(task.structure.upper_bounds)
    assert outcome.notes["not_sampled"] == ["depthwise.weight"]
    kept = outcome.notes["kept_weights"]  # training has left the zeros alone
    assert kept == {name: int((dict(outcome.network.named_parameters())[name] != 0).sum()) for name in kept}


def test_a_budget_below_the_feature_maps(tiny_task: Any) -> None:
    with pytest.raises(Infeasible, match="a weight per layer, all channels there"):
        EAPWeights().run(tiny_task(budget_fraction=0.3, zeros=True))


@torch.no_grad()
def test_in_a_sweep_least_squares_brings_outputs_back_to_those_before_it(tiny_task: Any) -> None:
    task: Task = tiny_task(zeros=True)
    dense, model = task.copy_of_dense(), task.copy_of_dense()
    zeros, layers = module._checked(task, model)
    last = module._sweep_once(task, model, layers, zeros, 0.6, 0)["order"][-1]
    was, now = dense.get_submodule(last), model.get_submodule(last)
    before = sampled_rows(task, dense, {last: was}, 0)[last] @ was.weight.flatten(1).T  # type: ignore[dict-item, operator, union-attr]
    rows = sampled_rows(task, model, {last: now}, 0)[last]  # type: ignore[dict-item]
    found = now.weight.flatten(1)  # type: ignore[operator, union-attr]
    plain = torch.where(found != 0, was.weight.flatten(1), 0.0)  # type: ignore[operator, union-attr]
    errors = [float((before - rows @ weight.T).square().sum()) for weight in (found, plain)]
    assert int((found == 0).sum()) > 0 and errors[0] < 0.9 * errors[1]

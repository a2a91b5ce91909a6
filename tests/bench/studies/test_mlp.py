"""The multilayer perceptron: its products, its gradient, and training against closed forms and a written-out Adam."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.studies.energy_models import mlp
from bench.studies.energy_models.mlp import HIDDEN, MlpModel, train
from shared.energy import BilinearModel
from shared.errors import BadInput

BOUNDS = (3.0, 32.0, 64.0, 48.0, 10.0)
TERMS = ((0, 1), (1, 2), (2, 3), (3, 4))
PLANTED = np.array([0.2, 0.1, 0.4, 0.25, 0.05])  # intercept, then a coefficient per term


def rows(count: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(1, np.array(BOUNDS) + 1, size=(count, len(BOUNDS))).astype(float)
    drawn[:, 0], drawn[:, -1] = BOUNDS[0], BOUNDS[-1]
    return drawn


def design(positions: np.ndarray) -> np.ndarray:
    scaled = positions / np.array(BOUNDS)
    return np.column_stack([np.ones(len(positions)), *(scaled[:, i] * scaled[:, j] for i, j in TERMS)])


def weights_of(model: MlpModel) -> np.ndarray:
    layer = model.network[0]
    assert isinstance(layer, nn.Linear)
    return torch.cat([layer.bias, layer.weight[0]]).detach().double().numpy() * model.unit_joules


def test_shape_of_the_network() -> None:
    for depth in range(4):
        linear = [layer for layer in MlpModel(TERMS, BOUNDS, depth=depth).network if isinstance(layer, nn.Linear)]
        assert [layer.in_features for layer in linear] == [len(TERMS), *[HIDDEN] * depth]
        assert [layer.out_features for layer in linear] == [*[HIDDEN] * depth, 1]
        assert sum(isinstance(layer, nn.SELU) for layer in MlpModel(TERMS, BOUNDS, depth=depth).network) == depth


def test_seed_alone_decides_where_training_starts() -> None:
    torch.manual_seed(1)
    first = MlpModel(TERMS, BOUNDS, depth=2, seed=5)
    torch.manual_seed(2)
    again, other = MlpModel(TERMS, BOUNDS, depth=2, seed=5), MlpModel(TERMS, BOUNDS, depth=2, seed=6)
    probe = rows(7, 0)
    assert torch.equal(first(probe), again(probe))
    assert not torch.equal(first(probe), other(probe))


def test_features_are_the_products_of_scaled_positions() -> None:
    positions = rows(9, 3)
    np.testing.assert_allclose(
        MlpModel(TERMS, BOUNDS, depth=1).features(positions).numpy(), design(positions)[:, 1:], rtol=1e-6
    )


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_gradient_by_widths_matches_finite_differences(depth: int) -> None:
    model = MlpModel(TERMS, BOUNDS, depth=depth, unit_joules=0.3, seed=1)
    if depth == 0:
        train(model, rows(50, 1), design(rows(50, 1)) @ PLANTED, steps=20, weight_decay=0.0)
    position = torch.from_numpy(rows(1, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(model(position)[0], position)
    exact = model.network.double()  # float32 differences would drown in rounding

    def at(values: torch.Tensor) -> float:
        scaled = values[0].numpy() / np.array(BOUNDS)
        products = torch.tensor([[scaled[i] * scaled[j] for i, j in TERMS]], dtype=torch.float64)
        return 0.3 * exact(products).item()

    for index in range(len(BOUNDS)):
        step = torch.zeros(1, len(BOUNDS), dtype=torch.float64)
        step[0, index] = 1e-4
        slope = (at(position.detach() + step) - at(position.detach() - step)) / 2e-4
        assert gradient[0, index].item() == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_without_hidden_layers_adam_ends_at_the_planted_bilinear_function() -> None:
    """It is the bilinear model: same coefficients as non-negative least squares of the same rows."""
    positions = rows(400, 7)
    joules = design(positions) @ PLANTED
    model = MlpModel(TERMS, BOUNDS, depth=0)
    assert not weights_of(model).any()
    train(model, positions, joules, steps=6000, weight_decay=0.0)
    fitted = BilinearModel.fit(positions, joules, upper_bounds=BOUNDS, terms=TERMS)
    np.testing.assert_allclose(weights_of(model), PLANTED, atol=2e-3)
    np.testing.assert_allclose(model(rows(50, 8)).detach().numpy(), fitted(rows(50, 8)).numpy(), rtol=2e-3)


@pytest.mark.parametrize("depth", [1, 2])
def test_hidden_layers_learn_a_planted_bilinear_function(depth: int) -> None:
    positions, held_out = rows(300, 9), rows(100, 10)
    joules = design(positions) @ PLANTED
    model = MlpModel(TERMS, BOUNDS, depth=depth)
    train(model, positions, joules, steps=600, weight_decay=0.0)
    truth = design(held_out) @ PLANTED
    error = np.mean(np.abs(model(held_out).detach().numpy() - truth) / truth)
    median = np.mean(np.abs(np.median(joules) - truth) / truth)
    assert error < 0.1 * median


@pytest.mark.parametrize(("decay", "unit_joules"), [(1.0, 1.0), (0.05, 1.0), (0.05, 0.25)])
def test_weight_decay_is_ridge_regression_on_the_scaled_targets(decay: float, unit_joules: float) -> None:
    """Where the gradient of mean squared error plus decay * w vanishes: (2 X'X / n + decay I) w = 2 X'y / n."""
    positions = rows(300, 11)
    joules = design(positions) @ PLANTED
    X, y = design(positions), joules / unit_joules
    ridge = np.linalg.solve(2 * X.T @ X / len(X) + decay * np.eye(X.shape[1]), 2 * X.T @ y / len(X)) * unit_joules
    model = MlpModel(TERMS, BOUNDS, depth=0, unit_joules=unit_joules)
    train(model, positions, joules, steps=8000, weight_decay=decay)
    np.testing.assert_allclose(weights_of(model), ridge, atol=2e-3 * unit_joules)
    assert np.abs(ridge - PLANTED).max() > 0.02  # else the decay would not show


def test_steps_are_adams_with_the_decay_inside_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "LEARNING_RATE", 0.1)
    positions = rows(40, 12)
    X, y = design(positions), design(positions) @ PLANTED
    model = MlpModel(TERMS, BOUNDS, depth=0)
    seen = []

    def watch(step: int) -> None:
        seen.append((step, weights_of(model)))

    train(model, positions, y, steps=5, weight_decay=0.5, watch=watch)
    w, first, second = np.zeros(5), np.zeros(5), np.zeros(5)
    for step in range(1, 6):
        slope = 2 * X.T @ (X @ w - y) / len(X) + 0.5 * w
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        w = w - 0.1 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        assert seen[step - 1][0] == step
        np.testing.assert_allclose(seen[step - 1][1], w, rtol=1e-4, atol=1e-6)


def test_scaling_joules_and_unit_together_changes_nothing_but_the_unit() -> None:
    positions = rows(60, 13)
    joules = design(positions) @ PLANTED
    plain, small = (MlpModel(TERMS, BOUNDS, depth=1, unit_joules=unit) for unit in (1.0, 1e-3))
    train(plain, positions, joules, steps=30, weight_decay=0.01)
    train(small, positions, 1e-3 * joules, steps=30, weight_decay=0.01)
    np.testing.assert_allclose(
        small(positions).detach().numpy(), 1e-3 * plain(positions).detach().numpy(), rtol=1e-4, atol=1e-7
    )


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="0 or more hidden layers, got -1"):
        MlpModel(TERMS, BOUNDS, depth=-1)
    with pytest.raises(BadInput, match=r"positions of shape \(n, 5\), got \(4, 3\)"):
        MlpModel(TERMS, BOUNDS, depth=0).features(np.ones((4, 3)))

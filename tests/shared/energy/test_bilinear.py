"""The bilinear model against planted coefficients, optimality conditions, autograd and the authors' published model."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.energy import BilinearModel
from shared.errors import BadInput

# The authors' published AlexNet model for the TX2 (their code, energymodel_alex_tx2): joules over scaled widths.
ALEXNET_BOUNDS = [3, 64, 192, 384, 256, 256, 4096, 4096, 1000]
ALEXNET_INTERCEPT = 0.0024820673279464245
ALEXNET_COEFFICIENTS = [
    0.0022337078116834164,
    0.0075399503111839294,
    0.0039092553779482840,
    0.0049406695179641250,
    0.0033930998761206865,
    0.0161565151065588000,
    0.0072140637785196300,
    0.0019541799556463957,
]


def uniform_positions(bounds: list[int], count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.integers(1, np.array(bounds) + 1, size=(count, len(bounds))).astype(float)
    rows[:, 0], rows[:, -1] = bounds[0], bounds[-1]
    return rows


def plain_estimate(intercept: float, coefficients: list[float], bounds: list[int], row: np.ndarray) -> float:
    """The sum of section 3.2, written out for one row."""
    total = intercept
    for j, coefficient in enumerate(coefficients):
        total += coefficient * (row[j] / bounds[j]) * (row[j + 1] / bounds[j + 1])
    return total


def alexnet_tx2() -> BilinearModel:
    return BilinearModel(
        torch.tensor(ALEXNET_INTERCEPT, dtype=torch.float64),
        torch.tensor(ALEXNET_COEFFICIENTS, dtype=torch.float64),
        tuple((j, j + 1) for j in range(8)),
        tuple(float(c) for c in ALEXNET_BOUNDS),
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(3, 8), exponent=st.integers(-9, 3))
def test_planted_coefficients_come_back(seed: int, count: int, exponent: int) -> None:
    generator = np.random.default_rng(seed)
    bounds = [int(c) for c in generator.integers(8, 2000, size=count + 1)]
    planted = generator.uniform(0, 1, count + 1) * 10.0**exponent  # picojoules to kilojoules
    rows = uniform_positions(bounds, 50 * (count + 1), seed)
    joules = [plain_estimate(planted[0], list(planted[1:]), bounds, row) for row in rows]
    model = BilinearModel.fit(rows, joules, upper_bounds=bounds)
    found = torch.cat([model.intercept[None], model.coefficients]).numpy()
    np.testing.assert_allclose(found, planted, rtol=0, atol=1e-10 * 10.0**exponent)


def test_published_alexnet_is_recovered_from_its_own_predictions() -> None:
    rows = uniform_positions(ALEXNET_BOUNDS, 400, seed=1)
    model = BilinearModel.fit(rows, alexnet_tx2()(rows), upper_bounds=ALEXNET_BOUNDS)
    np.testing.assert_allclose(model.coefficients.numpy(), ALEXNET_COEFFICIENTS, rtol=1e-10)
    assert model.intercept.item() == pytest.approx(ALEXNET_INTERCEPT, rel=1e-10)


def test_published_alexnet_joules() -> None:
    model = alexnet_tx2()
    dense = torch.tensor(ALEXNET_BOUNDS, dtype=torch.float64)
    ones, halved = dense.clone(), dense.clone()
    ones[1:-1] = 1
    halved[1:-1] /= 2
    assert model(dense).item() == pytest.approx(0.0498235, abs=5e-8)
    assert model(ones).item() == pytest.approx(0.0025182, abs=5e-8)
    assert model(halved).item() == pytest.approx(0.0153644, abs=5e-8)


def test_active_constraint_satisfies_kkt() -> None:
    """Truth with a negative coefficient: the fit holds it at zero, and no descent direction stays in the cone."""
    bounds = [4, 32, 32, 32, 10]
    rows = uniform_positions(bounds, 500, seed=7)
    noise = np.random.default_rng(8).normal(0, 0.02, size=500)
    joules = np.array([plain_estimate(0.5, [1.0, -0.6, 2.0, -0.3], bounds, row) for row in rows]) + noise
    model = BilinearModel.fit(rows, joules, upper_bounds=bounds)
    scaled = rows / bounds
    features = np.column_stack([np.ones(500), scaled[:, :-1] * scaled[:, 1:]])
    weights = torch.cat([model.intercept[None], model.coefficients]).numpy()
    descent = features.T @ (joules - features @ weights)  # minus half the gradient of the squared error
    active = weights == 0
    assert active.any() and not active.all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(descent[~active], 0, atol=1e-9)
    assert (descent[active] <= 1e-9).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_gradient_equals_autograd_and_finite_differences(seed: int) -> None:
    generator = np.random.default_rng(seed)
    bounds = generator.uniform(2, 50, size=5)
    terms = ((0, 1), (3, 1), (2, 2), (3, 4))  # a shared position, a square, an order turned round
    model = BilinearModel(
        torch.tensor(0.3, dtype=torch.float64), torch.from_numpy(generator.uniform(0, 2, 4)), terms, tuple(bounds)
    )
    rows = torch.from_numpy(generator.uniform(0, 1, size=(3, 5)) * bounds).requires_grad_()
    closed = model.gradient(rows)
    (automatic,) = torch.autograd.grad(model(rows).sum(), rows)
    torch.testing.assert_close(closed, automatic, rtol=1e-12, atol=1e-14)
    step = 1e-4
    for column in range(5):
        shift = torch.zeros(5, dtype=torch.float64)
        shift[column] = step
        slope = (model(rows.detach() + shift) - model(rows.detach() - shift)) / (2 * step)  # exact for a quadratic
        torch.testing.assert_close(closed[:, column], slope, rtol=1e-7, atol=1e-9)


def test_coefficients_are_joules_of_the_dense_network() -> None:
    """Counting channels in pairs leaves coefficients alone; the dense estimate is the sum of all of them."""
    bounds = [4, 64, 128, 10]
    rows = uniform_positions(bounds, 200, seed=3)
    joules = [plain_estimate(0.2, [0.5, 1.5, 0.25], bounds, row) for row in rows]
    model = BilinearModel.fit(rows, joules, upper_bounds=bounds)
    halved = BilinearModel.fit(rows / 2, joules, upper_bounds=[c / 2 for c in bounds])
    torch.testing.assert_close(halved.coefficients, model.coefficients, rtol=1e-12, atol=0)
    assert model(bounds).item() == pytest.approx(model.intercept.item() + model.coefficients.sum().item(), rel=1e-15)


def test_chosen_terms_follow_a_branched_network() -> None:
    bounds = [3, 16, 24, 10]
    rows = uniform_positions(bounds, 100, seed=5)
    scaled = rows / bounds
    joules = 0.1 + 2 * scaled[:, 0] * scaled[:, 2] + 3 * scaled[:, 1] * scaled[:, 3]
    model = BilinearModel.fit(rows, joules, upper_bounds=bounds, terms=[(0, 2), (1, 3)])
    assert model.terms == ((0, 2), (1, 3))
    torch.testing.assert_close(model.coefficients, torch.tensor([2.0, 3.0], dtype=torch.float64), rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", [list, tuple, np.asarray, torch.tensor, lambda rows: torch.tensor(rows).float()])
def test_any_container_gives_float64(kind) -> None:  # type: ignore[no-untyped-def]
    rows = [[3, 10, 5, 7, 200, 100, 4096, 17, 1000], [3, 64, 192, 384, 256, 256, 4096, 4096, 1000]]
    model = alexnet_tx2()
    both, one = model(kind(rows)), model(kind(rows[0]))
    assert both.shape == (2,) and both.dtype == torch.float64 and not both.requires_grad
    assert one.shape == () and one.item() == both[0].item()
    assert one.item() == pytest.approx(plain_estimate(ALEXNET_INTERCEPT, ALEXNET_COEFFICIENTS, ALEXNET_BOUNDS, rows[0]))


def test_outcome_of_fit_is_detached_float64_on_cpu() -> None:
    rows = torch.from_numpy(uniform_positions([2, 8, 4], 20, seed=2)).requires_grad_()
    joules = torch.linspace(1, 2, 20, requires_grad=True)
    model = BilinearModel.fit(rows, joules, upper_bounds=(2, 8, 4), unit="s")
    for tensor in (model.intercept, model.coefficients):
        assert tensor.dtype == torch.float64 and tensor.device.type == "cpu" and not tensor.requires_grad
    assert model.unit == "s" and model.coefficients.shape == (2,)


def test_the_dictionary_says_all_without_rounding() -> None:
    model = alexnet_tx2()
    values = json.loads(json.dumps(model.to_dict()))
    assert values.pop("form") == "bilinear"
    again = BilinearModel(
        torch.tensor(values.pop("intercept"), dtype=torch.float64),
        torch.tensor(values.pop("coefficients"), dtype=torch.float64),
        tuple(map(tuple, values.pop("terms"))),
        tuple(values.pop("upper_bounds")),
        **values,
    )
    assert again.unit == model.unit
    rows = uniform_positions(ALEXNET_BOUNDS, 10, seed=4)
    assert torch.equal(again(rows), model(rows))


BOUNDS = (2, 8, 4)
ROWS = uniform_positions([2, 8, 4], 20, seed=2)
JOULES = np.linspace(1, 2, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": ROWS[:, :2]}, r"shape \(n, 3\), got \(20, 2\)"),
        ({"positions": ROWS[0]}, r"shape \(n, 3\), got \(3,\)"),
        ({"positions": [[2, 8, 4], [2, 8]]}, "table of numbers"),
        ({"positions": np.add(ROWS, [0, 8, 0])}, "position 1 within 0..8"),
        ({"positions": np.subtract(ROWS, [0, 0, 5])}, "position 2 within 0..4"),
        ({"positions": np.where(ROWS[3] == ROWS, np.nan, ROWS)}, "within 0.."),
        ({"joules": JOULES[:-1]}, "20 rows, got 19"),
        ({"joules": JOULES[:, None]}, "flat list"),
        ({"joules": np.where(JOULES[4] == JOULES, np.nan, JOULES)}, "finite joules, got nan at index 4"),
        ({"joules": np.where(JOULES[4] == JOULES, np.inf, JOULES)}, "finite joules, got inf at index 4"),
        ({"positions": ROWS[:2], "joules": JOULES[:2]}, "at least 3 rows"),
        ({"upper_bounds": (2, 0, 4)}, "positive upper bounds"),
        ({"upper_bounds": (2,)}, "two positive upper bounds"),
        ({"terms": [(0, 3)]}, r"within 0..2"),
        ({"terms": []}, r"within 0..2"),
        ({"terms": [(0, 1), (1, 0)]}, "every pair of positions once"),
    ],
)
def test_bad_input_is_named(change: dict, message: str) -> None:
    arguments = {"positions": ROWS, "joules": JOULES, "upper_bounds": BOUNDS} | change
    with pytest.raises(BadInput, match=message):
        BilinearModel.fit(**arguments)  # type: ignore[arg-type]


def test_estimates_check_their_shape() -> None:
    model = alexnet_tx2()
    with pytest.raises(BadInput, match=r"\(n, 9\)"):
        model([1, 2, 3])
    with pytest.raises(BadInput, match=r"\(n, 9\)"):
        model.gradient(torch.ones(2, 2, 9))

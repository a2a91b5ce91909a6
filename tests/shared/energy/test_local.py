"""Local profiles lie near their budget and are of many shapes; factor and judgement against formulas by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import energy, networks, platforms
from shared.energy.local import BAND, SAMPLES
from shared.errors import BadInput
from shared.platforms import Subject
from tests.conftest import ToyNet, chain_energy

TABLE = networks.structure(ToyNet())
MODEL = chain_energy(TABLE)  # 1 for the dense network
FLOOR = float(MODEL(TABLE.positions((1,) * len(TABLE.units))))


@given(st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_estimates_lie_near_the_budget(share: float) -> None:
    budget = FLOOR * (0.95 / FLOOR) ** share  # from the floor to almost dense
    rows = energy.rows_near(TABLE, MODEL, budget, 300)
    estimates = MODEL(TABLE.positions(rows)).numpy()
    assert rows.shape == (300, len(TABLE.units)) and rows.dtype == np.int64
    assert (rows >= 1).all() and (rows <= TABLE.upper_bounds).all()
    assert np.abs(estimates / budget - 1).max() <= BAND


def test_networks_have_many_shapes() -> None:
    rows = energy.rows_near(TABLE, MODEL, 0.4)
    assert len(rows) == SAMPLES and len(np.unique(rows, axis=0)) > 0.6 * SAMPLES
    shares = rows / np.array(TABLE.upper_bounds)
    assert (shares.min(0) < 0.2).all() and (shares.max(0) == 1).all()
    slopes = np.polyfit(np.linspace(0, 1, len(TABLE.units)), shares.T, 1)[0]
    assert (slopes < -0.3).mean() > 0.1 and (slopes > 0.3).mean() > 0.1  # wide in front, wide at the end
    assert 0.1 < (rows == 1).any(1).mean() < 0.6


def test_estimates_are_spread_evenly_over_the_band_and_half_of_the_networks_have_extremes() -> None:
    """On units so wide that only an extreme is one channel: by a chance u / 2 each, u uniform up to 0.3."""
    units = tuple(networks.Unit(index, "", 100_000, ()) for index in range(12))
    table = networks.Structure(units, (), image_channels=1, outputs=10)
    model = chain_energy(table)
    rows = energy.rows_near(table, model, 0.4)
    estimates = model(table.positions(rows)).numpy() / 0.4
    assert scipy.stats.kstest(estimates, scipy.stats.uniform(0.9, 0.2).cdf).pvalue > 0.01
    shares = np.linspace(0, 0.3, 1001)
    expected = 0.5 * (1 - (1 - shares / 2) ** 12).mean()
    assert (rows == 1).any(1).mean() == pytest.approx(expected, abs=0.03)  # three standard errors


def test_fewer_rows_are_the_first_of_more_and_depend_on_nothing_else() -> None:
    whole = energy.rows_near(TABLE, MODEL, 0.4, 700)
    torch.manual_seed(1)
    np.testing.assert_array_equal(energy.rows_near(TABLE, MODEL, 0.4, 100), whole[:100])
    assert not np.array_equal(energy.rows_near(TABLE, MODEL, 0.41, 100), whole[:100])


def test_a_budget_without_networks_near_it() -> None:
    with pytest.raises(BadInput, match=r"expected 100 networks within 10% of 0\.001 J, got 0 of 20,000 drawn networks"):
        energy.rows_near(TABLE, MODEL, 0.001, 100)


def local_profile(ratios: np.ndarray, judging: int) -> energy.Profile:
    """Readings that are the estimates divided by `ratios`."""
    rows = energy.rows_near(TABLE, MODEL, 0.4, len(ratios))
    amounts = MODEL(TABLE.positions(rows)).numpy() / ratios
    return energy.Profile(rows.astype(np.int32), amounts, 1.0, test_samples=judging, batch=1, unit="J", key="")


def test_factor_and_judgement_by_hand() -> None:
    fitting, judging = np.array([1.2, 1.3, 1.25]), np.array([1.3, 1.2, 1.25, 1.35])
    fit = energy.local_fit(MODEL, local_profile(np.append(fitting, judging), 4), TABLE, corrected=True)
    assert fit.factor == pytest.approx(0.8)  # 1 / 1.25
    errors = np.array([0.04, -0.04, 0.0, 0.08])
    assert fit.error == pytest.approx(0.04) and fit.bias == pytest.approx(0.02)
    assert fit.most_optimistic == pytest.approx(-0.04) and fit.samples == 4
    expected = scipy.stats.ttest_1samp(errors, 0.0).confidence_interval(0.95)
    assert fit.bias_interval == pytest.approx((expected.low, expected.high))
    positions = TABLE.positions([[3, 4, 5, 6]])
    torch.testing.assert_close(fit.model(positions), 0.8 * MODEL(positions))
    assert (fit.model.coefficients >= 0).all() and fit.model.unit == MODEL.unit


def test_without_correction_the_model_is_judged_as_it_is() -> None:
    fit = energy.local_fit(MODEL, local_profile(np.full(6, 1.25), 3), TABLE, corrected=False)
    assert fit.factor == 1 and fit.bias == pytest.approx(0.25)
    assert torch.equal(fit.model.coefficients, MODEL.coefficients)


@pytest.mark.parametrize("device", ["1080ti", "tx2"])
def test_a_simulation_reads_with_noise_what_fits_and_without_what_judges(device: str) -> None:
    platform, subject = platforms.get(device), Subject(TABLE, ToyNet)
    rows = energy.rows_near(TABLE, MODEL, 0.4, 60)
    profile = platform.local_profile(subject, rows, np.ones(60), batch=4, standard=7.0)
    truth = platform.true(TABLE.operations, TABLE.positions(rows).numpy(), 4)
    np.testing.assert_array_equal(profile.widths, rows)
    np.testing.assert_array_equal(profile.amounts[30:], truth[30:])
    noise = profile.amounts[:30] / truth[:30] - 1
    assert 0.01 < noise.std() < 0.04 and platform.queries == 30
    assert (profile.test_samples, profile.dense_reading, profile.batch, profile.unit) == (30, 7.0, 4, "J")
    other = platform.local_profile(subject, rows[:59], np.ones(59), batch=4, standard=7.0)
    assert other.key != profile.key


@pytest.mark.parametrize("network", ["mobilenet", "alexnet"])
def test_the_corrected_model_is_right_where_budgets_lie(network: str) -> None:
    """On the embedded workloads: bias at most 0.5 %, where the paper's form is off by several percent."""
    options = {"mobilenet": {"input_size": 28}, "alexnet": {"input_size": 64}}[network]
    with torch.device("meta"):
        model = networks.build(network, num_classes=10, in_channels=1, width_multiplier=0.25, **options)
        table = networks.structure(model)
    platform, subject = platforms.get("1080ti"), Subject(table, lambda widths: model)
    profile = platforms.profile(platform, table, None)
    budget, bias = 0.35 * profile.dense_reading, {}
    for kind in ("bilinear", "bilinear+linear"):
        fitted = energy.fit(profile, table, kind).model
        rows = energy.rows_near(table, fitted, budget)
        near = platform.local_profile(subject, rows, np.ones(len(rows)), batch=profile.batch, standard=1.0)
        fit = energy.local_fit(fitted, near, table, corrected=kind != "bilinear")
        bias[kind] = fit.bias
        assert kind == "bilinear" or fit.error < 0.03
    assert abs(bias["bilinear+linear"]) < 0.005 and bias["bilinear"] > 0.015

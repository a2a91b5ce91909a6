"""Profiles are drawn, cached and mended as promised; fits have the errors that the paper's region asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from shared import energy, networks, platforms
from shared.energy.profiles import uniform_rows
from shared.energy.terms import KINDS, terms
from shared.errors import BadInput
from shared.networks import Structure


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path


def mobilenet(**options: object) -> Structure:
    with torch.device("meta"):
        return networks.structure(networks.build("mobilenet", **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small() -> Structure:
    return mobilenet(num_classes=10, in_channels=1, width_multiplier=0.25, input_size=28)


@pytest.mark.parametrize("device", ["1080ti", "tx2"])
def test_mobilenet_errors_are_in_the_papers_region(device: str) -> None:
    """Paper: around 3 % for MobileNet on both platforms. Skill guards against a figure that means nothing."""
    table, platform = mobilenet(num_classes=1001), platforms.get(device)
    profile = platforms.profile(platform, table, 1)
    fit = energy.fit(profile, table, "bilinear")
    assert 0.01 < fit.relative_error < 0.04
    assert fit.skill < 0.4
    assert 0 < fit.dense_relative_error < 0.15  # dense layers fill their tiles, random ones don't
    assert platform.queries == 10_010
    truth = platform.true_joules(table.operations, table.positions(profile.widths).numpy(), 1)
    exact = energy.BilinearModel.fit(
        table.positions(profile.widths[:8000]), truth[:8000], upper_bounds=table.position_bounds
    )
    held_out, judged = truth[8000:], exact(table.positions(profile.widths[8000:])).numpy()
    error = np.mean(np.abs(judged - held_out) / held_out)
    assert 0.01 < error < fit.relative_error  # part of the error is the meter's
    assert error / np.mean(np.abs(np.median(truth[:8000]) - held_out) / held_out) < 0.35


def test_widths_are_uniform_from_one_to_the_upper_bound(small: Structure) -> None:
    profile = platforms.profile(platforms.get("tx2"), small, 16)
    bounds = np.array(small.upper_bounds)
    assert profile.widths.shape == (10_000, len(bounds)) and profile.amounts.shape == (10_000,)
    np.testing.assert_array_equal(profile.widths.min(axis=0), 1)
    np.testing.assert_array_equal(profile.widths.max(axis=0), bounds)
    mean_error = (profile.widths.mean(axis=0) - (bounds + 1) / 2) / np.sqrt((bounds**2 - 1) / 12 / 10_000)
    assert np.abs(mean_error).max() < 4.5
    correlation = np.corrcoef(profile.widths.T) - np.eye(len(bounds))
    assert np.abs(correlation).max() < 0.05


def test_another_seed_draws_other_networks_and_fewer_are_the_first_of_more(small: Structure) -> None:
    rows, other = uniform_rows(small, 40, 1), uniform_rows(small, 40, 2)
    np.testing.assert_array_equal(uniform_rows(small, 15, 1), rows[:15])
    assert (rows != other).any(1).all()


def test_profile_holds_the_platforms_readings(small: Structure) -> None:
    platform = platforms.get("1080ti")
    profile = platforms.profile(platform, small, 64, samples=50, test_samples=10)
    again = platforms.get("1080ti").measure(small.operations, small.positions(profile.widths), 64)
    np.testing.assert_array_equal(profile.amounts, again)
    dense = platform.true_joules(small.operations, [small.position_bounds], 64)[0]
    assert profile.dense_reading == pytest.approx(dense, rel=4 * platform.parameters.reading_noise / np.sqrt(10))
    assert (profile.unit, profile.noise, profile.batch, profile.test_samples) == ("J", None, 64, 10)


def test_second_profile_comes_from_the_cache_unread_anew(small: Structure) -> None:
    first = platforms.profile(platforms.get("tx2"), small, 4, samples=30, test_samples=6)
    platform = platforms.get("tx2")
    second = platforms.profile(platform, small, 4, samples=30, test_samples=6)
    assert platform.queries == 0 and second.key == first.key
    np.testing.assert_array_equal(second.widths, first.widths)
    np.testing.assert_array_equal(second.amounts, first.amounts)
    assert second.dense_reading == first.dense_reading and second.widths.dtype == first.widths.dtype


def test_key_changes_with_everything_a_profile_depends_on(small: Structure) -> None:
    other = mobilenet(num_classes=11, in_channels=1, width_multiplier=0.25, input_size=28)
    keys = [
        platforms.profile(platforms.get(device), table, batch, samples=samples, test_samples=5, seed=seed).key
        for device, table, batch, samples, seed in [
            ("tx2", small, 1, 20, 0),
            ("1080ti", small, 1, 20, 0),
            ("tx2", other, 1, 20, 0),
            ("tx2", small, 2, 20, 0),
            ("tx2", small, 1, 21, 0),
            ("tx2", small, 1, 20, 1),
        ]
    ]
    keys.append(platforms.profile(platforms.get("tx2", "s"), small, 1, samples=20, test_samples=5, seed=0).key)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped", "method", "other shapes", "pickle"])
def test_a_damaged_cache_file_is_made_anew(damage: str, small: Structure, cache_folder: Path) -> None:
    first = platforms.profile(platforms.get("tx2"), small, 4, samples=30, test_samples=6)
    (path,) = cache_folder.rglob("*.npz")
    whole = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not an archive")
    elif damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    elif damage == "method":  # the archive's directory names a compression method that doesn't exist
        place = whole.index(b"PK\x01\x02") + 10
        path.write_bytes(whole[:place] + b"\x63" + whole[place + 1 :])
    elif damage == "other shapes":
        np.savez(path, widths=first.widths[:5], amounts=first.amounts[:5], dense_reading=first.dense_reading)
    else:
        np.savez(path, widths=np.array([{}], dtype=object), amounts=first.amounts, dense_reading=first.dense_reading)
    platform = platforms.get("tx2")
    again = platforms.profile(platform, small, 4, samples=30, test_samples=6)
    assert platform.queries > 0
    np.testing.assert_array_equal(again.amounts, first.amounts)
    assert path.read_bytes() == whole


def test_errors_of_a_fit_are_those_of_its_held_out_rows(small: Structure) -> None:
    profile = platforms.profile(platforms.get("tx2"), small, 256, samples=300, test_samples=100)
    fit = energy.fit(profile, small, "bilinear")
    estimates = [fit.model(small.positions(row)).item() for row in profile.widths[200:].tolist()]
    median = sorted(profile.amounts[:200])[99:101]
    errors = [abs(e - j) / j for e, j in zip(estimates, profile.amounts[200:], strict=True)]
    idle_errors = [abs(sum(median) / 2 - j) / j for j in profile.amounts[200:]]
    assert fit.relative_error == pytest.approx(sum(errors) / 100, rel=1e-12)
    assert fit.skill == pytest.approx(sum(errors) / sum(idle_errors), rel=1e-12)
    dense = fit.model.intercept.item() + fit.model.coefficients.sum().item()
    assert fit.dense_relative_error == pytest.approx(dense / profile.dense_reading - 1, rel=1e-9)
    assert fit.model.upper_bounds == tuple(small.position_bounds)
    same = energy.BilinearModel.fit(
        small.positions(profile.widths[:200]), profile.amounts[:200], upper_bounds=small.position_bounds
    )
    assert torch.equal(same.coefficients, fit.model.coefficients)


def test_a_fit_has_the_terms_of_its_kind_and_the_unit_of_its_profile(small: Structure) -> None:
    profile = platforms.profile(platforms.get("tx2", "s"), small, 256, samples=300, test_samples=100)
    assert profile.unit == "s" and profile.noise is None
    for kind in KINDS:
        model = energy.fit(profile, small, kind).model
        assert model.unit == "s" and model.terms == terms(small, kind)
    with pytest.raises(BadInput, match="a kind of energy model, got 'cubic'"):
        energy.fit(profile, small, "cubic")


@pytest.mark.parametrize(("samples", "test_samples"), [(10, 10), (10, 0), (1, 1), (10, -1)])
def test_bad_splits_are_named(samples: int, test_samples: int, small: Structure) -> None:
    with pytest.raises(BadInput, match="test samples out of"):
        platforms.profile(platforms.get("tx2"), small, 1, samples=samples, test_samples=test_samples)

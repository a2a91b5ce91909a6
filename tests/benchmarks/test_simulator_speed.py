"""Speed of the simulator and of the energy model: `pytest tests/benchmarks/test_simulator_speed.py`.

Aim: 10,000 configurations of MobileNet under half a second on one core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from shared import energy, networks, platforms
from shared.networks import Structure

SAMPLES = 10_000


def structure(name: str, classes: int) -> Structure:
    with torch.device("meta"):
        return networks.structure(networks.build(name, num_classes=classes))


def positions(table: Structure) -> np.ndarray:
    bounds = np.array(table.upper_bounds)
    return table.positions(np.random.default_rng(0).integers(1, bounds + 1, size=(SAMPLES, bounds.size))).numpy()


@pytest.mark.parametrize(("name", "classes"), [("alexnet", 1000), ("mobilenet", 1001), ("erfnet", 20)])
def test_simulate_10000_configurations(benchmark: BenchmarkFixture, name: str, classes: int) -> None:
    table, platform = structure(name, classes), platforms.get("1080ti")
    rows = positions(table)
    joules = benchmark(platform.true_joules, table.operations, rows, 1)
    assert joules.shape == (SAMPLES,)


def test_read_10000_configurations_with_noise(benchmark: BenchmarkFixture) -> None:
    table, platform = structure("mobilenet", 1001), platforms.get("1080ti")
    rows = positions(table)
    readings = benchmark(platform.measure, table.operations, rows, 1)
    assert readings.shape == (SAMPLES,)


def test_simulate_one_configuration(benchmark: BenchmarkFixture) -> None:
    table, platform = structure("mobilenet", 1001), platforms.get("1080ti")
    rows = positions(table)[:1]
    benchmark(platform.true_joules, table.operations, rows, 1)


def test_profile_of_10000_configurations(
    benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, platform = structure("mobilenet", 1001), platforms.get("1080ti")
    folders = (tmp_path / str(k) for k in range(1000))

    def fresh() -> None:
        monkeypatch.setenv("BENCH_CACHE", str(next(folders)))

    benchmark.pedantic(platforms.profile, (platform, table, 1), setup=fresh, rounds=5)


def test_fit_8000_rows(benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    table = structure("mobilenet", 1001)
    profile = platforms.profile(platforms.get("1080ti"), table, 1)
    benchmark(energy.fit, profile, table, "bilinear")

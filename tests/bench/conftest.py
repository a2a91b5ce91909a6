"""A setup on the real data set, cut down to what a test needs."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from bench.cli import app as cli
from bench.run import processes
from bench.setup import dense
from bench.setup.dense import DenseWeights
from bench.setup.request import Request
from bench.setup.setup import Setup, prepare
from tests.bench import short
from tests.bench.short import head

# The server that forks the runs' processes imports what shortens runs, wherever it is started.
processes.PRELOADED = (*processes.PRELOADED, short.__name__)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes smoke runs take a few seconds, see tests/bench/short.py."""
    monkeypatch.setenv(short.SHORT, "1")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of the test session's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def in_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """BENCH_CACHE set to the session's folder."""
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    return cache


class Command(Protocol):
    def __call__(self, *arguments: str) -> tuple[int, str, str]: ...


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_cache: Path) -> Command:
    """The command line within this process, which need not import torch each time: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        code = cli.main()
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def setup(cache: Path) -> Setup:
    """MobileNet on Fashion-MNIST on the simulated 1080 Ti, 4 iterations, 2 of fine-tuning, 200 test images.

    Its dense weights are initial ones; what they are is of no matter here.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(cache))
        full = prepare(Request(protocol="smoke", meter="sim"))
    protocol = replace(
        full.protocol, iterations=4, fine_tune_iterations=2, batch_size=16, recalibration_batches=2, search_images=50
    )
    dataset = replace(full.dataset, test=head(full.dataset.test, 200), search=head(full.dataset.search, 100))
    weights = DenseWeights(dense.untrained(full.workload).eval(), 0.1, "untrained")
    return replace(full, protocol=protocol, dataset=dataset, weights=weights)

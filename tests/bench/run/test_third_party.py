"""A method of somebody else's: written by a command, installed from a package, listed, checked, run and reported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.authors import skeleton
from shared.errors import BadInput

EXAMPLE = Path(__file__).parents[2] / "example_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package and a fresh skeleton, installed without dependencies into a folder."""
    place = tmp_path_factory.mktemp("site")
    written = skeleton.write("fresh-one", tmp_path_factory.mktemp("own"))
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    subprocess.run([*pip, "--target", str(place), str(EXAMPLE), str(written[0].parent)], check=True)
    return place


def bench(*arguments: str, path: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_it_is_listed_run_and_reported(installed: Path, cache: Path, tmp_path: Path) -> None:
    listed = bench("methods", path=installed, cache=cache)
    (line,) = (line for line in listed.stdout.splitlines() if line.startswith("taylor "))
    assert "Taylor per joule: Molchanov et al." in line and line.endswith(
        "(direct metric, targets energy, platform free)"
    )
    assert "fresh-one" in listed.stdout
    done = bench(
        *("run", "--protocol", "smoke", "--methods", "taylor,fresh-one,uniform", "--budgets", "0.4"),
        *("--out", str(tmp_path / "runs")),
        path=installed,
        cache=cache,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (page,) = (tmp_path / "runs").glob("*.md")
    text = page.read_text()
    assert "| Taylor per joule" in text and "Importance Estimation for Neural Network Pruning" in text
    assert "| Fresh one" in text


def test_a_skeleton_keeps_the_contract(installed: Path, cache: Path) -> None:
    name = "fresh-one"
    done = bench("check-method", name, path=installed, cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok    ") == 11 and done.stdout.endswith(f"{name} keeps the contract\n")


def test_check_method_of_nothing(cache: Path, tmp_path: Path) -> None:
    done = bench("check-method", "nope", path=tmp_path, cache=cache)
    assert (done.returncode, done.stdout) == (2, "") and "expected methods out of ecc," in done.stderr


@pytest.mark.parametrize("name", ["", "Upper", "-x", "x-", "a--b", "a_b", "../x", "1st", "ecc", "x" * 300])
def test_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        skeleton.write(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (written, *_) = skeleton.write("mine", tmp_path)
    written.write_text("precious")
    with pytest.raises(BadInput, match="File exists"):
        skeleton.write("mine", tmp_path)
    assert written.read_text() == "precious"

"""A method of somebody else's: written by a command, installed from a package, listed, checked, run and reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.authors import skeleton
from shared.errors import BadInput
from tests.bench.conftest import Command

EXAMPLE = Path(__file__).parents[2] / "example_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package and a fresh skeleton, installed without dependencies into a folder."""
    place = tmp_path_factory.mktemp("site")
    written = skeleton.write("fresh-one", tmp_path_factory.mktemp("own"))
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    subprocess.run([*pip, "--target", str(place), str(EXAMPLE), str(written[0].parent)], check=True)
    return place


def test_it_is_listed_run_and_reported(
    installed: Path, command: Command, short_runs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed)
    _, listed, _ = command("methods")
    (line,) = (line for line in listed.splitlines() if line.startswith("median "))
    assert "Geometric median per joule: He et al." in line and line.endswith(
        "(direct metric, targets energy, platform free)"
    )
    assert "fresh-one" in listed
    out = ("--out", str(tmp_path / "runs"))
    code, *printed = command(
        "run", "--protocol", "smoke", "--methods", "median,fresh-one,uniform", "--budgets", "0.4", *out
    )
    assert code == 0, printed
    (page,) = (tmp_path / "runs").glob("*.md")
    text = page.read_text()
    assert "| Geometric median per joule" in text and "Filter Pruning via Geometric Median" in text
    assert "| Fresh one" in text


def test_a_skeleton_keeps_the_contract(installed: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed)
    code, printed, error = command("check-method", "fresh-one")
    assert code == 0, printed + error
    assert printed.count("ok    ") == 11 and printed.endswith("fresh-one keeps the contract\n")


def test_check_method_of_nothing(command: Command) -> None:
    code, printed, error = command("check-method", "nope")
    assert (code, printed) == (2, "") and "expected methods out of ecc," in error


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

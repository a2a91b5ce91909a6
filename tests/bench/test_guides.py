"""Every guide is carried out: its files are written, its commands typed, in a copy of the suite."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}


def blocks(guide: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / guide).read_text(), re.DOTALL)
    assert found
    return found


def commands(guide: str) -> list[list[str]]:
    return [shlex.split(line) for block in blocks(guide, "sh") for line in block.splitlines()]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A copy of the suite, linked file by file, whose dense weights take seconds to train."""
    for room in ("bench", "methods", "shared"):
        shutil.copytree(
            ROOT / room, tmp_path / room, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__")
        )
    recipe = tmp_path / "bench/setup/dense.py"
    text = recipe.read_text()
    assert "iterations: int = 10_000" in text
    recipe.unlink()
    recipe.write_text(text.replace("iterations: int = 10_000", "iterations: int = 30"))
    return tmp_path


def type_in(command: list[str], folder: Path, *path: Path) -> str:
    """Type a command of a guide in the copy; returns what it printed."""
    words = [sys.executable, *command[1:]] if command[0] == "python" else command
    environment = ENVIRONMENT | {"BENCH_CACHE": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def type_benchs(commands: list[list[str]], folder: Path, *path: Path) -> list[str]:
    """Type `python -m bench` commands one after another, in one process that imports torch once; what each printed."""
    assert all(command[:3] == ["python", "-m", "bench"] for command in commands)
    program = (
        "import contextlib, io, json, sys\n"
        "from bench.cli.app import main\n"
        "printed = []\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['bench', *words]\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as output:\n"
        "        code = main()\n"
        "    assert code == 0, (words, code, output.getvalue())\n"
        "    printed.append(output.getvalue())\n"
        "print(json.dumps(printed))\n"
    )
    typed = json.dumps([command[3:] for command in commands])
    printed: list[str] = json.loads(type_in(["python", "-c", program, typed], folder, *path).splitlines()[-1])
    return printed


def test_adding_a_method(suite: Path) -> None:
    make, install, *rest = commands("adding-a-method.md")
    assert "wrote bench-median/bench_median.py" in type_in(make, suite)
    (code,) = blocks("adding-a-method.md", "python")
    (suite / "bench-median/bench_median.py").write_text(code)
    assert install[:5] == ["python", "-m", "pip", "install", "--no-deps"] and install[-1] == "./bench-median"
    offline = ["--no-index", "--no-build-isolation", "--target", "site", install[-1]]  # instead of -e
    type_in([*install[:5], "--quiet", *offline], suite)
    printed = type_benchs(rest, suite, suite / "site")
    assert len(printed) == 2 and "median keeps the contract" in printed[0]
    assert "| Geometric median per joule" in printed[1]


def test_the_methods_guide_shows_the_package_of_the_tests() -> None:
    (code,) = blocks("adding-a-method.md", "python")
    assert code == (ROOT / "tests/example_package/bench_median.py").read_text()


def test_a_network_of_ones_own(suite: Path) -> None:
    (code,) = blocks("adding-a-network.md", "python")
    (suite / "small.py").write_text(code)
    printed = type_benchs(commands("adding-a-network.md"), suite)
    assert len(printed) == 5 and all("held-out error" in printed[index] for index in (0, 3, 4))
    assert "small.py:Small on fashion-mnist" in printed[1]
    assert re.search(r"\| ECC +\| +\d\d\.\d\d \|", printed[2])
    (record,) = (suite / "runs").glob("Small-*/ecc-*/record.json")
    probe = (
        "import sys, torch, bench; from shared.networks import structure;"
        "model = bench.load_compressed(sys.argv[1]); widths = tuple(model.config['widths']);"
        "assert structure(model).upper_bounds == widths != (8, 16, 24);"
        "assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)"
    )
    type_in(["python", "-c", probe, str(record.parent)], suite)


def test_adding_a_platform(suite: Path) -> None:
    copy, *rest = commands("adding-a-platform.md")
    type_in(copy, suite)
    path = suite / "shared/platforms/wide.toml"
    text = path.read_text()
    for entry in re.split(r"\n\n(?=\[)", blocks("adding-a-platform.md", "toml")[0].strip()):
        (name,) = tomllib.loads(entry)
        text, count = re.subn(rf"\[{name}\]\n(?:[^\[\n].*\n?)*", entry + "\n", text)
        assert count == 1
    path.write_text(text)
    printed = type_benchs(rest, suite)
    assert len(printed) == 3 and re.search(r"^wide +energy +simulated", printed[0], re.MULTILINE)
    assert "held-out error" in printed[1] and printed[2].startswith("wide: simulated joules")


def test_every_linked_file_exists() -> None:
    for guide in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", guide.read_text()):
            assert (guide.parent / target).exists(), f"{guide.name}: {target}"

"""The command line as a person meets it: exit codes, one line for bad input, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments: str, cache: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_needs_no_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bench", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported and not imported & {"torch", "numpy", "pandas", "matplotlib"}
    assert "run" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--methods", "nope"),
        ("--device", "nope"),
        ("--network", "nope"),
        ("--dataset", "nope"),
        ("--budgets", "0.0001"),
        ("--seeds", "x"),
        ("--jobs", "x"),
        ("--nope",),
    ],
)
def test_bad_arguments_exit_with_2_one_line_and_no_trace(
    arguments: tuple[str, ...], cache: Path, tmp_path: Path
) -> None:
    done = bench("run", "--protocol", "smoke", "--out", str(tmp_path / "runs"), *arguments, cache=cache)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "runs").exists()


def test_lists(cache: Path) -> None:
    assert {"ecc", "netadapt", "amc"} <= {line.split()[0] for line in bench("methods", cache=cache).stdout.splitlines()}
    assert bench("networks", cache=cache).stdout.split() == ["alexnet", "erfnet", "mobilenet"]
    assert "simulated" in bench("devices", cache=cache).stdout


def test_run_end_to_end_then_again_then_fresh(cache: Path, tmp_path: Path) -> None:
    """A report at first; no training the second time; the same networks, bit for bit, in a fresh store."""
    arguments = ("run", "--protocol", "smoke", "--methods", "ecc,netadapt,amc,uniform", "--jobs", "2", "--out")
    first = bench(*arguments, str(tmp_path / "a"), cache=cache)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.startswith("1080ti: simulated")
    (page,) = (tmp_path / "a").glob("*.md")
    assert page.name == "mobilenet-fashion-mnist-1080ti-simulated-smoke.md" and "simulated" in page.read_text()
    records = {path: path.read_bytes() for path in (tmp_path / "a").rglob("record.json")}
    assert len(records) == 4

    again = bench(*arguments, str(tmp_path / "a"), cache=cache)
    assert again.returncode == 0 and "4 of 4 runs are finished already" in again.stdout
    assert all(path.read_bytes() == data for path, data in records.items())

    fresh = bench(*arguments, str(tmp_path / "b"), cache=cache)
    assert fresh.returncode == 0
    networks = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("network.safetensors")]
    assert len(networks) == 4
    for path in networks:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path

"""No part of a run mixes devices: every method runs on a second device as it does on the CPU (see far_device.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils import backend_registration

METHODS = ("ecc", "netadapt", "amc", "uniform", "random", "magnitude", "dense", "ecc:files", "ecc:scenes")
LARGEST_STEP = 0.06  # what Adam can move a weight by in these runs
LARGEST_CHANGE = 0.2  # of batch norm's averages, over the largest of their layer


@pytest.fixture(scope="module")
def lines(cache: Path) -> list[dict[str, Any]]:
    """What far_device.py printed."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch can't have a device made in Python")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("far_device.py")), *METHODS],
        env=os.environ | {"BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_device_refuses_tensors_of_another(lines: list[dict[str, Any]]) -> None:
    assert "two devices" in lines[0]["refused"]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stays_on_its_device_and_does_the_same_there(method: str, lines: list[dict[str, Any]]) -> None:
    told = next(line for line in lines if line.get("method") == method)
    assert told["reasons"] == [None, None]
    near, far = told["widths"]
    assert near == far
    assert told["worst"] < LARGEST_STEP and told["averages"] < LARGEST_CHANGE
    assert told["scores"][1] == pytest.approx(told["scores"][0], abs=0.05)
    assert told["compute"] == "far" and told["devices"] == ["cpu"]  # what is stored has come back

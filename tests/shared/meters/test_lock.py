"""A device has one user at a time, and who comes second reads who holds it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.meters import MeterError, device_lock

HOLD = """
import sys
from pathlib import Path
from shared.meters import device_lock
with device_lock("gpu:0", "training ecc", folder=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_one_reads_who_holds_it(tmp_path: Path) -> None:
    with device_lock("gpu:0", "training ecc", folder=tmp_path):
        with (
            pytest.raises(MeterError, match=rf"gpu:0 held by process {os.getpid()} \(training ecc\)"),
            device_lock("gpu:0", "reading joules", folder=tmp_path),
        ):
            pytest.fail("two at a time")
        with device_lock("gpu:1", "reading joules", folder=tmp_path):
            pass  # another device is another matter
    with device_lock("gpu:0", "reading joules", folder=tmp_path):
        pass


def test_a_failure_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), device_lock("cpu", "a", folder=tmp_path):
        raise ZeroDivisionError
    with device_lock("cpu", "b", folder=tmp_path):
        pass


def test_devices_with_odd_names_stay_apart_and_inside_the_folder(tmp_path: Path) -> None:
    with device_lock("../a/b", "x", folder=tmp_path / "locks"), device_lock("../a-b", "y", folder=tmp_path / "locks"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


def test_a_holder_that_has_not_signed_yet(tmp_path: Path) -> None:
    with device_lock("cpu", "a", folder=tmp_path):
        (tmp_path / "cpu.holder").unlink()
        with pytest.raises(MeterError, match="another process"), device_lock("cpu", "b", folder=tmp_path):
            pytest.fail("two at a time")


def test_the_lock_lies_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    with device_lock("cpu", "a"):
        assert (tmp_path / "locks" / "cpu.holder").exists()


def test_a_process_that_dies_holding_it_frees_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(MeterError, match=f"process {other.pid}"), device_lock("gpu:0", "b", folder=tmp_path):
            pytest.fail("two at a time")
        other.kill()
        other.wait()
    with device_lock("gpu:0", "b", folder=tmp_path):
        assert str(os.getpid()) in (tmp_path / "gpu%3A0.holder").read_text()

"""A device has one user at a time, and who comes second reads who holds it."""

from __future__ import annotations

import os
import pickle
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


@pytest.mark.parametrize("shared", [False, True])
def test_a_process_that_dies_holding_it_frees_it(tmp_path: Path, shared: bool) -> None:
    hold = HOLD.replace('ecc",', 'ecc", shared=True,') if shared else HOLD
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(MeterError, match=f"process {other.pid}"), device_lock("gpu:0", "b", folder=tmp_path):
            pytest.fail("two at a time")
        other.kill()
        other.wait()
    with device_lock("gpu:0", "b", folder=tmp_path):
        assert str(os.getpid()) in (tmp_path / "gpu%3A0.holder").read_text()


def test_those_who_share_keep_out_only_who_wants_it_alone(tmp_path: Path) -> None:
    with (
        device_lock("cpu", "training a", shared=True, folder=tmp_path),
        device_lock("cpu", "training b", shared=True, folder=tmp_path),
        pytest.raises(MeterError, match=rf"cpu held by process {os.getpid()} \(training [ab]\)"),
        device_lock("cpu", "reading", folder=tmp_path),
    ):
        pytest.fail("read beside a training")
    with (
        device_lock("cpu", "reading", folder=tmp_path),
        pytest.raises(MeterError, match="reading"),
        device_lock("cpu", "training", shared=True, folder=tmp_path),
    ):
        pytest.fail("trained beside a reading")
    assert not list(tmp_path.glob("*user*"))


def test_waiting_for_who_goes_in_time(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None and other.stdout.readline() == "held\n"
        other.stdin.close()  # it ends now, some time after
        with device_lock("gpu:0", "b", wait_s=60.0, folder=tmp_path):
            pass


def test_who_waits_is_told_once_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None and other.stdout.readline() == "held\n"

        def tell(line: str) -> None:
            said.append(line)
            assert other.stdin is not None
            other.stdin.close()

        with device_lock("gpu:0", "b", wait_s=60.0, folder=tmp_path, say=tell):
            pass
    assert said == [f"waiting: gpu:0 held by process {other.pid} (training ecc)"]


def test_a_fault_passes_from_process_to_process() -> None:
    fault = MeterError("a sensor", 3, "again")
    again = pickle.loads(pickle.dumps(fault))
    assert str(again) == str(fault) and (again.expected, again.hint) == ("a sensor", "again")

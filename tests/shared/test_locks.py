"""Locks between processes: a folder without them is refused in one line, and a wait says for what."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.record.store import Store
from shared import locks
from shared.data import fashion_mnist
from shared.errors import BadInput
from shared.meters import device_lock

fcntl = pytest.importorskip("fcntl")
ROOT = Path(__file__).parents[2]
REFUSALS = ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EIO", "EINVAL", "EPERM", "EROFS"]
HOLD = """
import sys
from pathlib import Path
from shared import locks
with locks.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes the system refuse all locks with the error of that name; returns the error's text."""

    def apply(name: str) -> str:
        number = getattr(errno, name)

        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
        return os.strerror(number)

    return apply


def line(act: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        act()
    (message,) = str(caught.value).splitlines()
    return message


@pytest.mark.parametrize("old", [None, "", "12345\\nelsewhere\\n"])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_folder_without_locks_is_refused(
    name: str, old: str | None, tmp_path: Path, refuse: Callable[[str], str]
) -> None:
    """At once, whether or not a lock file was left behind."""
    if old is not None:
        (tmp_path / "lock").write_text(old)
    text = refuse(name)
    told = f"expected a folder whose files can be locked, got {tmp_path} ({text}); try another one"
    assert line(lambda: locks.taken(tmp_path / "lock", "another one")) == told
    with pytest.raises(BadInput, match="BENCH_CACHE=FOLDER"), locks.held(tmp_path / "lock"):
        pytest.fail("held without a lock")


@pytest.mark.parametrize("name", REFUSALS)
def test_so_is_every_folder_that_the_suite_locks(
    name: str, tmp_path: Path, refuse: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    text = refuse(name)
    told = line(fashion_mnist.load)
    assert f"{tmp_path / 'cache' / 'data'} ({text})" in told and "BENCH_CACHE" in told
    told = line(device_lock("cpu", "reading").__enter__)
    assert f"{tmp_path / 'cache' / 'locks'} ({text})" in told and "BENCH_CACHE" in told
    told = line(Store(tmp_path / "out").working("page").__enter__)
    assert f"{tmp_path / 'out' / 'page'} ({text})" in told and "--out" in told and "BENCH_CACHE" not in told


def test_nothing_else_takes_locks() -> None:
    """So that there is nothing else to refuse them."""
    takers = set()
    for room in ("bench", "methods", "shared"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if {name.partition(".")[0] for name in names} & {"filelock", "fcntl", "msvcrt"}:
                    takers.add(path.relative_to(ROOT).as_posix())
    assert takers == {"shared/locks.py"}


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT"])
def test_a_full_disk_stays_trouble_that_passes(name: str, tmp_path: Path, refuse: Callable[[str], str]) -> None:
    refuse(name)
    with pytest.raises(OSError) as caught:
        locks.taken(tmp_path / "lock")
    assert caught.value.errno == getattr(errno, name)


def test_a_lock_is_for_one_at_a_time(tmp_path: Path) -> None:
    lock = locks.taken(tmp_path / "lock")
    assert lock is not None and locks.taken(tmp_path / "lock") is None
    other = locks.taken(tmp_path / "other")
    assert other is not None
    other.release()
    lock.release()
    with locks.held(tmp_path / "lock"):
        assert locks.taken(tmp_path / "lock") is None
    with pytest.raises(ZeroDivisionError), locks.held(tmp_path / "lock"):
        raise ZeroDivisionError
    lock = locks.taken(tmp_path / "lock")
    assert lock is not None
    lock.release()


@pytest.mark.parametrize("moment_s", [0.0, 600.0])
def test_a_wait_is_told_after_a_moment_and_once(
    moment_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "TOLD_AFTER_S", moment_s)
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    rounds = 0
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"

        def sleep(_: float) -> None:
            nonlocal rounds
            rounds += 1
            if rounds == 3:
                other.kill()
                other.wait()

        monkeypatch.setattr(time, "sleep", sleep)
        with locks.held(path):  # the killed process has left its file behind
            pass
    assert rounds >= 3
    told = f"waiting for the process that has locked {path}\n"
    assert capfd.readouterr().err == (told if moment_s == 0 else "")

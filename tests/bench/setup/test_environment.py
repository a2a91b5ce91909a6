"""Commit and dirty flag are those of this very code, or none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.setup import environment


def git(folder: Path, *arguments: str) -> str:
    named = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(
        ["git", *named, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one commit, taken for the root of this code."""
    git(tmp_path, "init")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("a")
    git(tmp_path, "add", "inner")
    git(tmp_path, "commit", "-m", "first")
    monkeypatch.setattr(environment, "ROOT", tmp_path.resolve())
    return tmp_path


def test_commit_and_dirty_flag_of_a_checkout(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert environment._checkout() == (head, False)
    (checkout / "untracked").touch()
    assert environment._checkout() == (head, False)
    (checkout / "inner" / "file").write_text("b")
    assert environment._checkout() == (head, True)


def test_a_checkout_around_the_code_is_not_reported(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", checkout.resolve() / "inner")
    assert environment._checkout() == (None, None)


def test_no_checkout_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path.resolve())
    assert environment._checkout() == (None, None)

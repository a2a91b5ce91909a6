"""The cache folder, content keys and writing all or nothing."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from shared.cache import atomic_write, cache_dir, checked_cache_dir, content_key
from shared.errors import BadInput


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    assert not cache_dir().exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE", "~/there")  # no shell expands it where a Makefile or a service file sets it
    assert cache_dir() == tmp_path / "there"
    monkeypatch.delenv("BENCH_CACHE")
    assert cache_dir().is_absolute() and cache_dir() != tmp_path / "here"


def test_a_checked_cache_folder_is_there_and_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "a" / "b"))
    assert checked_cache_dir() == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300])
def test_a_cache_folder_that_cannot_be_written_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / name))
    with pytest.raises(BadInput, match=r"cache folder that can be written, got .* try BENCH_CACHE=FOLDER$"):
        checked_cache_dir()


def test_content_keys_depend_on_content_alone() -> None:
    key = content_key("mobilenet", {"b": 1, "a": [1.5, None]}, b"\x00\x01")
    assert key == content_key("mobilenet", {"a": (1.5, None), "b": 1}, b"\x00\x01")
    assert len(key) == 16 and int(key, 16) >= 0
    others = [
        ("mobilenet", {"b": 1, "a": [1.5, None]}, b"\x00\x02"),
        ("mobilenet", {"b": 2, "a": [1.5, None]}, b"\x00\x01"),
        ("mobilenet", {"b": 1, "a": [1.5]}, b"\x00\x01"),
        ("mobile", "net", {"b": 1, "a": [1.5, None]}, b"\x00\x01"),
    ]
    assert len({key, *(content_key(*parts) for parts in others)}) == 5


def test_content_keys_stay_what_they_were() -> None:
    """Else every cache is made anew."""
    assert content_key("a", 1) == hashlib.sha256(b'["a",1]').hexdigest()[:16]


def test_content_keys_refuse_what_has_no_canonical_form() -> None:
    with pytest.raises(TypeError, match="got set"):
        content_key({1, 2})


def test_writing_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.json"
    atomic_write(path, b"first")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_file_as_it_was(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    atomic_write(path, b"whole")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]

"""The cache folder for dense weights, profiles and unpacked data. File names are hashes of what decides the content."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import platformdirs

from shared.errors import BadInput


def cache_dir() -> Path:
    """The cache folder: `BENCH_CACHE` if set ("~" is the home folder), else the operating system's for this user.

    The folder may not exist yet.
    """
    override = os.environ.get("BENCH_CACHE")
    if override:
        return Path(os.path.expanduser(override))
    return Path(platformdirs.user_cache_dir("energy-compression-bench"))


def checked_cache_dir() -> Path:
    """The cache folder, created if missing. Raises BadInput when no file can be written there."""
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadInput(
            "a cache folder that can be written", f"{folder} ({error.strerror})", "BENCH_CACHE=FOLDER"
        ) from None
    return folder


def content_key(*parts: object) -> str:
    """SHA-256 (first 16 hex digits) of `parts` as canonical JSON, in which bytes are replaced by their own SHA-256."""

    def plain(part: object) -> object:
        if isinstance(part, bytes):
            return hashlib.sha256(part).hexdigest()
        raise TypeError(f"expected JSON values or bytes in a content key, got {type(part).__name__}; try str() of it")

    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`: after a crash it holds all of `data` or its old content. Creates the parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp lets nobody but the owner read, and caches may be shared
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

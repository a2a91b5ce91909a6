"""The user's cache folder: dense weights, profiles and unpacked data, addressed by content."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import platformdirs

from shared.errors import BadInput


def cache_dir() -> Path:
    """The cache folder: `BENCH_CACHE` where set ("~" is the home folder), else the operating system's for this user.

    Not created here.
    """
    override = os.environ.get("BENCH_CACHE")
    return (
        Path(os.path.expanduser(override))
        if override
        else Path(platformdirs.user_cache_dir("energy-compression-bench"))
    )


def checked_cache_dir() -> Path:
    """The cache folder, made when missing. Raises BadInput when nothing can be written into it."""
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
    """SHA-256 (first 16 hex digits) over the canonical JSON of `parts`; bytes count by their own digest."""

    def plain(part: object) -> object:
        if isinstance(part, bytes):
            return hashlib.sha256(part).hexdigest()
        raise TypeError(f"expected JSON values or bytes in a content key, got {type(part).__name__}; try str() of it")

    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` so that `path` either holds all of it or is as before; makes the parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

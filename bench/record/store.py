"""The store: one folder per run, with the files of its stages while it is under way, then record and network."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from bench.record.model import NETWORK_FILE, RECORD_FILE, Record, read, to_json
from shared import locks
from shared.cache import atomic_write
from shared.errors import BadInput

STAGES = "stages-"  # prefix of the folder with the stages of an unfinished run
_LOCK = ".lock"


class Store:
    """Finished runs below one folder (`--out`), each in `<plan's slug>/<method>-<budget>-s<seed>`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # a method may change the current folder

    @contextlib.contextmanager
    def working(self, slug: str) -> Iterator[None]:
        """Lock the plan's folder `slug` while its runs are made.

        Raises BadInput when another process has locked it, and where the file system has no locks.
        """
        place = self.root / slug
        place.mkdir(parents=True, exist_ok=True)
        lock = locks.taken(place / _LOCK, "another --out, on another file system")
        if lock is None:
            raise BadInput(
                f"{place} for this plan alone", "another plan that is at work there", "waiting for it, or another --out"
            )
        try:
            yield
        finally:
            lock.release()

    def folder(self, name: str) -> Path:
        """The folder of the run `name`, which may not exist yet."""
        return self.root / name

    def find(self, name: str, key: str, say: Callable[[str], None] = lambda _: None) -> Record | None:
        """The record of a finished run whose content key is `key`; None when there is none, or it can't be used.

        say: prints why a run is repeated: it is damaged, or its record has another schema.
        """
        folder = self.folder(name)
        if not (folder / RECORD_FILE).exists():
            return None
        try:
            record = read(folder)
        except BadInput as error:
            say(f"{name} is run again: {error}")
            return None
        if record.key != key:
            return None
        if not network_intact(folder, record):
            file = folder / NETWORK_FILE
            say(f"{name} is run again: expected {file} as its record hashes it, got other bytes or no file")
            return None
        return record

    def stages(self, name: str, key: str, *, fresh: bool = False) -> Path:
        """The folder for the stages' files of an unfinished run, which are valid for its content key alone.

        Removes the folders of other keys, with `fresh` that of this key too.
        """
        folder = self.folder(name)
        for old in folder.glob(f"{STAGES}*"):
            if fresh or old.name != f"{STAGES}{key}":
                shutil.rmtree(old, ignore_errors=True)
        return folder / f"{STAGES}{key}"

    def put(self, name: str, record: Record, weights: dict[str, Tensor] | None) -> Record:
        """Write the network, then the record, which holds the network's hash; then remove the stages' files.

        A process that is killed here leaves either no record or a complete one. Without a record the stages' files are
        still there, and the same command writes it again. Returns the record as written, with the network's hash.
        """
        folder = self.folder(name)
        (folder / RECORD_FILE).unlink(missing_ok=True)  # an older record must not stand beside this network
        (folder / NETWORK_FILE).unlink(missing_ok=True)
        if weights is not None:
            blob = save({tensor: value.cpu().contiguous() for tensor, value in weights.items()})
            record = record.model_copy(update={"network_sha256": hashlib.sha256(blob).hexdigest()})
            atomic_write(folder / NETWORK_FILE, blob)
        atomic_write(folder / RECORD_FILE, to_json(record))
        for old in folder.glob(f"{STAGES}*"):
            shutil.rmtree(old, ignore_errors=True)
        return record


def network_intact(folder: Path, record: Record) -> bool:
    """Whether the network's file is the one that the record hashes (a record without a network counts as intact)."""
    if record.network_sha256 is None:
        return True
    path = folder / NETWORK_FILE
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == record.network_sha256

"""The store: one folder per finished run, written in one rename.

On hardware it is written twice, after training and once more when its network has been read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors.torch import load_file, save
from torch import Tensor

from bench.record import NETWORK_FILE, RECORD_FILE, Record, read, to_json
from shared.errors import BadInput

# A run that is being written; a whole one on its way to its place; the states of one that is not finished.
_DRAFT, _READY, _STATES = ".draft-", ".ready-", ".states-"
_LOCK = ".lock"


class Store:
    """Finished runs below one folder (`--out`).

    Run `<plan's slug>/<method>-<budget>-s<seed>` has the folder of that name.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def check_writable(self) -> None:
        """Raise BadInput when nothing could be written here; writes nothing that stays."""
        place = self.root
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            if not place.is_dir():
                raise NotADirectoryError(20, "not a folder")
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise BadInput(
                "an output folder that can be written", f"{self.root} ({error.strerror})", "--out FOLDER"
            ) from None

    @contextlib.contextmanager
    def working(self, slug: str) -> Iterator[None]:
        """Hold the plan's folder `slug`, swept, while its runs are made.

        Raises BadInput when another process holds it.
        """
        place = self.root / slug
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BadInput(
                f"{place} for this plan alone", "another plan that is at work there", "waiting for it, or another --out"
            ) from None
        try:
            self.sweep(slug)
            yield
        finally:
            lock.release()

    def folder(self, name: str) -> Path:
        """Where the run `name` lies, or will lie."""
        return self.root / name

    def find(self, name: str, key: str) -> Record | None:
        """The record of a finished run whose content key is `key`; None when there is none or it is damaged."""
        folder = self.folder(name)
        try:
            record = read(folder)
        except BadInput:  # none yet, or damaged: the run is repeated
            return None
        return record if record.key == key and network_intact(folder, record) else None

    def weights(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of a finished run's network; None where it has none."""
        path = self.folder(name) / NETWORK_FILE
        return load_file(path) if path.is_file() else None

    def states(self, name: str, key: str, *, fresh: bool = False) -> Path:
        """The folder for the states of an unfinished run, to which they are bound by its content key.

        States of another key are of no use any more and go away; with `fresh` those of this key too.
        """
        folder = self.folder(name)
        place = folder.with_name(_STATES + folder.name)
        for old in place.glob("*") if place.is_dir() else ():
            if fresh or old.name != key:
                shutil.rmtree(old, ignore_errors=True)
        return place / key

    def put(self, name: str, record: Record, weights: dict[str, Tensor] | None) -> Record:
        """Write record and network beside their final place, then rename; an older folder of this name is replaced.

        Killed at any point, it leaves the old run or the new one whole, and `sweep` brings that to its place. Returns
        the record as it was written, with the hash of the network's file.
        """
        folder = self.folder(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_DRAFT))
        try:
            if weights is not None:
                blob = save(weights)
                record = record.model_copy(update={"network_sha256": hashlib.sha256(blob).hexdigest()})
                (draft / NETWORK_FILE).write_bytes(blob)
            (draft / RECORD_FILE).write_bytes(to_json(record))
            draft.chmod(0o755)
            ready = folder.with_name(_READY + folder.name)
            os.replace(draft, ready)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _settle(ready)
        shutil.rmtree(folder.with_name(_STATES + folder.name), ignore_errors=True)
        return record

    def sweep(self, slug: str) -> None:
        """Finish what an interrupted process left below the plan's folder `slug`: whole runs go to their place, drafts
        go away.
        """
        with contextlib.suppress(OSError):
            for ready in (self.root / slug).glob(f"{_READY}*"):
                _settle(ready)
            for draft in (self.root / slug).glob(f"{_DRAFT}*"):
                if draft.is_dir():
                    shutil.rmtree(draft, ignore_errors=True)


def _settle(ready: Path) -> None:
    """Move a whole run to its place; what lay there becomes a draft and goes."""
    folder = ready.with_name(ready.name.removeprefix(_READY))
    if folder.exists():  # --fresh, or a damaged run
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_DRAFT))
        os.replace(folder, old)
        os.replace(ready, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(ready, folder)


def network_intact(folder: Path, record: Record) -> bool:
    """Whether the network's file is the one that the record hashes (a record without a network counts as intact)."""
    if record.network_sha256 is None:
        return True
    path = folder / NETWORK_FILE
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == record.network_sha256

"""States from which a stopped run resumes, one safetensors file per name; reading them needs no pickle."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save
from torch import Tensor

from shared.cache import atomic_write
from shared.ledger import Ledger

State = dict[str, Any]  # JSON values and tensors, nested in dicts with string keys and in lists
EVERY_S = 60.0
_NAME = re.compile(r"[a-z0-9][a-z0-9 -]{0,99}")
_TENSOR = "tensor:"  # "tensor:KEY" in the JSON stands for the tensor KEY of the file


class Checkpoints:
    """Saves and loads the states of one run below `folder`; without a folder nothing is saved.

    A file also holds the ledger's counts and the run's seconds so far. `load` restores both, so that a run's cost does
    not depend on how often it was stopped. every_s: least time between two saves.
    """

    def __init__(self, folder: Path | None = None, every_s: float = EVERY_S) -> None:
        self._folder, self._every_s = folder, every_s
        self.start()

    def start(self) -> None:
        """Start the clock of `elapsed_s`."""
        self._started = self._saved = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Wall seconds of the run, including those before it was stopped."""
        return time.monotonic() - self._started

    def save(self, name: str, state: Callable[[], State], ledger: Ledger) -> None:
        """Save what `state()` returns under `name`, in place of the last one, once `every_s` has passed since.

        name: small letters, digits, spaces and hyphens. Raises TypeError for values that are neither JSON nor tensors.
        """
        if self._folder is None or time.monotonic() - self._saved < self._every_s:
            return
        tensors: dict[str, Tensor] = {}
        content = {"state": _without_tensors(state(), "", tensors), "ledger": ledger.as_record(), "s": self.elapsed_s}
        # A copy of each: safetensors refuses tensors that share memory.
        plain = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()}
        atomic_write(self._path(name), save(plain, metadata={"told": json.dumps(content)}))
        self._saved = time.monotonic()

    def load(self, name: str, ledger: Ledger) -> State | None:
        """The last state saved under `name`, tensors on the CPU; None when there is no file or it is damaged."""
        if self._folder is None or not (path := self._path(name)).is_file():
            return None
        try:
            blob = path.read_bytes()  # safetensors' own readers of files refuse paths that are no UTF-8
            tensors = tensors_of(blob)
            header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])  # after its length in 8 bytes
            content = json.loads(header["__metadata__"]["told"])
            state: State = _with_tensors(content["state"], tensors.__getitem__)
        except SafetensorError:  # damaged: the run starts over, with the same outcome
            return None
        for count, value in content["ledger"].items():
            setattr(ledger, count, value)
        # A run has one clock for all its names: keep the earliest start that any of them implies.
        self._started = min(self._started, time.monotonic() - content["s"])
        return state

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"expected a name of small letters, digits, spaces and hyphens, got {name!r}; try another")
        assert self._folder is not None
        return self._folder / f"{name.replace(' ', '_')}.safetensors"


def _without_tensors(value: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, with its tensors moved into `tensors` and replaced by a text that names their key there."""
    match value:
        case Tensor():
            tensors[key] = value
            return _TENSOR + key
        case dict():
            if not all(isinstance(name, str) for name in value):
                raise TypeError(f"expected names as keys of a state, got {list(value)} at {key!r}; try str(key)")
            return {name: _without_tensors(entry, f"{key}/{name}", tensors) for name, entry in value.items()}
        case list() | tuple():
            return [_without_tensors(entry, f"{key}/{index}", tensors) for index, entry in enumerate(value)]
        case str() if value.startswith(_TENSOR):
            raise TypeError(f"expected text that does not begin with {_TENSOR!r}, got {value!r} at {key!r}")
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"expected JSON values and tensors in a state, got {type(value).__name__} at {key!r}")


def _with_tensors(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    match value:
        case str() if value.startswith(_TENSOR):
            return tensor(value.removeprefix(_TENSOR))
        case dict():
            return {name: _with_tensors(entry, tensor) for name, entry in value.items()}
        case list():
            return [_with_tensors(entry, tensor) for entry in value]
    return value

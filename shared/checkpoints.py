"""What a stopped run needs to go on: states under names, in files that nothing needs pickle to read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from shared.cache import atomic_write
from shared.ledger import Ledger

State = dict[str, Any]  # JSON values and tensors, nested in dicts with string keys and in lists
EVERY_S = 60.0
_NAME = re.compile(r"[a-z0-9][a-z0-9 -]{0,99}")
_TENSOR = "tensor:"  # stands in JSON for the tensor of that key


class Checkpoints:
    """The states of one run, below `folder`; without a folder nothing is kept.

    A state is saved together with the ledger's counts and the seconds that the run has taken, and `load` puts the
    ledger back to them: what a run has spent does not depend on how often it was stopped. `every_s`: the least time
    between two savings.
    """

    def __init__(self, folder: Path | None = None, every_s: float = EVERY_S) -> None:
        self._folder, self._every_s = folder, every_s
        self.start()

    def start(self) -> None:
        """Begin to count seconds."""
        self._started = self._saved = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Wall seconds since the start, those before the run was stopped included."""
        return time.monotonic() - self._started

    def save(self, name: str, state: Callable[[], State], ledger: Ledger) -> None:
        """Keep what `state()` returns under `name`, in place of what was there, when it is time again.

        Names are small letters, digits, spaces and hyphens. Raises TypeError for values that can't be kept.
        """
        if self._folder is None or time.monotonic() - self._saved < self._every_s:
            return
        tensors: dict[str, Tensor] = {}
        told = {"state": _without_tensors(state(), "", tensors), "ledger": ledger.as_record(), "s": self.elapsed_s}
        plain = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()}
        atomic_write(self._path(name), save(plain, metadata={"told": json.dumps(told)}))
        self._saved = time.monotonic()

    def load(self, name: str, ledger: Ledger) -> State | None:
        """What was kept last under `name`, tensors on the CPU; None when there is nothing that can be read."""
        if self._folder is None or not (path := self._path(name)).is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                told = json.loads(file.metadata()["told"])
                state: State = _with_tensors(told["state"], file.get_tensor)
        except SafetensorError:  # damaged; without it the run begins anew, with the same outcome
            return None
        for count, value in told["ledger"].items():
            setattr(ledger, count, value)
        self._started = min(self._started, time.monotonic() - told["s"])
        return state

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"expected a name of small letters, digits, spaces and hyphens, got {name!r}; try another")
        assert self._folder is not None
        return self._folder / f"{name.replace(' ', '_')}.safetensors"


def _without_tensors(value: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors moved to `tensors`."""
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

"""Random generators that are a pure function of (seed, purpose, index).

Nothing in the suite draws from a generator whose state depends on what ran before, so a run can stop at any iteration
and go on with the same outcome, and two methods with one seed see the same batches.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed from (seed, purpose, index), well mixed even for neighbouring indices."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU torch generator for (seed, purpose, index)."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, index))


def numpy_generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """A numpy generator for (seed, purpose, index)."""
    return np.random.default_rng(derived_seed(seed, purpose, index))


@contextlib.contextmanager
def forked(seed: int, purpose: str, index: int = 0) -> Iterator[None]:
    """Run code that knows only global generators (dropout, stable-baselines3) in a seeded fork of them.

    The states of torch, numpy and random are put back on leaving, also after an error.
    """
    value = derived_seed(seed, purpose, index)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    # of the GPU that this process computes on, if it does: asking for the others' states would take hold of them all
    used = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=used):
        torch.manual_seed(value)
        np.random.seed(value % 2**32)
        random.seed(value)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)

"""Random generators that are a pure function of (seed, purpose, index).

No generator's state depends on what ran before. So a run that was stopped resumes with the same outcome, and two
methods with the same seed see the same batches.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed from (seed, purpose, index). Neighbouring indices give unrelated seeds."""
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
    """Seed the global generators of torch, numpy and random inside a `with` block, and restore them after it.

    For code that draws from global generators alone, such as dropout and stable-baselines3.
    """
    value = derived_seed(seed, purpose, index)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    # Only the GPU that this process computes on: reading the state of another GPU would allocate memory there.
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(value)
        np.random.seed(value % 2**32)
        random.seed(value)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)

"""The dense network's logits on the training batches, for distillation.

They depend on dense weights, data, the code that makes batches, seed and batch index alone. So they are computed once
per seed, stored in files and shared by all methods. Where they would be too large (a label per pixel, ImageNet), they
are computed in each training step instead.
"""

from __future__ import annotations

import copy
import hashlib
import math
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from bench.setup import fingerprints
from bench.setup.setup import Setup
from shared import rng
from shared.cache import atomic_write, cache_dir, content_key
from shared.computing import ON_CPU, Computing
from shared.data import files as file_batches
from shared.data import images as batches
from shared.training import Teacher

LARGEST_TABLE_BYTES = 256 * 2**20
CHUNK = 250  # batches per file
DIGEST_BYTES = 32  # a file is a SHA-256, then the safetensors that it is the hash of


def chunks(setup: Setup) -> range:
    """First batch indices of the files that cover compression and fine-tuning.

    Empty when the table would be too large.
    """
    protocol = setup.protocol
    count = protocol.iterations + protocol.fine_tune_iterations
    logits = setup.structure.outputs * math.prod(setup.dataset.label_shape)  # per image
    size_bytes = 4 * count * protocol.batch_size * logits
    return range(0, count if size_bytes <= LARGEST_TABLE_BYTES else 0, CHUNK)


def _path(setup: Setup, seed: int, first: int) -> Path:
    deciding = (batches, file_batches, rng)  # the code that decides batch i of a seed
    code = [fingerprints.of_code(Path(str(module.__file__)).read_bytes()) for module in deciding]
    layers = setup.structure.fingerprint
    size = setup.protocol.batch_size
    what = (setup.dense.fingerprint, layers, setup.dataset.fingerprint, code, seed, size)
    key = content_key(*what, torch.__version__, setup.computing.label)
    return cache_dir() / "teacher" / key / f"{first:07d}-{CHUNK}"


def _read(path: Path) -> Tensor | None:
    """The logits in a file, (batches, images, classes, …); None when the file is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, blob = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return load(blob)["logits"] if hashlib.sha256(blob).digest() == digest else None


@torch.no_grad()
def _chunk(setup: Setup, seed: int, first: int) -> Tensor:
    """The logits of CHUNK batches from `first` on: from their file, else computed and written there."""
    path = _path(setup, seed, first)
    if (logits := _read(path)) is not None:
        return logits
    stream = setup.dataset.train.stream(seed, setup.protocol.batch_size)
    logits = torch.stack([setup.dense.network(stream.batch(index)[0]) for index in range(first, first + CHUNK)]).cpu()
    blob = save({"logits": logits})
    atomic_write(path, hashlib.sha256(blob).digest() + blob)
    return logits


def prepare(setup: Setup, seed: int, first: int) -> None:
    """Compute the file that begins at batch `first`, unless it exists."""
    _chunk(setup, seed, first)


def teacher(setup: Setup, seed: int) -> Teacher:
    """The logits by batch index, on the training device, as a tensor that the caller may change.

    They come from files where these fit, else from the dense network.
    """
    files = chunks(setup)
    if not files:
        return live(setup.dense.network, setup.computing)
    table = torch.cat([_chunk(setup, seed, first) for first in files]).to(setup.computing.device)
    return lambda index, images: table[index].to(images.device, copy=True)


def live(dense: nn.Module, computing: Computing = ON_CPU) -> Teacher:
    """Logits that a copy of the dense network computes in each step, in the precision of training."""
    network = copy.deepcopy(dense).eval()

    @torch.no_grad()
    def logits(index: int, images: Tensor) -> Tensor:
        return computing.logits(network, images)

    return logits

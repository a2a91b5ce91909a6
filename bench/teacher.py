"""The dense network's logits on the training batches: computed once per seed and shared by all methods where they fit
on disk.

They depend on (dense weights, data, seed, batch index) alone. Where they would be large (ImageNet) they are computed
beside each step instead.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.dense import DenseWeights
from bench.plan import Ground
from shared.cache import atomic_write, cache_dir, content_key
from shared.data import BatchStream
from shared.training import Teacher

LARGEST_TABLE_BYTES = 256 * 2**20
CHUNK = 250  # batches per file, and per piece of work


def chunks(ground: Ground) -> range:
    """First batch indices of the files that cover compression and fine-tuning.

    Empty when the table would be too large.
    """
    protocol = ground.protocol
    count = protocol.iterations + protocol.fine_tune_iterations
    size_bytes = 4 * count * protocol.batch_size * len(ground.dataset.classes)
    return range(0, count if size_bytes <= LARGEST_TABLE_BYTES else 0, CHUNK)


def _path(ground: Ground, dense: DenseWeights, seed: int, first: int) -> Path:
    key = content_key(
        dense.fingerprint, ground.dataset.fingerprint, seed, ground.protocol.batch_size, torch.__version__
    )
    return cache_dir() / "teacher" / key / f"{first:07d}-{CHUNK}.safetensors"


@torch.no_grad()
def prepare(ground: Ground, dense: DenseWeights, seed: int, first: int) -> None:
    """Compute the file that begins at batch `first`, unless it is there."""
    path = _path(ground, dense, seed, first)
    if path.is_file():
        return
    stream = BatchStream(ground.dataset.train, seed, ground.protocol.batch_size)
    logits = torch.stack([dense.network(stream.batch(index)[0]) for index in range(first, first + CHUNK)])
    atomic_write(path, save({"logits": logits}))  # (batches, images, classes)


def teacher(ground: Ground, dense: DenseWeights, seed: int) -> Teacher:
    """Logits by batch index: from the prepared files, else from a forward pass of the dense network."""
    files = chunks(ground)
    if not files:
        return live(dense.network)
    table = torch.cat([load_file(_path(ground, dense, seed, first))["logits"] for first in files])
    return lambda index, images: table[index].to(images.device)


def live(dense: nn.Module) -> Teacher:
    network = copy.deepcopy(dense).eval()

    @torch.no_grad()
    def logits(index: int, images: Tensor) -> Tensor:
        result: Tensor = network(images)
        return result

    return logits

"""Dense weights: shipped for the embedded default, trained on first use and cached for anything else.

They never depend on a run's seed, so every method of every seed starts from the same network.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional as F

from bench.environment import environment
from bench.workload import Progress, Workload
from shared.cache import atomic_write, cache_dir, content_key
from shared.data import BatchStream, Dataset
from shared.errors import BadInput
from shared.memory import keep_freed_memory
from shared.networks import build, structure
from shared.rng import forked
from shared.training import accuracy, train_mode

SHIPPED = Path(__file__).parent / "dense_weights"
SEED = 2019  # of initial weights and batches


@dataclass(frozen=True)
class Recipe:
    """One-cycle AdamW on cross-entropy with the suite's augmentation."""

    iterations: int = 10_000
    batch_size: int = 128
    peak_learning_rate: float = 4e-3
    weight_decay: float = 0.05


@dataclass(frozen=True)
class DenseWeights:
    """A dense network in evaluation mode, its top-1 test accuracy in 0..1 and the fingerprint of its weights."""

    network: nn.Module
    accuracy: float
    fingerprint: str

    def at(self, widths: Sequence[int]) -> nn.Module:
        """The same network at other widths, with initial weights."""
        config: dict[str, Any] = {**self.network.config, "widths": list(widths)}  # type: ignore[dict-item]
        return build(**config).to(memory_format=torch.channels_last)


def untrained(workload: Workload) -> nn.Module:
    """The dense network with the initial weights that training starts from."""
    with forked(SEED, "dense weights"):
        return workload.build().to(memory_format=torch.channels_last)


def weights_key(workload: Workload, dataset: Dataset) -> str:
    """Content key of the weights: network (its layers, not its name alone), data and recipe decide them."""
    with torch.device("meta"):
        layers = structure(workload.build()).fingerprint
    return content_key(workload.network, workload.arguments, layers, dataset.fingerprint, asdict(Recipe()), SEED)


def train(workload: Workload, dataset: Dataset, progress: Progress) -> tuple[nn.Module, dict[str, Any]]:
    """Train the dense network from scratch; returns it in evaluation mode with its record (accuracies in 0..1)."""
    recipe = Recipe()
    keep_freed_memory()
    started = time.perf_counter()
    model = untrained(workload)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.peak_learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.peak_learning_rate, total_steps=recipe.iterations, pct_start=0.2
    )
    stream = BatchStream(dataset.train, SEED, recipe.batch_size)
    with forked(SEED, "dense dropout"):
        train_mode(model)
        for index in range(recipe.iterations):
            images, labels = stream.batch(index)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
            progress("dense training", index + 1, recipe.iterations)
    record = {
        "network": workload.network,
        "dataset": workload.dataset,
        "arguments": dict(workload.arguments),
        "key": weights_key(workload, dataset),
        "recipe": asdict(recipe),
        "seed": SEED,
        "search_accuracy": accuracy(model, dataset.search),
        "test_accuracy": accuracy(model, dataset.test),
        "seconds": round(time.perf_counter() - started, 1),
        "environment": environment(),
    }
    return model.eval(), record


def write(model: nn.Module, record: dict[str, Any], folder: Path) -> Path:
    """Write weights and record into `folder`; the record last, since it vouches for the weights."""
    name = f"{record['network']}-{record['dataset']}"
    blob = save({key: value.contiguous() for key, value in model.state_dict().items()})
    atomic_write(folder / f"{name}.safetensors", blob)
    record = record | {"weights_sha256_16": content_key(blob)}
    atomic_write(folder / f"{name}.json", (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return folder / f"{name}.safetensors"


def _read(workload: Workload, dataset: Dataset, folder: Path) -> DenseWeights | None:
    """Weights in `folder` when they were made by this very recipe for this very network and data."""
    name = f"{workload.network}-{workload.dataset}"
    try:
        record = json.loads((folder / f"{name}.json").read_bytes())
        if record["key"] != weights_key(workload, dataset):
            return None
        path = folder / f"{name}.safetensors"
        if content_key(path.read_bytes()) != record["weights_sha256_16"]:
            raise BadInput(
                f"{path} as its record describes it", "other bytes", "git checkout of it, or deleting it from the cache"
            )
        model = workload.build()
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        return None
    return DenseWeights(
        model.eval().to(memory_format=torch.channels_last), record["test_accuracy"], record["weights_sha256_16"]
    )


def obtain(workload: Workload, dataset: Dataset, progress: Progress) -> DenseWeights:
    """The dense weights: shipped, else cached, else trained now and cached."""
    folder = cache_dir() / "dense" / weights_key(workload, dataset)
    found = _read(workload, dataset, SHIPPED) or _read(workload, dataset, folder)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if (found := _read(workload, dataset, folder)) is None:
            model, record = train(workload, dataset, progress)
            write(model, record, folder)
            found = _read(workload, dataset, folder)
    assert found is not None  # just written
    return found

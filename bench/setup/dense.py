"""Dense weights: loaded from a person's checkpoint, else shipped, else trained on first use and cached.

They never depend on a run's seed, so every method of every seed starts from the same network.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.setup.environment import environment
from bench.setup.workload import Progress, Workload
from shared.cache import atomic_write, cache_dir, content_key
from shared.checkpoints import Checkpoints, State
from shared.computing import Computing
from shared.data import Dataset, in_files
from shared.errors import BadInput
from shared.ledger import Ledger
from shared.memory import keep_freed_memory
from shared.networks import build, published_weights
from shared.networks.pretrained import load_checkpoint
from shared.rng import forked
from shared.training import restore_training, score, train_mode, training_state

SHIPPED = Path(__file__).parent / "dense_weights"
SEED = 2019  # of initial weights and batches
LARGEST_FLOAT32_BYTES = 10_000_000  # networks above are rounded to half precision, so that their files stay small


@dataclass(frozen=True)
class Recipe:
    """One-cycle AdamW on the task's loss with the suite's augmentation."""

    iterations: int = 10_000
    batch_size: int = 128
    peak_learning_rate: float = 4e-3
    weight_decay: float = 0.05


# (network, data set) -> recipe where the default is not good; learning rates from short runs on the search split
RECIPES = {
    ("alexnet", "fashion-mnist"): Recipe(peak_learning_rate=2e-3),
    ("erfnet", "garment-scenes"): Recipe(iterations=12_000, batch_size=32, peak_learning_rate=1e-2),
}


@dataclass(frozen=True)
class DenseWeights:
    """A dense network in evaluation mode, its score on test images in 0..1 and the fingerprint of its weights."""

    network: nn.Module
    accuracy: float
    fingerprint: str

    def to(self, device: torch.device) -> DenseWeights:
        """The same with a copy of the network on that device."""
        return replace(self, network=copy.deepcopy(self.network).to(device))

    def at(self, widths: Sequence[int]) -> nn.Module:
        """The same network at other widths, with initial weights, on its device."""
        config: dict[str, Any] = {**self.network.config, "widths": list(widths)}  # type: ignore[dict-item]
        device = next(self.network.parameters()).device
        return build(**config).to(device).to(memory_format=torch.channels_last)


def untrained(workload: Workload) -> nn.Module:
    """The dense network with the initial weights that training starts from."""
    with forked(SEED, "dense weights"):
        return workload.build().to(memory_format=torch.channels_last)


def recipe_of(workload: Workload) -> Recipe:
    """How the dense network is trained."""
    return RECIPES.get((workload.network, workload.dataset), Recipe())


def weights_key(workload: Workload, dataset: Dataset) -> str:
    """Content key of the weights: network (its layers, not its name alone), data and recipe decide them."""
    layers = workload.structure.fingerprint
    recipe = asdict(recipe_of(workload))
    return content_key(workload.network, workload.arguments, layers, dataset.fingerprint, recipe, SEED)


def loaded_key(workload: Workload, dataset: Dataset) -> str:
    """Content key of weights from a checkpoint: how they were trained is not known here."""
    layers = workload.structure.fingerprint
    return content_key("loaded", workload.network, workload.arguments, layers, dataset.fingerprint)


def loaded_folder(workload: Workload, dataset: Dataset) -> Path:
    """Where weights from a checkpoint are kept; without it the shipped or trained ones hold again."""
    return cache_dir() / "dense" / loaded_key(workload, dataset)


def _cached(workload: Workload, dataset: Dataset) -> Path:
    return cache_dir() / "dense" / weights_key(workload, dataset)


def train(workload: Workload, dataset: Dataset, progress: Progress) -> tuple[nn.Module, dict[str, Any]]:
    """Train the dense network from scratch, or on from where an earlier process was stopped, where the images lie.

    Returns it in evaluation mode as it will be stored, with its record (scores in 0..1).
    """
    recipe, states = recipe_of(workload), _cached(workload, dataset) / "training"
    keep_freed_memory()
    checkpoints = Checkpoints(states)
    model = untrained(workload).to(dataset.train.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.peak_learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.peak_learning_rate, total_steps=recipe.iterations, pct_start=0.2
    )
    stream, ledger = dataset.train.stream(SEED, recipe.batch_size), Ledger(recipe.iterations)

    def state() -> State:
        group = optimizer.param_groups[0]  # what the schedule sets
        return training_state(model, optimizer) | {"lr": group["lr"], "betas": list(group["betas"])}

    if kept := checkpoints.load("training", ledger):
        restore_training(model, optimizer, kept)
        optimizer.param_groups[0].update(lr=kept["lr"], betas=tuple(kept["betas"]))
        schedule.last_epoch = ledger.training_iterations
    train_mode(model)  # without dropout: nothing else is random
    while ledger.remaining:
        images, labels = stream.batch(ledger.spend_iteration())
        optimizer.zero_grad()
        dataset.objective.loss(model(images), labels).backward()
        optimizer.step()
        schedule.step()
        checkpoints.save("training", state, ledger)
        progress("dense training", ledger.training_iterations, recipe.iterations)
    seconds = checkpoints.elapsed_s
    shutil.rmtree(states, ignore_errors=True)
    model.load_state_dict(stored(model))
    record = {
        "network": workload.network,
        "dataset": workload.dataset,
        "arguments": dict(workload.arguments),
        "key": weights_key(workload, dataset),
        "recipe": asdict(recipe),
        "seed": SEED,
        "score": dataset.objective.score_name,
        "search_accuracy": score(model, dataset.search),
        "test_accuracy": score(model, dataset.test),
        "seconds": round(seconds, 1),
        "environment": environment(Computing(dataset.train.device)),
    }
    return model.eval(), record


def network_from(checkpoint: Path, workload: Workload) -> nn.Module:
    """The dense network with the tensors of a checkpoint file, in evaluation mode. Raises BadInput as
    `load_checkpoint` does.
    """
    model = untrained(workload)
    load_checkpoint(model, checkpoint)
    return model.eval()


def load(model: nn.Module, checkpoint: Path, workload: Workload, dataset: Dataset) -> DenseWeights:
    """Test the network from a checkpoint file and keep it, its tensors as they are; `obtain` finds it from now on."""
    model = model.to(dataset.test.device)
    record: dict[str, Any] = {
        "network": workload.network,
        "dataset": workload.dataset,
        "arguments": dict(workload.arguments),
        "key": loaded_key(workload, dataset),
        "checkpoint": {"name": checkpoint.name, "sha256_16": content_key(checkpoint.read_bytes())},
        "score": dataset.objective.score_name,
        "test_accuracy": score(model, dataset.test),
        "environment": environment(Computing(dataset.test.device)),
    }
    write(dict(model.cpu().state_dict()), record, loaded_folder(workload, dataset))
    found = _read(workload, record["key"], loaded_folder(workload, dataset))
    assert found is not None  # just written
    return found


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of `model` as its file has them: in half precision where they would take too much space."""
    tensors = model.state_dict()
    too_large = sum(tensor.nbytes for tensor in tensors.values()) > LARGEST_FLOAT32_BYTES
    return {
        name: (tensor.half() if too_large and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in tensors.items()
    }


def write(tensors: dict[str, Tensor], record: dict[str, Any], folder: Path) -> Path:
    """Write weights and record into `folder`; the record last, since it vouches for the weights."""
    name = f"{record['network']}-{record['dataset']}"
    blob = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    atomic_write(folder / f"{name}.safetensors", blob)
    record = record | {"weights_sha256_16": content_key(blob)}
    atomic_write(folder / f"{name}.json", (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return folder / f"{name}.safetensors"


def _read(workload: Workload, key: str, folder: Path) -> DenseWeights | None:
    """Weights in `folder` when they are those of the key: this very network and data, and where trained this recipe."""
    path = folder / f"{workload.network}-{workload.dataset}.safetensors"
    hint = "git checkout of it, or deleting it from the cache"
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
        own_key, digest, accuracy = record["key"], record["weights_sha256_16"], float(record["test_accuracy"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:  # JSON that is none, and JSON of something else
        got = f"a damaged one ({type(error).__name__})"
        raise BadInput(f"a record of dense weights at {path.with_suffix('.json')}", got, hint) from None
    if own_key != key or not path.exists():
        return None
    if content_key(path.read_bytes()) != digest:
        raise BadInput(f"{path} as its record describes it", "other bytes", hint)
    model = workload.build()
    model.load_state_dict(load_file(path))
    return DenseWeights(model.eval().to(memory_format=torch.channels_last), accuracy, digest)


def find(workload: Workload, dataset: Dataset) -> DenseWeights | None:
    """The dense weights that are there: from a checkpoint, else shipped, else trained before."""
    loaded = _read(workload, loaded_key(workload, dataset), loaded_folder(workload, dataset))
    if loaded is not None:
        return loaded
    key = weights_key(workload, dataset)
    return _read(workload, key, SHIPPED) or _read(workload, key, _cached(workload, dataset))


def loading(workload: Workload) -> str:
    """The command that loads trained weights."""
    data = " --data DIR" if in_files(workload.dataset) else ""
    names = f"--network {workload.network} --dataset {workload.dataset}"
    return f"`python -m bench dense {names}{data} --weights FILE`"


def check_weights(workload: Workload, dataset: Dataset) -> None:
    """Raise BadInput where a run would train the dense network on large images first: that is days, and no recipe here
    was tuned for it.
    """
    if in_files(workload.dataset) and find(workload, dataset) is None:
        known = published_weights(workload.network, workload.dataset)
        raise BadInput(
            f"dense weights of {workload.network} on {workload.dataset}, which a run does not train there",
            "none",
            loading(workload) + (f", FILE being {known}" if known else ""),
        )


def obtain(workload: Workload, dataset: Dataset, progress: Progress) -> DenseWeights:
    """The dense weights that are there, else trained now and cached."""
    if (found := find(workload, dataset)) is not None:
        return found
    folder = _cached(workload, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if (found := find(workload, dataset)) is None:
            model, record = train(workload, dataset, progress)
            write(stored(model), record, folder)
            found = find(workload, dataset)
    assert found is not None  # just written
    return found

"""Dense weights: loaded from a user's checkpoint, else shipped, else trained on first use and cached.

They never depend on a run's seed, so every method starts from the same network with every seed.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as tensors_of  # of bytes: its readers of files refuse paths that are no UTF-8
from safetensors.torch import save
from torch import Tensor, nn

from bench.setup.environment import environment
from bench.setup.workload import Workload
from shared import locks
from shared.cache import atomic_write, cache_dir, content_key
from shared.checkpoints import Checkpoints, State
from shared.computing import Computing
from shared.data import Dataset, in_files
from shared.errors import BadInput
from shared.ledger import Ledger
from shared.memory import keep_freed_memory
from shared.networks import published_weights, resized
from shared.networks.pretrained import load_checkpoint
from shared.rng import forked
from shared.training import restore_training, score, train_mode, training_state

Progress = Callable[[str, int, int], None]  # (what, done, total)
SHIPPED = Path(__file__).parent / "dense_weights"
SEED = 2019  # of the initial weights and the batches
LARGEST_FLOAT32_BYTES = 10_000_000  # larger networks are stored in half precision


@dataclass(frozen=True)
class Recipe:
    """How a dense network is trained: one-cycle AdamW on the task's loss with the suite's augmentation."""

    iterations: int = 10_000
    batch_size: int = 128
    peak_learning_rate: float = 4e-3
    weight_decay: float = 0.05


# (network, data set) -> recipe where the default trains badly; learning rates from short runs on the search split
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
        """The same weights with a copy of the network on `device`."""
        return replace(self, network=copy.deepcopy(self.network).to(device))

    def at(self, widths: Sequence[int]) -> nn.Module:
        """The network at other widths, its first channels, on the same device; to load weights into."""
        return resized(self.network, widths).train().requires_grad_(True).to(memory_format=torch.channels_last)


def untrained(workload: Workload) -> nn.Module:
    """The dense network with the initial weights that training starts from."""
    with forked(SEED, "dense weights"):
        return workload.build().to(memory_format=torch.channels_last)


def recipe_of(workload: Workload) -> Recipe:
    """The training recipe of the workload's dense network."""
    return RECIPES.get((workload.network, workload.dataset), Recipe())


def weights_key(workload: Workload, dataset: Dataset) -> str:
    """Content key of trained weights, over all that decides them: the network's layers, data and recipe."""
    layers = workload.structure.fingerprint
    recipe = asdict(recipe_of(workload))
    return content_key(workload.label, workload.arguments, layers, dataset.fingerprint, recipe, SEED)


def loaded_key(workload: Workload, dataset: Dataset) -> str:
    """Content key of weights from a checkpoint, whose training is unknown."""
    layers = workload.structure.fingerprint
    return content_key("loaded", workload.label, workload.arguments, layers, dataset.fingerprint)


def loaded_folder(workload: Workload, dataset: Dataset) -> Path:
    """Where weights from a checkpoint are cached. Without this folder the shipped or trained weights are used."""
    return cache_dir() / "dense" / loaded_key(workload, dataset)


def _cached(workload: Workload, dataset: Dataset) -> Path:
    return cache_dir() / "dense" / weights_key(workload, dataset)


def train(workload: Workload, dataset: Dataset, progress: Progress) -> tuple[nn.Module, dict[str, Any]]:
    """Train the dense network on the images' device, from scratch or from where an earlier process was stopped.

    Returns it in evaluation mode, rounded as `stored` rounds, with its record (scores in 0..1).
    """
    recipe, states = recipe_of(workload), _cached(workload, dataset) / "training"
    Computing(dataset.train.device).enter()
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
        group = optimizer.param_groups[0]  # the schedule sets its learning rate and betas
        return training_state(model, optimizer) | {"lr": group["lr"], "betas": list(group["betas"])}

    if saved := checkpoints.load("training", ledger):
        restore_training(model, optimizer, saved)
        optimizer.param_groups[0].update(lr=saved["lr"], betas=tuple(saved["betas"]))
        schedule.last_epoch = ledger.training_iterations
    train_mode(model)  # dropout is off, so no generator has a state to restore
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
    record = _record(model, workload, dataset, weights_key(workload, dataset)) | {
        "recipe": asdict(recipe),
        "seed": SEED,
        "search_accuracy": score(model, dataset.search),
        "seconds": round(seconds, 1),
    }
    return model.eval(), record


def _record(model: nn.Module, workload: Workload, dataset: Dataset, key: str) -> dict[str, Any]:
    """What the record of any dense weights holds; scores the model on the test split."""
    return {
        "network": workload.label,
        "dataset": workload.dataset,
        "arguments": dict(workload.arguments),
        "key": key,
        "score": dataset.objective.score_name,
        "test_accuracy": score(model, dataset.test),
        "environment": environment(Computing(dataset.test.device)),
    }


def network_from(checkpoint: Path, workload: Workload) -> nn.Module:
    """The dense network with the tensors of a checkpoint file, in evaluation mode.

    Raises BadInput as `load_checkpoint` does.
    """
    model = untrained(workload)
    load_checkpoint(model, checkpoint)
    return model.eval()


def load(model: nn.Module, checkpoint: Path, workload: Workload, dataset: Dataset) -> DenseWeights:
    """Test the network of a checkpoint file and cache it without rounding; `obtain` returns it from now on."""
    Computing(dataset.test.device).enter()
    model = model.to(dataset.test.device)
    origin = {"name": checkpoint.name, "sha256_16": content_key(checkpoint.read_bytes())}
    record = _record(model, workload, dataset, loaded_key(workload, dataset)) | {"checkpoint": origin}
    write(dict(model.cpu().state_dict()), record, loaded_folder(workload, dataset))
    weights = find(workload, dataset)
    assert weights is not None  # just written
    return weights


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of `model` for its file: in half precision above LARGEST_FLOAT32_BYTES."""
    tensors = model.state_dict()
    too_large = sum(tensor.nbytes for tensor in tensors.values()) > LARGEST_FLOAT32_BYTES
    return {
        name: (tensor.half() if too_large and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in tensors.items()
    }


def write(tensors: dict[str, Tensor], record: dict[str, Any], folder: Path) -> Path:
    """Write the weights, then the record, which holds their hash, into `folder`. Returns the path of the weights."""
    name = f"{record['network']}-{record['dataset']}"
    blob = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    atomic_write(folder / f"{name}.safetensors", blob)
    record = record | {"weights_sha256_16": content_key(blob)}
    atomic_write(folder / f"{name}.json", (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return folder / f"{name}.safetensors"


def _read(workload: Workload, key: str, folder: Path) -> DenseWeights | None:
    """The weights in `folder` if they have this content key, else None. Raises BadInput for damaged files."""
    path = folder / f"{workload.label}-{workload.dataset}.safetensors"
    hint = "git checkout of it, or deleting it from the cache"
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
        own_key, digest, accuracy = record["key"], record["weights_sha256_16"], float(record["test_accuracy"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:  # broken JSON, or JSON of something else
        got = f"a damaged one ({type(error).__name__})"
        raise BadInput(f"a record of dense weights at {path.with_suffix('.json')}", got, hint) from None
    if own_key != key or not path.exists():
        return None
    if content_key(blob := path.read_bytes()) != digest:
        raise BadInput(f"{path} as its record describes it", "other bytes", hint)
    model = workload.build()
    model.load_state_dict(tensors_of(blob))
    return DenseWeights(model.eval().to(memory_format=torch.channels_last), accuracy, digest)


def find(workload: Workload, dataset: Dataset) -> DenseWeights | None:
    """The dense weights that exist: from a checkpoint, else shipped, else trained before; None where there are none."""
    key = weights_key(workload, dataset)
    return (
        _read(workload, loaded_key(workload, dataset), loaded_folder(workload, dataset))
        or _read(workload, key, SHIPPED)
        or _read(workload, key, _cached(workload, dataset))
    )


def loading(workload: Workload) -> str:
    """The command that loads weights from a checkpoint, as text for the user."""
    data = " --data DIR" if in_files(workload.dataset) else ""
    names = f"--network {workload.network} --dataset {workload.dataset}"
    return f"`python -m bench dense {names}{data} --weights FILE`"


def check_weights(workload: Workload, dataset: Dataset) -> None:
    """Raise BadInput where a run would have to train the dense network on a data set in files first.

    That takes days, and no recipe here was tuned for it.
    """
    if in_files(workload.dataset) and find(workload, dataset) is None:
        public_file = published_weights(workload.network, workload.dataset)
        raise BadInput(
            f"dense weights of {workload.network} on {workload.dataset}, which a run does not train there",
            "none",
            loading(workload) + (f", FILE being {public_file}" if public_file else ""),
        )


def obtain(workload: Workload, dataset: Dataset, progress: Progress) -> DenseWeights:
    """The dense weights that exist, else weights trained now and cached."""
    if (weights := find(workload, dataset)) is not None:
        return weights
    folder = _cached(workload, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    with locks.held(folder / "lock"):  # another process may have trained them meanwhile
        if (weights := find(workload, dataset)) is None:
            model, record = train(workload, dataset, progress)
            write(stored(model), record, folder)
            weights = find(workload, dataset)
    assert weights is not None  # just written
    return weights

"""Runs every method on a second device that every machine has, beside the same run on the CPU; prints JSON.

The device `far` computes on the CPU and holds its tensors apart: an operation on tensors of two devices raises, as on a
GPU, and what leaves or enters the device has to be sent. To be run as a program, since torch takes such a device once
per process: `python far_device.py METHOD[:SETUP]…`. Setups: `table` (images in memory, the dense network's logits
from files; where none is named), `files` (images in files) and `scenes` (labels of pixels), both with the dense network
answering beside each step.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

FAR = "far:0"
MOVING = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


class FarTensor(Tensor):
    """A tensor on the device: `held`, out of reach for all others."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> FarTensor:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = Tensor._make_wrapper_subclass(cls, held.size(), device=torch.device(FAR), **layout)  # type: ignore[attr-defined]
        made.held = held
        return made  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """As torch has it for a GPU's tensors; it refuses subclasses."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"FarTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


class Far(TorchDispatchMode):
    """While it is on, tensors can be made on the device and sent to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on what is held, its results on the device that it runs on. Raises RuntimeError for two devices."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    far = [tensor for tensor in tensors if isinstance(tensor, FarTensor)]
    asked = kwargs.get("device")
    result_far = bool(far) if asked is None else torch.device(asked).type == "far"
    if asked is not None and result_far:
        kwargs = kwargs | {"device": torch.device("cpu")}
    strangers = [tensor for tensor in tensors if tensor.ndim and not isinstance(tensor, FarTensor)]
    if func in INDEXING and isinstance(args[0], FarTensor):  # a GPU takes indices from the CPU
        strangers = []
    if strangers and far and func not in MOVING:
        raise RuntimeError(f"{func} on tensors of two devices")
    held_args, held_kwargs = tree_map(lambda leaf: leaf.held if isinstance(leaf, FarTensor) else leaf, (args, kwargs))
    result = func(*held_args, **held_kwargs)
    if func is torch.ops.aten.copy_.default:
        return args[0]
    own = {id(tensor.held): tensor for tensor in far}  # of operations in place

    def back(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not result_far:
            return leaf
        return own[id(leaf)] if id(leaf) in own else FarTensor(leaf)

    return tree_map(back, result)


def refused(tensor: Tensor) -> str | None:
    """What is said when a tensor on the device meets one on the CPU."""
    try:
        tensor + torch.zeros(tensor.shape)
    except RuntimeError as error:
        return str(error)
    return None


def in_files(split: Any, count: int) -> Any:
    """The first `count` images of a split in memory as pictures that are opened one by one."""
    from torchvision.transforms.v2 import functional

    from shared.data.files import FileSplit

    pictures = [
        (functional.to_pil_image(image), int(label))
        for image, label in zip(split.images[:count], split.labels[:count], strict=True)
    ]

    def evaluation(image: Any, label: int) -> tuple[Tensor, Tensor]:
        return functional.pil_to_tensor(image), torch.tensor(label)

    def training(image: Any, label: int) -> tuple[Tensor, Tensor]:
        pixels, label_ = evaluation(image, label)
        return (pixels.flip(2) if torch.rand(()) < 0.5 else pixels), label_

    shape = split.image_shape
    return FileSplit(pictures, evaluation, training, shape, (split.mean,), (split.std,), workers=0)  # type: ignore[arg-type]


def main(asked: list[str]) -> None:
    """One line of JSON for each that is asked for: what its run on the CPU and the one on the device came to."""
    from bench.record.model import Record
    from bench.run import stages, teacher
    from bench.run.describe import describe
    from bench.setup import dense
    from bench.setup.budgets import Budget
    from bench.setup.dense import DenseWeights
    from bench.setup.plan import Job
    from bench.setup.request import Request
    from bench.setup.setup import Setup, prepare
    from methods import registry
    from shared import reconstruction
    from shared.computing import Computing

    def head(split: Any, count: int) -> Any:
        return replace(split, images=split.images[:count], labels=split.labels[:count])

    _setup_privateuseone_for_python_backend("far")  # before the first gradient, which counts the devices
    made = torch.tensor  # goes past all modes
    torch.tensor = lambda *values, device=None, **kinds: made(*values, **kinds).to(device)  # type: ignore[assignment]
    torch.set_num_threads(1)
    reconstruction.CALIBRATION_IMAGES = 64
    counts = {"iterations": 6, "fine_tune_iterations": 2, "minimum_short_term_iterations": 1, "episodes": 4}
    sizes = {"batch_size": 16, "recalibration_batches": 1, "search_images": 20, "stages": 2}

    def setup(kind: str) -> Setup:
        request = Request(protocol="smoke")
        if kind == "scenes":
            request = Request(network="erfnet", dataset="garment-scenes", protocol="smoke")
        full = prepare(request)
        data = full.dataset
        few = 40 if kind != "scenes" else 8
        data = replace(data, test=head(data.test, few), search=head(data.search, few))
        if kind == "files":
            data = replace(
                data,
                train=in_files(data.train, 200),
                **{part: in_files(getattr(data, part), few) for part in ("search", "test")},
            )
        less = {"batch_size": 4, "search_images": 8} if kind == "scenes" else {}
        weights = DenseWeights(dense.untrained(full.workload).eval(), 0.1, "untrained")
        protocol = replace(full.protocol, **counts | sizes | less)
        return replace(full, protocol=protocol, dataset=data, weights=weights)

    setups = {kind: setup(kind) for kind in {name.partition(":")[2] or "table" for name in asked}}

    def run(name: str, on: Setup) -> tuple[Record, dict[str, Tensor] | None]:
        method, _, kind = name.partition(":")
        share = 0.8 if kind == "scenes" else 0.6  # ERFNet's trunk alone takes 0.6
        budget = Budget(share, share * on.reach.dense_reading) if registry.get(method).compresses else None
        most = 0 if kind else teacher.LARGEST_TABLE_BYTES
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(teacher, "LARGEST_TABLE_BYTES", most),
            mock.patch.object(stages, "unit_costs", stages.unit_costs if name == asked[0] else lambda *_: (0.1, 0.1)),
        ):
            one = stages.Run(Job(method, budget, 0), on, "key", Path(folder))
            for stage in stages.STAGES:
                stages.do(stage, [one])
            return describe(one)

    def of(name: str) -> Setup:
        return setups[name.partition(":")[2] or "table"]

    plain = {name: run(name, of(name)) for name in asked}
    place = torch.device(FAR)
    with Far():
        for name in asked:
            near = of(name)
            away = replace(
                near, computing=Computing(place), dataset=near.dataset.to(place), weights=near.dense.to(place)
            )
            if name == asked[0]:
                print(json.dumps({"refused": refused(next(away.dense.network.parameters()))}), flush=True)
            (one, ours), (other, theirs) = plain[name], run(name, away)
            worst = averages = None  # of what Adam moves; of batch norm's averages, relative to the largest
            if ours is not None and theirs is not None:
                assert ours.keys() == theirs.keys()
                off = {n: float((a.double() - theirs[n].double()).abs().max()) for n, a in ours.items()}
                worst = max(value for name, value in off.items() if ".running_" not in name)
                largest = {n: float(a.double().abs().max()) for n, a in ours.items()}
                averages = max((off[name] / largest[name] for name in off if ".running_" in name), default=0.0)
            measures = [record.measures for record in (one, other)]
            told = {
                "method": name,
                "reasons": [one.reason, other.reason],
                "widths": [None if measured is None else measured.widths for measured in measures],
                "scores": [None if measured is None else measured.accuracy_after for measured in measures],
                "worst": worst,
                "averages": averages,
                "devices": sorted({str(tensor.device) for tensor in (theirs or {}).values()}),
                "compute": other.environment["compute"],
            }
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))
    main(sys.argv[1:])

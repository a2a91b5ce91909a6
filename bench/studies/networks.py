"""The study of torchvision's networks behind `networks.md`: which can be compressed, how much of them, and a short run.

Each is named by its module, as a user would name it. Its weights are untrained and the run of ECC is short, so what the
page shows is that a network can be cut exactly and brought to a budget, and not how accurate it is then.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.report.text import percent, table
from bench.run import rules
from bench.run.stages import make_task
from bench.run.teacher import live
from bench.setup import dense
from bench.setup.budgets import Budget
from bench.setup.dense import DenseWeights
from bench.setup.plan import Job
from bench.setup.request import Request
from bench.setup.setup import Setup, prepare
from methods.ecc import ECC
from shared.cache import atomic_write
from shared.errors import BadInput
from shared.networks import Structure, active_widths, compact, structure, zero_channels
from shared.rng import forked

NAME = "networks"
FRACTION = 0.5  # of the dense network's joules
ITERATIONS, BATCH = 30, 16
PIXELS = 32
NETWORKS: dict[str, dict[str, Any]] = {  # torchvision's name -> further options of a request
    **{name: {} for name in ("vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "mobilenet_v2")},
    **{name: {} for name in ("mobilenet_v3_small", "efficientnet_b0", "squeezenet1_1", "densenet121")},
    **{name: {} for name in ("mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5")},
    "alexnet": {"image_size": "63"},
    "googlenet": {"network_arg": ["init_weights=false"]},
    "inception_v3": {"image_size": "75", "network_arg": ["init_weights=false"]},
    "segmentation.fcn_resnet50": {
        "dataset": "garment-scenes",
        "image_size": "48x64",
        "network_arg": ["weights_backbone=null"],
    },
    "convnext_tiny": {},
    "vit_b_16": {"network_arg": ["image_size=32"]},
}


def write(folder: Path, say: Callable[[str], None] = print) -> Path:
    """Try the networks that no earlier call has tried, and write records and page into `folder`; returns the page."""
    records = folder / f"records/{NAME}.json"
    rows: dict[str, Any] = json.loads(records.read_bytes()) if records.is_file() else {}
    for name in NETWORKS:
        if name not in rows:
            say(f"trying {name}")
            rows[name] = tried(request(name))
            atomic_write(records, (json.dumps(rows, indent=1) + "\n").encode())
    rows = {name: rows[name] for name in NETWORKS}
    atomic_write(records, (json.dumps(rows, indent=1) + "\n").encode())
    atomic_write(folder / f"{NAME}.md", page(rows).encode())
    return folder / f"{NAME}.md"


def check(folder: Path) -> list[str]:
    """How the page in `folder` differs from its records; empty where it was never written."""
    records, own = folder / f"records/{NAME}.json", folder / f"{NAME}.md"
    if not records.is_file():
        return []
    same = own.is_file() and own.read_bytes() == page(json.loads(records.read_bytes())).encode()
    return [] if same else [f"{own.name}: not what records/{records.name} makes"]


def request(name: str) -> Request:
    """What is asked for a network of torchvision by that name."""
    options = {"image_size": str(PIXELS), **NETWORKS[name]}
    module, _, function = f"torchvision.models.{name}".rpartition(".")
    return Request(network=f"{module}:{function}", protocol="smoke", meter="sim", methods="ecc", **options)


def tried(asked: Request) -> dict[str, Any]:
    """What came of a network: its counts, how exactly it is cut, and a short run; or why it is refused."""
    torch.set_num_threads(1)  # as in every run
    pixels = str(asked.image_size)
    try:
        setup = prepare(asked)
    except BadInput as error:
        return {"pixels": pixels, "refused": str(error)}
    network = dense.untrained(setup.workload)
    setup = replace(
        setup,
        weights=DenseWeights(network.eval(), math.nan, "untrained"),
        protocol=replace(setup.protocol, iterations=ITERATIONS, batch_size=BATCH),
    )
    layers = setup.structure
    return {
        "pixels": pixels,
        "parameters": int(layers.parameters(layers.upper_bounds)),
        "multiply_adds": int(layers.macs(layers.upper_bounds)),
        "units": len(layers.units),
        "prunable_share": layers.prunable_share,
        "difference": difference(network, layers),
        "ecc": short_run(setup),
    }


def difference(network: nn.Module, layers: Structure) -> float:
    """By how much a network cut at random differs from the masked one, in evaluation and in training.

    Of the largest output, in float64; infinite where it has not the right widths.
    """
    draw = torch.Generator().manual_seed(0)
    dead = torch.zeros(len(layers.units), max(layers.upper_bounds), dtype=torch.bool)
    for row, bound in zip(dead, layers.upper_bounds, strict=True):
        row[torch.randperm(bound, generator=draw)[: int(torch.randint(0, bound, (), generator=draw))]] = True
    masked = copy.deepcopy(network).double()
    zero_channels(masked, layers, dead)
    small = compact(masked, layers)
    if active_widths(masked) != structure(small).upper_bounds:
        return math.inf
    shape: Any = network.input_shape
    images, worst = torch.randn(4, *shape, generator=draw, dtype=torch.float64), 0.0
    for train in (False, True):
        with torch.no_grad():
            expected, got = (copy.deepcopy(one).train(train)(images) for one in (masked, small))
        worst = max(worst, float((got - expected).abs().max() / expected.abs().max()))
    return worst


def short_run(setup: Setup) -> dict[str, Any]:
    """A run of ECC to `FRACTION` of the dense reading, with the harness's checks; or the reason of a miss."""
    budget = Budget(FRACTION, FRACTION * setup.profile.dense_reading)
    task = make_task(Job("ecc", budget, seed=0), setup, live(setup.dense.network))
    try:
        with forked(task.seed, "ecc"), rules.steps_paid(setup.dense.network):
            outcome = rules.checked(ECC().run(task))
        small = rules.check_rules(task, setup.dense, outcome)
    except Exception as error:
        return {"miss": rules.reason(error)}
    widths = structure(small).upper_bounds
    return {"estimate": setup.estimate(widths, budget) / budget.amount, "kept": sum(widths)}


def page(rows: dict[str, Any]) -> str:
    """The page. rows: what came of each network, by torchvision's name."""
    served = {name: row for name, row in rows.items() if "refused" not in row}
    cells = [
        [
            name,
            row["pixels"],
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['multiply_adds'] / 1e6:.2f}",
            str(row["units"]),
            percent(row["prunable_share"]),
            f"{row['difference']:.0e}",
            f"miss: {row['ecc']['miss']}" if "miss" in row["ecc"] else f"{row['ecc']['estimate']:.3f}",
        ]
        for name, row in served.items()
    ]
    heads = [
        "network",
        "pixels",
        "parameters, M",
        "multiply-adds, M",
        "units",
        "prunable",
        "cut − masked",
        "ECC: Ê / budget",
    ]
    lines = [
        "# Torchvision's networks",
        "",
        "What the suite makes of networks that it was not written for, each named by its module "
        "(`--network torchvision.models:NAME`).",
        "",
        "**Prunable** is the share of the multiply-adds in layers that read or make channels which can be removed. "
        "**Cut − masked** is the largest difference between a network whose channels were cut at random and the same "
        "one with those channels at zero, in evaluation and training mode, over the largest output, in float64. "
        f"**ECC** is a run of {ITERATIONS} iterations on untrained weights to {FRACTION} of the joules on the "
        "simulated 1080 Ti: it shows that the budget is met, and says nothing on accuracy.",
        "",
        table((heads, cells)),
        "",
    ]
    refused = [f"- `{name}`: {row['refused']}" for name, row in rows.items() if "refused" in row]
    if refused:
        lines += ["Refused, in the words of `profile`:", "", *refused, ""]
    return "\n".join(
        [*lines, "`python -m bench networks --to reports` makes this page; it tries what its records lack.", ""]
    )

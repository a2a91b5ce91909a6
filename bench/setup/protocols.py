"""The named protocols: `smoke` (seconds), `quick` (minutes), `standard`, `long` (hours) and `paper` (as published).

Learning rates come from `python -m bench tune`, whose grids are printed in reports/learning-rate-<protocol>.md; for
networks other than MobileNet in reports/learning-rate-<protocol>-<network>.md. `long` takes what
`standard` has.
`paper` takes the published rate, which was not tuned on this suite.

`paper` is section 4.1 of Yang, Zhu, Liu, "ECC" (CVPR 2019), whose words are quoted below. What the section leaves open
is taken from the published code, github.com/hyang1990/energy_constrained_compression. It has one run per point, as the
paper has, so its report ranks no methods. Not reproduced: the widths' step beta, set by hand there (`ecc` adapts it,
`ecc-paper` derives a constant one); weight decay that spares MobileNet's biases and depthwise filters; an energy model
fitted by Adam (here by non-negative least squares); iterations that the published NetAdapt leaves unspent. Batch norm
is recalibrated before the first test, as under every protocol. The paper has no ResNet-18; it takes AlexNet's numbers.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.errors import BadInput
from shared.protocol import Protocol

PUBLISHED = Path(__file__).with_name("published.toml")

SMOKE = Protocol(
    name="smoke",
    iterations=60,
    fine_tune_iterations=10,
    batch_size=32,
    learning_rate=2e-3,
    budgets=(0.4,),
    seeds=(0,),
    search_images=64,
    minimum_short_term_iterations=1,
    episodes=8,
    stages=2,
    recalibration_batches=4,
    profile_samples=1_000,
    profile_test_samples=200,
    ranks=False,
)

QUICK = Protocol(
    name="quick",
    iterations=600,
    fine_tune_iterations=200,
    batch_size=64,
    learning_rate=4e-3,
    budgets=(0.35, 0.3),
    seeds=(0,),
    search_images=500,
    minimum_short_term_iterations=5,
    episodes=100,
    stages=4,
    ranks=False,
)

STANDARD = Protocol(
    name="standard",
    iterations=800,
    fine_tune_iterations=250,
    batch_size=64,
    learning_rate=2e-3,
    budgets=(0.6, 0.5, 0.4, 0.3, 0.22),  # AMC leaves 0.21 of dense on the simulated platforms
    seeds=tuple(range(10)),
    search_images=500,
    minimum_short_term_iterations=5,
    episodes=150,
    stages=4,
)

PAPER = Protocol(
    name="paper",
    iterations=300_000,  # "about 300,000 for ImageNet"
    fine_tune_iterations=100_000,
    batch_size=128,
    learning_rate=1e-5,
    budgets=(0.63, 0.51, 0.4, 0.3),  # ours; for the paper's networks and platforms see `energy_budgets`
    seeds=(0,),
    search_images=10_000,  # ten per class of ImageNet, published code's NetAdapt
    minimum_short_term_iterations=1,  # the published code has no minimum and divides the iterations there are
    episodes=400,
    stages=4,  # "4-iteration pruning & fine-tuning"
    rho=10.0,
    fine_tune_decays=False,  # "with aforementioned setup"
    inference_batch=1,  # as the published code profiles networks
    ranks=False,
)

# (protocol, network) -> values that replace the protocol's; those that come from a grid were tuned on MobileNet
FOR_NETWORK: dict[tuple[str, str], dict[str, Any]] = {
    ("quick", "alexnet"): {"learning_rate": 1e-3},
    ("standard", "alexnet"): {"learning_rate": 4e-3, "seeds": (0, 1, 2)},
    ("standard", "erfnet"): {  # counts and rate of `quick`, whose grid chose the rate
        "iterations": 600,
        "fine_tune_iterations": 200,
        "learning_rate": 4e-3,
        "budgets": (0.9, 0.75, 0.6),
        "seeds": (0, 1, 2),
    },
    # "For MobileNet, we additionally perform 300,000 iterations of fine-tuning"
    ("paper", "mobilenet"): {
        "fine_tune_iterations": 400_000,
        "closing_iterations": 300_000,
        "closing_learning_rate": 3e-5,
    },
    # "30,000 for Cityscapes", "4 for ERFNet", rho "1 on Cityscapes"; section 4.3.2: "10,000 extra iterations"
    ("paper", "erfnet"): {"iterations": 30_000, "fine_tune_iterations": 10_000, "batch_size": 4, "rho": 1.0},
}

PAPER_ENERGY_MODEL, ENERGY_MODEL = "bilinear", "bilinear+linear"

_PROTOCOLS = {protocol.name: protocol for protocol in (SMOKE, QUICK, STANDARD, PAPER)}
LONG = "long"  # whether an order of methods holds when training is ten times as long


def names() -> tuple[str, ...]:
    """Names of the protocols."""
    return (*_PROTOCOLS, LONG)


def get(name: str, network: str = "mobilenet") -> Protocol:
    """The protocol `name` with its values for `network`. Raises BadInput for an unknown name."""
    if name == LONG:
        standard = get(STANDARD.name, network)
        return replace(
            standard,
            name=LONG,
            iterations=10 * standard.iterations,
            fine_tune_iterations=10 * standard.fine_tune_iterations,
            budgets=standard.budgets[-2:-1],
            seeds=(0, 1, 2),
            ranks=False,
        )
    if name not in _PROTOCOLS:
        raise BadInput(f"a protocol out of {', '.join(names())}", repr(name), "--protocol quick")
    return replace(_PROTOCOLS[name], **FOR_NETWORK.get((name, network), {}))


def energy_model(name: str) -> str:
    """The kind of energy model that runs under the protocol `name` take unless another is asked for."""
    return PAPER_ENERGY_MODEL if name == PAPER.name else ENERGY_MODEL


def energy_budgets(protocol: Protocol, network: str, dataset: str, platform: str) -> list[tuple[str, ...]]:
    """Lists of budgets in joules or fractions, as text, best first; `reachable` takes the first that can be reached.

    Under `paper` they are those of the paper's experiment with the network: joules where the paper prints them, else
    the protocol's own fractions. Printed joules apply to the paper's data set, and to a platform whose dense network
    takes about the paper's joules. So the second list, the only one on another data set, has the same budgets as
    fractions of the paper's dense network.
    """
    experiment, dense = (_published(kind, network) for kind in ("experiment", "dense"))
    texts: list[str] | None = experiment.get("budgets", {}).get(platform)
    if protocol.name != PAPER.name or texts is None:
        return [tuple(map(str, protocol.budgets))]
    dense_joules: float = dense["joules"][platform]
    printed = tuple(sorted(texts, key=lambda text: -_share(text, dense_joules)))
    shares = tuple(f"{_share(text, dense_joules):.4g}" for text in printed)
    return [printed, shares] if dataset == experiment["dataset"] else [shares]


def _published(kind: str, network: str) -> dict[str, Any]:
    """The entry of the network in published.toml; empty where there is none."""
    entries: list[dict[str, Any]] = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))[kind]
    return next((entry for entry in entries if entry["network"] == network), {})


def _share(budget: str, dense_joules: float) -> float:
    """A budget as a fraction of the dense network's `dense_joules`: "0.5J" of 2.0 J is 0.25, "0.3" stays 0.3."""
    return float(budget.removesuffix("J")) / (dense_joules if budget.endswith("J") else 1.0)

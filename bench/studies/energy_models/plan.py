"""What the energy-model study computes: its counts, and the parts they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from shared.energy.terms import KINDS

DEPTHS = (0, 1, 2, 3)
DEFAULT_DECAY = 1e-3  # the authors' published code's


@dataclass(frozen=True)
class Plan:
    """All counts of the study.

    `networks` holds (name, outputs); inputs are the networks' own, the paper's. The first is the one whose figures the
    paper prints: every reading of its weight decay is tried there.
    """

    networks: tuple[tuple[str, int], ...] = (("mobilenet", 1001), ("alexnet", 1000), ("erfnet", 20))
    platforms: tuple[str, ...] = ("1080ti", "tx2")
    batch: int = 1
    samples: int = 10_000
    test_samples: int = 2_000
    sizes: tuple[int, ...] = (30, 100, 300, 1_000, 3_000, 8_000)
    decays: tuple[float, ...] = (1.0, DEFAULT_DECAY, 1 / 8_000)
    adam_steps: int = 10_000  # without hidden layers
    depth_rows: int = 1_000  # where depths are compared
    depth_steps: int = 3_000  # with hidden layers
    budgets: tuple[float, ...] = (0.3, 0.35, 0.5, 0.7)
    near: int = 400
    climbers: int = 16
    proposals: int = 16
    rounds: int = 200
    seed: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Plan:
        """The plan that a data file names, whose JSON has lists for tuples."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in data["plan"].items()}
        return cls(**values | {"networks": tuple((name, outputs) for name, outputs in values["networks"])})


class Part(NamedTuple):
    """One computation. study: "fit" (least squares), "adam" (all rows), "depth" (fewer rows), "budget" or "lookup"."""

    study: Literal["fit", "adam", "depth", "budget", "lookup"]
    network: str
    platform: str
    kind: str  # of terms; "operations" for a lookup table
    scaled: bool = False  # targets of mean 1 instead of joules
    decay: float = 0.0
    depth: int = 0
    fraction: float = 0.0  # of the dense reading

    @property
    def name(self) -> str:
        """Its key in the data."""
        told = [self.study, self.network, self.platform, self.kind]
        if self.study in ("adam", "depth"):
            told += ["scaled" if self.scaled else "raw", f"{self.decay:g}"]
        return "/".join(told + {"depth": [str(self.depth)], "budget": [f"{self.fraction:g}"]}.get(self.study, []))


def readings(plan: Plan, network: str, kind: str) -> list[tuple[bool, float]]:
    """(scaled, decay): the ways of reading "weight decay 1.0" that are tried."""
    every = network == plan.networks[0][0] and kind == "bilinear"
    return [(scaled, decay) for scaled in (False, True) for decay in (plan.decays if every else (DEFAULT_DECAY,))]


def parts(plan: Plan) -> list[Part]:
    """Every part of `plan`, in the order of the page."""
    grounds = [(name, platform, kind) for name, _ in plan.networks for platform in plan.platforms for kind in KINDS]
    trained = [(*ground, *reading) for ground in grounds for reading in readings(plan, ground[0], ground[2])]
    return [
        *(Part("fit", *ground) for ground in grounds),
        *(Part("adam", *way) for way in trained),
        *(Part("depth", *way, depth) for way in trained for depth in DEPTHS),
        *(Part("budget", *ground, fraction=fraction) for ground in grounds for fraction in plan.budgets),
        *(Part("lookup", name, platform, "operations") for name, _ in plan.networks for platform in plan.platforms),
    ]

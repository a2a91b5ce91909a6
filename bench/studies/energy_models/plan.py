"""The plan of the energy-model study: its counts, and the parts that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from shared.energy.terms import KINDS

DEPTHS = (0, 1, 2, 3)
DEFAULT_DECAY = 1e-3  # of the authors' published code


@dataclass(frozen=True)
class Plan:
    """All counts of the study. The paper prints figures of the first network; all `decays` are tried on it alone."""

    networks: tuple[tuple[str, int], ...] = (("mobilenet", 1001), ("alexnet", 1000), ("erfnet", 20))  # name, outputs
    platforms: tuple[str, ...] = ("1080ti", "tx2")
    batch: int = 1  # images per inference
    samples: int = 10_000  # rows of a profile, the held-out ones included
    test_samples: int = 2_000  # held-out rows
    sizes: tuple[int, ...] = (30, 100, 300, 1_000, 3_000, 8_000)  # training rows of least squares
    decays: tuple[float, ...] = (1.0, DEFAULT_DECAY, 1 / 8_000)  # weight decays of Adam
    adam_steps: int = 10_000  # without hidden layers
    depth_rows: int = 1_000  # training rows where depths are compared
    depth_steps: int = 3_000  # with hidden layers
    budgets: tuple[float, ...] = (0.3, 0.35, 0.5, 0.7)  # fractions of the dense reading
    near: int = 400  # random networks near each budget
    climbers: int = 16  # of the search for the worst network, see Climb
    proposals: int = 16
    rounds: int = 200
    seed: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Plan:
        """The plan stored in a data file, whose JSON has lists for tuples."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in data["plan"].items()}
        return cls(**values | {"networks": tuple((name, outputs) for name, outputs in values["networks"])})


class Part(NamedTuple):
    """One computation of the study."""

    study: Literal["fit", "adam", "depth", "budget", "lookup"]  # "fit" is least squares; "adam" trains on all rows
    network: str
    platform: str
    kind: str  # of the energy model's terms; "operations" for a lookup table
    scaled: bool = False  # targets of mean 1 instead of joules
    decay: float = 0.0
    depth: int = 0
    fraction: float = 0.0  # of the dense reading

    @property
    def name(self) -> str:
        """The part's key in the data file."""
        words = [self.study, self.network, self.platform, self.kind]
        if self.study in ("adam", "depth"):
            words += ["scaled" if self.scaled else "raw", f"{self.decay:g}"]
        return "/".join(words + {"depth": [str(self.depth)], "budget": [f"{self.fraction:g}"]}.get(self.study, []))


def readings(plan: Plan, network: str, kind: str) -> list[tuple[bool, float]]:
    """(scaled, decay): the ways to read the paper's "weight decay 1.0" that are tried."""
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

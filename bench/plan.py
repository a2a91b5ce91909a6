"""A plan: everything a run will do, checked before anything starts or is written."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import cached_property
from pathlib import Path

import torch

from bench import protocols, workload
from bench.workload import Workload
from methods import registry
from shared import energy, platforms
from shared.cache import checked_cache_dir, content_key
from shared.data import Dataset
from shared.energy import EnergyFit, Profile
from shared.errors import BadInput
from shared.networks import Structure, structure
from shared.platforms import SimulatedPlatform
from shared.protocol import Protocol


@dataclass(frozen=True)
class Request:
    """What a person asked for on the command line, as text."""

    methods: str = "ecc,netadapt,amc"
    device: str = "1080ti"
    network: str = "mobilenet"
    dataset: str = "fashion-mnist"
    protocol: str = "quick"
    budgets: str | None = None
    seeds: str | None = None
    data: str | None = None  # folder of a data set that is not embedded

    @property
    def command(self) -> str:
        """The command that asks for this, without defaults and without what names a place on this machine."""
        asked = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "data"]
        given = [(name, value) for name, value in asked if value != getattr(Request, name)]
        return shlex.join(
            ["python", "-m", "bench", "run", *(part for name, value in given for part in (f"--{name}", value))]
        )


@dataclass(frozen=True)
class Budget:
    """A budget in joules per image, and as a fraction of the platform's reading of the dense network."""

    fraction: float
    joules: float

    @property
    def name(self) -> str:
        """The fraction as it stands in names and tables."""
        return f"{self.fraction:.6g}"


@dataclass(frozen=True)
class Job:
    """One run: a method at a budget with a seed. `budget` is None for a method that does not compress."""

    method: str
    budget: Budget | None
    seed: int

    @property
    def name(self) -> str:
        """Readable and unique within a plan; names the run's folder together with the plan's slug."""
        share = "dense" if self.budget is None else self.budget.name
        return f"{self.method}-{share}-s{self.seed}"


@dataclass(frozen=True, eq=False)
class Ground:
    """What every run of a plan stands on: platform readings and the energy model; none of it depends on a seed.

    Equal to itself alone: it holds arrays, and figures are cached for it.
    """

    workload: Workload
    protocol: Protocol
    dataset: Dataset
    platform: SimulatedPlatform
    structure: Structure  # of the dense network
    inference_batch: int
    profile: Profile
    fit: EnergyFit
    dense_reading_joules: float

    @property
    def dense_estimate_joules(self) -> float:
        """Ê(dense) per image."""
        return float(self.fit.model(self.structure.positions(self.structure.upper_bounds)))

    @property
    def floor_joules(self) -> float:
        """Ê with one channel in every unit: the least that any method can reach by the model."""
        return float(self.fit.model(self.structure.positions((1,) * len(self.structure.upper_bounds))))

    @property
    def top_joules(self) -> float:
        """Budgets lie below this: at it the dense network itself would do."""
        return min(self.dense_reading_joules, self.dense_estimate_joules)

    @property
    def reachable(self) -> str:
        """The range of budgets for a person, rounded inwards so that its ends can be asked for."""
        floor, top, dense = (Decimal(j) for j in (self.floor_joules, self.top_joules, self.dense_reading_joules))
        up, down = (Context(prec=4, rounding=rounding) for rounding in (ROUND_CEILING, ROUND_FLOOR))
        low, high, least, most = (
            float(number)
            for number in (up.plus(floor), down.plus(top), up.divide(floor, dense), down.divide(top, dense))
        )
        return f"{low:.4g} J to below {high:.4g} J per image, fractions {least:.4g} to below {most:.4g}"


def lay_ground(request: Request) -> Ground:
    """Profile the platform (or take the profile from the cache) and fit the energy model."""
    protocol = protocols.get(request.protocol)
    if request.device not in platforms.names():
        raise BadInput(
            f"a device out of {', '.join(platforms.names())}", repr(request.device), "python -m bench devices"
        )
    work = workload.get(request.network, request.dataset)
    with torch.device("meta"):
        anatomy = structure(work.build())
    checked_cache_dir()
    dataset = work.load_data(None if request.data is None else Path(request.data))
    platform = platforms.get(request.device)
    batch = platform.inference_batch(anatomy.operations, anatomy.position_bounds)
    profile = energy.profile(
        platform, anatomy, batch, samples=protocol.profile_samples, test_samples=protocol.profile_test_samples
    )
    return Ground(
        workload=work,
        protocol=protocol,
        dataset=dataset,
        platform=platform,
        structure=anatomy,
        inference_batch=batch,
        profile=profile,
        fit=energy.fit(profile, anatomy),
        dense_reading_joules=profile.dense_joules,
    )


@dataclass(frozen=True)
class Plan:
    """Checked jobs on their ground."""

    request: Request
    ground: Ground
    jobs: tuple[Job, ...]

    @cached_property
    def slug(self) -> str:
        """`<network>-<dataset>-<device>-<source>-<protocol>`, the name of the plan's page."""
        ground, request = self.ground, self.request
        return "-".join(
            (request.network, request.dataset, request.device, ground.platform.source, ground.protocol.name)
        )

    def key(self, job: Job, dense_fingerprint: str, code: str, method_source: str) -> str:
        """Content key of a job: all that decides its outcome.

        `code` and `method_source` are the fingerprints of the code that all methods share and of the method's own.
        """
        protocol = {k: v for k, v in vars(self.ground.protocol).items() if k not in ("budgets", "seeds")}
        fit = self.ground.fit.model.to_dict()
        budget = None if job.budget is None else job.budget.joules
        dataset = self.ground.dataset.fingerprint
        told = (job.method, budget, job.seed, protocol, fit, dense_fingerprint, dataset, self.slug)
        return content_key(*told, code, method_source, torch.__version__)


def make(request: Request) -> Plan:
    """Check a request and turn it into a plan. Raises BadInput; writes nothing but caches."""
    methods = _listed(request.methods, "method names", str)
    chosen = {name: registry.get(name) for name in methods}
    for name in chosen:
        if not _FILE_NAME.fullmatch(name):
            raise BadInput(
                "method names of letters, digits and ._+- (runs lie in folders of that name)",
                repr(name),
                "another name in the entry point",
            )
    protocol = protocols.get(request.protocol)
    seeds = protocol.seeds if request.seeds is None else tuple(_listed(request.seeds, "seeds (integers >= 0)", _seed))
    texts = (
        tuple(map(str, protocol.budgets))
        if request.budgets is None
        else tuple(_listed(request.budgets, "budgets", _budget_text))
    )
    ground = lay_ground(request)
    budgets = _distinct(texts, ground)
    jobs = [
        Job(name, budget, seed)
        for seed in seeds
        for name, method in chosen.items()
        for budget in (budgets if method.compresses else (None,))
    ]
    return Plan(request, ground, tuple(jobs))


def _listed(text: str, what: str, convert):  # type: ignore[no-untyped-def]
    """The distinct items of a comma-separated list, in order."""
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise BadInput(f"{what} separated by commas", repr(text), "removing the empty item")
    return list(dict.fromkeys(convert(item) for item in items))


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise BadInput("an integer seed from 0 to 999999999", repr(text), "--seeds 0,1,2")
    return int(text)


_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def _budget_text(text: str) -> str:
    """`text` when it reads as a budget; the check against the platform comes later, once there is one."""
    if re.fullmatch(r".*[0-9.]\s*(ms|us|µs|s)", text):
        raise BadInput(
            "a budget in joules or as a fraction",
            repr(text),
            "--budgets 0.35 or --budgets 0.0247J (latency budgets need a latency model, which is not built yet)",
        )
    number = text.removesuffix("J").strip()
    if not _NUMBER.fullmatch(number) or not math.isfinite(float(number)) or float(number) <= 0:
        raise BadInput(
            "a positive budget, a fraction of dense or joules", repr(text), "--budgets 0.35,0.3 or --budgets 0.0247J"
        )
    return text


def _distinct(texts: tuple[str, ...], ground: Ground) -> tuple[Budget, ...]:
    """The budgets, those of one name once. Raises BadInput where one name would stand for different joules."""
    found: dict[str, Budget] = {}
    for text in texts:
        budget = _budget(text, ground)
        if found.setdefault(budget.name, budget).joules != budget.joules:
            raise BadInput(
                "budgets that differ in six digits of their fraction",
                f"{text} = {budget.joules!r} J beside {found[budget.name].joules!r} J",
                "leaving one of them out",
            )
    return tuple(found.values())


def _budget(text: str, ground: Ground) -> Budget:
    """`text` in joules per image, between what the network can reach and what the dense network takes."""
    dense = ground.dense_reading_joules
    joules = float(text[:-1]) if text.endswith("J") else float(text) * dense
    if not ground.floor_joules <= joules < ground.top_joules:
        side = "not below the dense network" if joules >= ground.top_joules else "below what the network can reach"
        raise BadInput(
            f"a budget within the reachable range ({ground.reachable})",
            f"{text} = {joules:.4g} J, {side}",
            "a budget in that range",
        )
    return Budget(joules / dense, joules)

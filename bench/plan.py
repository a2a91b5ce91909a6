"""A plan: everything a run will do, checked before anything starts or is written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import cached_property
from pathlib import Path

import torch

from bench import dense, protocols, workload
from bench.budgets import Budget, budget_text, default_budgets, distinct
from bench.names import slug
from bench.workload import Workload
from methods import registry
from shared import energy, platforms
from shared.cache import checked_cache_dir, content_key
from shared.computing import ON_CPU, Computing, computing
from shared.data import Dataset
from shared.energy import EnergyFit, Profile
from shared.energy.terms import KINDS
from shared.errors import BadInput
from shared.networks import Structure, structure
from shared.platforms import Hardware, Platform, Subject
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
    metric: str = "energy"
    meter: str = "auto"
    energy_model: str = "bilinear"
    repair: bool = False
    compute: str = "cpu"
    compile: bool = False

    @property
    def command(self) -> str:
        """The command that asks for this, without defaults and without what names a place on this machine."""
        parts = ["python", "-m", "bench", "run"]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "data" or value == field.default:
                continue
            option = f"--{field.name.replace('_', '-')}"
            told = _without_folder(str(value)) if field.name == "meter" else str(value)
            parts += [option] if value is True else [option, told]
        return shlex.join(parts)


def _without_folder(meter: str) -> str:
    """`--meter`, of a path its name alone; a board's folder stays one by its "./"."""
    kind, colon, detail = meter.partition(":")
    rail, at, place = detail.partition("@") if kind == "board" else ("", "", detail)
    if kind == "board" and (not at or "/" in rail):
        rail, at, place = "", "", detail
    here = "./" if kind == "board" and "/" in place else ""
    return f"{kind}{colon}{rail}{at}{here}{Path(place).name}"


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
    platform: Platform
    structure: Structure  # of the dense network
    profile: Profile
    energy_model: str  # its kind
    fit: EnergyFit
    computing: Computing = ON_CPU  # where training runs

    @property
    def unit(self) -> str:
        """Of all amounts: J, or s where the metric is latency."""
        return self.platform.unit

    @property
    def inference_batch(self) -> int:
        """Images that the platform infers at once when it is read."""
        return self.profile.batch

    @property
    def dense_reading(self) -> float:
        """The platform's reading of the dense network per image, which fractions are of."""
        return self.profile.dense_reading

    @property
    def dense_estimate(self) -> float:
        """Ê(dense) per image."""
        return float(self.fit.model(self.structure.positions(self.structure.upper_bounds)))

    @property
    def floor(self) -> float:
        """Ê with one channel in every unit: the least that any method can reach by the model."""
        return float(self.fit.model(self.structure.positions((1,) * len(self.structure.upper_bounds))))

    @property
    def top(self) -> float:
        """Budgets lie below this: at it the dense network itself would do."""
        return min(self.dense_reading, self.dense_estimate)

    @property
    def reachable(self) -> str:
        """The range of budgets for a person, rounded inwards so that its ends can be asked for."""
        floor, top, dense = (Decimal(j) for j in (self.floor, self.top, self.dense_reading))
        up, down = (Context(prec=4, rounding=rounding) for rounding in (ROUND_CEILING, ROUND_FLOOR))
        low, high, least, most = (
            float(number)
            for number in (up.plus(floor), down.plus(top), up.divide(floor, dense), down.divide(top, dense))
        )
        unit = self.unit
        return f"{low:.4g} {unit} to below {high:.4g} {unit} per image, fractions {least:.4g} to below {most:.4g}"


def lay_ground(
    request: Request,
    say: Callable[[str], None] = lambda _: None,
    *,
    may_read: bool = True,
    to_train: bool = False,
) -> Ground:
    """Profile the platform, or take the profile from the cache (always without `may_read`), and fit the model.

    to_train: where images lie in files, they and dense weights have to be there, else BadInput is raised; without it
    nothing but their counts and shapes is needed.
    """
    place = computing(request.compute, request.compile)
    place.enter()  # workers come through here too
    protocol = protocols.get(request.protocol, request.network)
    if request.energy_model not in KINDS:
        raise BadInput(
            f"an energy model out of {', '.join(KINDS)}", repr(request.energy_model), "bilinear, the paper's"
        )
    platform = platforms.choose(request.device, request.metric, request.meter)
    work = workload.get(request.network, request.dataset)
    with torch.device("meta"):
        anatomy = structure(work.build())
    checked_cache_dir()
    folder = None if request.data is None else Path(request.data)
    images = work.load_data(folder) if folder or to_train else work.stand_in_data()
    dataset = images.to(place.device)
    if to_train:
        dense.check_weights(work, dataset)
    if isinstance(platform, Hardware):
        subject, platform.say = Subject(anatomy, work.build), say
        profile = energy.collect(
            platform,
            subject,
            samples=protocol.profile_samples,
            batch=protocol.inference_batch,
            say=say,
            may_read=may_read,
        )
    else:
        batch = protocol.inference_batch or platform.inference_batch(anatomy.operations, anatomy.position_bounds)
        counts = {"samples": protocol.profile_samples, "test_samples": protocol.profile_test_samples}
        profile = energy.profile(platform, anatomy, batch, **counts)
    fit = energy.fit(profile, anatomy, request.energy_model)
    return Ground(work, protocol, dataset, platform, anatomy, profile, request.energy_model, fit, place)


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
        return slug(
            request.network,
            request.dataset,
            request.device,
            ground.platform.source,
            ground.protocol.name,
            ground.unit,
            request.energy_model,
        )

    def key(self, job: Job, dense_fingerprint: str, code: str, method_source: str) -> str:
        """Content key of a job: all that decides its outcome.

        `code` and `method_source` are the fingerprints of the code that all methods share and of the method's own.
        """
        protocol = {k: v for k, v in vars(self.ground.protocol).items() if k not in ("budgets", "seeds")}
        fit = self.ground.fit.model.to_dict()
        budget = None if job.budget is None else job.budget.amount
        dataset = self.ground.dataset.fingerprint
        told = (job.method, budget, job.seed, protocol, fit, dense_fingerprint, dataset, self.slug)
        return content_key(*told, code, method_source, torch.__version__, self.ground.computing.told)


def make(request: Request, say: Callable[[str], None] = lambda _: None, *, to_train: bool = False) -> Plan:
    """Check a request and turn it into a plan; `say` is told what takes long, `to_train` as in `lay_ground`.

    Raises BadInput; writes nothing but caches.
    """
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
    texts = None if request.budgets is None else _listed(request.budgets, "budgets", budget_text(request.metric))
    ground = lay_ground(request, say, to_train=to_train)
    budgets = distinct(default_budgets(ground) if texts is None else tuple(texts), ground)
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

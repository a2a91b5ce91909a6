"""A plan: the runs that a request stands for, checked before anything starts or is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch

from bench.setup import protocols
from bench.setup.budgets import Budget, Reach, budget_text, distinct, reachable
from bench.setup.fingerprints import code_fingerprint, method_fingerprint
from bench.setup.names import FILE_NAME, slug, unusual
from bench.setup.request import Request
from bench.setup.setup import Say, Setup, prepare
from methods import registry
from methods.contract import Granularity
from shared.cache import content_key
from shared.errors import BadInput

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job:
    """The job of one run: a method at a budget with a seed. `budget` is None for a method that does not compress."""

    method: str
    budget: Budget | None
    seed: int

    @property
    def name(self) -> str:
        """Readable and unique within a plan; names the run's folder."""
        share = "dense" if self.budget is None else self.budget.name
        return f"{self.method}-{share}-s{self.seed}"


@dataclass(frozen=True)
class Plan:
    """Checked jobs and the setup that they share."""

    setup: Setup
    jobs: tuple[Job, ...]

    @cached_property
    def slug(self) -> str:
        """`<network>-<dataset>-<device>-<source>-<protocol>`, the name of the plan's folder and page."""
        setup, request = self.setup, self.setup.request
        return slug(
            setup.workload.label,
            request.dataset,
            setup.platform.name,
            setup.platform.source,
            *unusual(setup.unit, setup.fit.kind, setup.protocol, request.network),
            setup.protocol.name,
        )

    def key(self, job: Job) -> str:
        """Content key of a job, over all that decides its outcome."""
        setup = self.setup
        protocol = {k: v for k, v in vars(setup.protocol).items() if k not in ("budgets", "seeds")}
        return content_key(
            job.method,
            None if job.budget is None else job.budget.amount,
            job.seed,
            protocol,
            setup.model(job.budget).to_dict(),
            setup.dense.fingerprint,
            setup.dataset.fingerprint,
            self.slug,
            code_fingerprint(),
            method_fingerprint(registry.get(job.method)),
            torch.__version__,
            setup.computing.label,
        )


def make(request: Request, say: Say = lambda _: None, *, to_train: bool = False) -> Plan:
    """Check a request and turn it into a plan; `say` and `to_train` as in `bench.setup.setup.prepare`.

    Raises BadInput; writes nothing but caches.
    """
    names = _listed(request.methods, "method names", str)
    methods = {name: registry.get(name) for name in names}
    places = [("network", request.network)] if ":" not in request.network else []
    for kind, name in [*(("method", name) for name in names), *places]:
        if not FILE_NAME.fullmatch(name):
            raise BadInput(
                f"a {kind}'s name of letters, digits and ._+- (runs lie in folders of that name)",
                repr(name),
                "another name",
            )
    protocol = protocols.get(request.protocol, request.network)
    seeds = protocol.seeds if request.seeds is None else tuple(_listed(request.seeds, "seeds (integers >= 0)", _seed))
    texts = budget_texts(request)
    setup = prepare(request, say, to_train=to_train)
    for name, method in methods.items():
        if reason := method.refuses(setup.structure):
            raise BadInput(f"a network that {name} can compress", f"{request.network}: {reason}", "another method")
        if method.granularity == "weights" and setup.zeros is None:
            expected = f"a platform on which zero weights save energy for {name}, which removes weights and no channels"
            raise BadInput(expected, setup.platform.name, "--device eyeriss")
    kinds = {method.granularity for method in methods.values() if method.compresses}
    budgets = {kind: _budgets(setup, texts, kind, say) for kind in sorted(kinds)}
    jobs = [
        Job(name, budget, seed)
        for seed in seeds
        for name, method in methods.items()
        for budget in (budgets[method.granularity] if method.compresses else (None,))
    ]
    return Plan(setup, tuple(jobs))


def _budgets(setup: Setup, texts: tuple[str, ...] | None, kind: Granularity, say: Say) -> tuple[Budget, ...]:
    """The budgets that methods of this kind get, those in `texts` or the default ones. Raises BadInput."""
    reach = setup.reach if kind == "channels" else setup.reach_of_weights
    budgets = distinct(_default_budgets(setup, reach) if texts is None else texts, reach)
    return _reached(budgets, setup, say if texts is None else None) if kind == "channels" else budgets


def _reached(budgets: tuple[Budget, ...], setup: Setup, say: Say | None) -> tuple[Budget, ...]:
    """The budgets that their own energy models can reach. Raises BadInput for another; with `say` it is left out.

    The last one that is left raises, too.
    """
    kept, refused = [], None
    for budget in budgets:
        try:
            setup.reach_at(budget).check(budget.amount, budget.name, by=" of the energy model corrected near it")
        except BadInput as error:
            if say is None:
                raise
            refused = error
            say(f"budget {budget.name} is left out: {error}")
        else:
            kept.append(budget)
    if refused is not None and not kept:
        raise refused
    return tuple(kept)


def budget_texts(request: Request) -> tuple[str, ...] | None:
    """The budgets that a request names, each checked as text; None where it names none. Raises BadInput."""
    if request.budgets is None:
        return None
    return tuple(_listed(request.budgets, "budgets", budget_text(request.metric)))


def _default_budgets(setup: Setup, reach: Reach) -> tuple[str, ...]:
    """The protocol's budgets, or an even spread where these can't all be reached."""
    offers = [tuple(map(str, setup.protocol.budgets))]
    if setup.unit == "J":
        work = setup.workload
        offers = protocols.energy_budgets(setup.protocol, work.network, work.dataset, setup.platform.name)
    return reachable(offers, reach)


def _listed(text: str, what: str, convert: Callable[[str], Item]) -> list[Item]:
    """The distinct items of a comma-separated list, in order."""
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise BadInput(f"{what} separated by commas", repr(text), "removing the empty item")
    return list(dict.fromkeys(convert(item) for item in items))


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise BadInput("an integer seed from 0 to 999999999", repr(text), "--seeds 0,1,2")
    return int(text)

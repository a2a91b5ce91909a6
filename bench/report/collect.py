"""From record files to pages: reads records, groups them, and refuses to put together what can't be compared."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.names import slug
from bench.record import RECORD_FILE, Budget, Measures, Record, load
from methods.registry import BUILT_IN
from shared.errors import BadInput

CONTROLS = ("dense", "uniform", "uniform-gradual", "random", "magnitude")
_ORDER = (*(name for name in BUILT_IN if name not in CONTROLS), None, *CONTROLS)  # None: third parties, by name
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_CHOICES = ("budgets", "seeds", "ranks")  # entries of a protocol that say which runs there are, not how they go
_BUDGET_TOLERANCE = 1e-6  # relative; below what a report prints


def collect(path: Path) -> list[tuple[Record, Path]]:
    """All records below `path` with their folders, in the order of their paths.

    Hidden folders hold drafts of interrupted runs and are no part of a store. Raises BadInput when there is no record,
    and when records are damaged: every one of them is named.
    """
    files = sorted(
        file
        for file in path.rglob(RECORD_FILE)
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise BadInput(f"run folders with a {RECORD_FILE} below {path}", "none", "python -m bench run first")
    found, damaged = [], []
    for file in files:
        try:
            found.append((load(file), file.parent))
        except BadInput as error:
            damaged.append(str(error))
    if damaged:
        told = f"{len(damaged)} damaged ({' | '.join(damaged)})"
        raise BadInput(f"{len(files)} intact records below {path}", told, "removing these or running them again")
    return found


def label(record: Record) -> str:
    """The run as people call it: method, budget, seed."""
    return f"{record.method} at {share(record)} seed {record.seed}"


def share(record: Record) -> str:
    """The budget as a fraction of the dense reading; "dense" for the control that has none."""
    return "dense" if record.budget is None else f"{record.budget.fraction:.6g}"


def file_name(record: Record) -> str:
    """The name under which a record is committed: `<method>-<budget>-<seed>.json`."""
    return f"{record.method}-{share(record)}-{record.seed}.json"


def page_name(record: Record) -> str:
    """See bench.names.slug. Raises BadInput when a part could not be a file's name."""
    parts = {
        "network": record.network.get("name"),
        "dataset": record.dataset,
        "device": record.platform.name,
        "protocol": record.protocol.get("name"),
        "method": record.method,
    }
    for what, part in parts.items():
        if not isinstance(part, str) or not _NAME.fullmatch(part):
            raise BadInput(f"a {what} whose name is letters, digits and ._+-", repr(part), "naming it so")
    platform = record.platform
    return slug(
        str(parts["network"]),
        record.dataset,
        platform.name,
        platform.source,
        str(parts["protocol"]),
        platform.unit,
        record.energy_fit.kind,
    )


def rank(method: str) -> tuple[int, str]:
    """Where a method stands in a table: the compared ones, third parties by name, then the controls."""
    return _ORDER.index(method if method in BUILT_IN else None), method


@dataclass(frozen=True)
class Page:
    """Records that may share columns, in table order."""

    name: str
    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """Any record, for what all of them share."""
        return self.records[0]

    @property
    def simulated(self) -> bool:
        """Whether the joules come from a simulator."""
        return self.first.platform.source == "simulated"

    @property
    def amounts(self) -> str:
        """What budgets and readings are in: "joules" or "seconds"."""
        return {"J": "joules", "s": "seconds"}[self.first.platform.unit]

    @property
    def ranks(self) -> bool:
        """Whether the protocol is meant to rank methods."""
        return all(bool(record.protocol.get("ranks", True)) for record in self.records)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """All seeds on the page."""
        return tuple(sorted({record.seed for record in self.records}))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Methods that compress, in table order."""
        return tuple(dict.fromkeys(record.method for record in self.records if record.budget is not None))

    @cached_property
    def budgets(self) -> dict[str, Budget]:
        """Column label (the fraction) -> budget, tightest first as in the paper's Table 2."""
        found = {share(record): record.budget for record in self.records if record.budget is not None}
        return dict(sorted(found.items(), key=lambda item: item[1].amount))

    @cached_property
    def dense_runs(self) -> tuple[Record, ...]:
        """Runs of controls that no budget binds."""
        return tuple(record for record in self.records if record.budget is None)

    def title(self, method: str) -> str:
        """How tables call a method."""
        return next(record.title for record in self.records if record.method == method)

    def runs(self, method: str, budget: str) -> tuple[Record, ...]:
        """All runs of a cell, by seed."""
        return tuple(record for record in self.records if record.method == method and share(record) == budget)


def kept(runs: Iterable[Record]) -> tuple[tuple[Record, Measures], ...]:
    """Runs that are no miss, with their measures."""
    return tuple((run, run.measures) for run in runs if run.status == "ok" and run.measures is not None)


def pages(records: Iterable[Record]) -> list[Page]:
    """Group records into pages by name.

    Simulated and metered joules never meet, since the source is part of the name. Raises BadInput when a run is there
    twice, when a finished run lacks its measures, and when the runs of a page differ in a fingerprint, in their
    platform or in their protocol.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(page_name(record), []).append(record)
    if not groups:
        raise BadInput("at least one record", "none", "python -m bench run first")
    made = []
    for name, group in sorted(groups.items()):
        ordered = sorted(group, key=lambda r: (rank(r.method), r.budget.amount if r.budget else 0.0, r.seed))
        _check_runs(name, ordered)
        _check_agreement(name, ordered)
        made.append(Page(name, tuple(ordered)))
    return made


def _check_runs(name: str, records: Sequence[Record]) -> None:
    seen: dict[str, str] = {}
    for record in records:
        if record.status == "ok" and record.measures is None:
            raise BadInput("measures in a record that is ok", f"none for {label(record)} of {name}", "running it again")
        file = file_name(record).lower()  # some file systems don't tell A from a
        if file in seen:
            keys = f"{label(record)} twice in {name} (keys {seen[file]} and {record.key})"
            raise BadInput("each method, budget and seed once", keys, "reporting one of the two folders")
        seen[file] = record.key
    budgets = sorted((record.budget for record in records if record.budget), key=lambda budget: budget.fraction)
    for one, other in pairwise(budgets):
        same_column = f"{one.fraction:.6g}" == f"{other.fraction:.6g}"
        if same_column and not math.isclose(one.amount, other.amount, rel_tol=_BUDGET_TOLERANCE):
            figures = f"{one.amount:.6g} and {other.amount:.6g} for {one.fraction:.6g} of dense in {name}"
            raise BadInput("one budget per column", figures, "running them against one dense reading")


def _aspects(records: Sequence[Record]) -> Iterable[tuple[str, list[Any]]]:
    """What must be equal in all runs of a page, with its value in each."""
    for key in sorted({key for record in records for key in record.fingerprints}):
        yield f"fingerprint of {key.replace('_', ' ')}", [record.fingerprints.get(key) for record in records]
    for key in type(records[0].platform).model_fields:
        yield f"platform {key.replace('_', ' ')}", [getattr(record.platform, key) for record in records]
    for key in sorted({key for record in records for key in record.protocol} - set(_CHOICES)):
        yield f"protocol {key.replace('_', ' ')}", [record.protocol.get(key) for record in records]


def _check_agreement(name: str, records: Sequence[Record]) -> None:
    differing: dict[str, str] = {}
    for aspect, values in _aspects(records):
        camps: dict[str, list[str]] = {}
        for record, value in zip(records, values, strict=True):
            camps.setdefault(json.dumps(value, default=str), []).append(label(record))
        if len(camps) > 1:
            differing[aspect] = "; ".join(f"{value} in {_some(runs)}" for value, runs in camps.items())
    if differing:
        aspect, sides = next(iter(differing.items()))
        others = f" (as well: {', '.join(list(differing)[1:])})" if len(differing) > 1 else ""
        raise BadInput(f"one {aspect} in all runs of {name}", sides + others, "reporting them apart")


def _some(runs: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
    return ", ".join(runs[:shown]) + more

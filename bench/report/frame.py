"""From record files to one frame, a row per run; refuses to put together what can't be compared."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pandas as pd
from pydantic import BaseModel

from bench.record.model import RECORD_FILE, Record, load
from bench.setup.names import slug, unusual
from methods import registry
from shared.errors import BadInput

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_COMMITTED = re.compile(r"[^/]+-[^/]+-\d+\.json")  # see file_name
_CHOICES = {"budgets", "seeds", "ranks"}  # entries of a protocol that say which runs there are, not how they go
_NO_COLUMNS = {"notes", "trace"}  # free text and curves: they stay in the record
_DTYPES = {int: "Int64", float: "float64"}  # which keep a number where another run lacks it
_NAMES = ("network.name",)  # of parts that the schema leaves open
_BUDGET_TOLERANCE = 1e-6  # relative; below what a report prints


def collect(path: Path) -> list[tuple[Record, Path]]:
    """All records below `path` with their files, in the order of the paths: a store's, else committed ones.

    Hidden folders hold drafts of interrupted runs and are no part of a store. Raises BadInput when there is no record,
    and when records are damaged: every one of them is named.
    """
    visible = [
        file
        for file in sorted(path.rglob("*.json"))
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    stored = [file for file in visible if file.name == RECORD_FILE]
    files = stored or [file for file in visible if _COMMITTED.fullmatch(file.name)]
    if not files:
        raise BadInput(f"run folders with a {RECORD_FILE} below {path}", "none", "python -m bench run first")
    records, damaged = [], []
    for file in files:
        try:
            records.append((load(file), file))
        except BadInput as error:
            damaged.append(str(error))
    if damaged:
        problems = f"{len(damaged)} damaged ({' | '.join(damaged)})"
        raise BadInput(f"{len(files)} intact records below {path}", problems, "removing these or running them again")
    return records


def share(record: Record) -> str:
    """The budget as a fraction of the dense reading; "dense" for the control that has none."""
    return "dense" if record.budget is None else f"{record.budget.fraction:.6g}"


def file_name(record: Record) -> str:
    """The name under which a record is committed: `<method>-<budget>-<seed>.json`."""
    return f"{record.method}-{share(record)}-{record.seed}.json"


def page_name(record: Record) -> str:
    """See bench.setup.names.slug. Raises BadInput when a part could not be a file's name."""
    platform = record.platform
    parts: dict[str, Any] = {
        "network": record.network.get("name"),
        "dataset": record.dataset,
        "device": platform.name,
        "protocol": record.protocol.name,
    }
    for what, part in (parts | {"method": record.method}).items():
        if not isinstance(part, str) or not _NAME.fullmatch(part):
            raise BadInput(f"a {what} whose name is letters, digits and ._+-", repr(part), "naming it so")
    names = (record.network["name"], record.dataset, platform.name, platform.source)
    return slug(*names, *unusual(platform.unit, record.energy_fit.kind), record.protocol.name)


@cache
def is_control(method: str) -> bool:
    """Whether the method is one of the suite's controls, which declare no properties of a publication.

    What third parties declare does not count: a page must not depend on the packages that are installed.
    """
    return method in registry.BUILT_IN and registry.get(method).properties is None


def rank(method: str) -> tuple[bool, int, str]:
    """Where a method stands in a table: the compared ones, third parties by name, then the controls."""
    known = list(registry.BUILT_IN)
    return is_control(method), known.index(method) if method in known else len(known), method


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """A row per run, in table order: by page, method (see `rank`), budget with the tightest first, and seed.

    A column per field of a record, with dots for nested ones: `measures.reading`, `network.name`. Joules or seconds are
    per image, accuracies are 0..1; what a run lacks is missing. The index is the record's place in `records`. Besides:

    page            name of the page that the run belongs to
    budget          the fraction as tables write it, "dense" where no budget binds
    ok              whether the run is no miss
    control         whether the method is a control
    cost.plain_s    seconds that the method's iterations and search images take when done plainly
    record          the whole record
    """
    records = list(records)
    fields = _fields(Record)
    runs = pd.json_normalize([record.model_dump(exclude=_NO_COLUMNS) for record in records], max_level=1)
    runs = runs.reindex(columns=list(dict.fromkeys([*fields, *_NAMES, *(name for name in runs if "." in name)])))
    runs = runs.astype({name: _DTYPES[kind] for name, kind in fields.items() if kind in _DTYPES})
    steps_s = runs["cost.training_iterations"] * runs["cost.distillation_step_s"]
    searches_s = runs["cost.search_samples"] * runs["cost.forward_s_per_image"]
    computed = {
        "page": [page_name(record) for record in records],
        "budget": [share(record) for record in records],
        "ok": runs["status"] == "ok",
        "control": [is_control(record.method) for record in records],
        "cost.plain_s": (steps_s + searches_s).astype("float64"),
        "record": records,
    }
    runs = runs.assign(**computed).astype({"ok": bool, "control": bool, "protocol.ranks": bool})
    order = runs.assign(rank=[rank(method) for method in runs["method"]], amount=runs["budget.amount"].fillna(0.0))
    return runs.loc[order.sort_values(["page", "rank", "amount", "seed"]).index]


def _fields(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type of the fields whose names a record's schema fixes, nested ones one level deep."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = _plain(field.annotation)
        if not prefix and is_dataclass(kind):
            fields |= {f"{name}.{part.name}": None for part in dataclass_fields(kind)}
        elif not prefix and isinstance(kind, type) and issubclass(kind, BaseModel):
            fields |= _fields(kind, f"{name}.")
        elif get_origin(kind) is not dict:
            fields[f"{prefix}{name}"] = kind
    return fields


def _plain(kind: Any) -> Any:
    """The type without None and without the limits of its values."""
    if get_origin(kind) is UnionType or get_origin(kind) is Union:
        kind = get_args(kind)[0]
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def checked(records: Iterable[Record]) -> pd.DataFrame:
    """The frame of records whose pages can stand: `groupby("page")` gives what may share columns.

    Simulated and metered joules never meet, since the source is part of a page's name. Raises BadInput without a
    record, when a run is there twice, and when the runs of a page differ in a fingerprint, in their platform or in
    their protocol.
    """
    runs = frame(records)
    if runs.empty:
        raise BadInput("at least one record", "none", "python -m bench run first")
    for name, page in runs.groupby("page"):
        _check_runs(name, page["record"])
        _check_budgets(name, page)
        _check_agreement(name, page["record"])
    return runs


def _label(record: Record) -> str:
    return f"{record.method} at {share(record)} seed {record.seed}"


def _check_runs(name: str, records: Iterable[Record]) -> None:
    seen: dict[str, str] = {}
    for record in records:
        file = file_name(record).lower()  # some file systems don't tell A from a
        if file in seen:
            keys = f"{_label(record)} twice in {name} (keys {seen[file]} and {record.key})"
            raise BadInput("each method, budget and seed once", keys, "reporting one of the two folders")
        seen[file] = record.key


def _check_budgets(name: str, page: pd.DataFrame) -> None:
    for fraction, amounts in page.groupby("budget")["budget.amount"]:
        low, high = amounts.min(), amounts.max()
        if fraction != "dense" and not math.isclose(low, high, rel_tol=_BUDGET_TOLERANCE):
            figures = f"{low:.6g} and {high:.6g} for {fraction} of dense in {name}"
            raise BadInput("one budget per column", figures, "running them against one dense reading")


def _aspects(record: Record) -> dict[str, str]:
    """What must be equal in all runs of a page, as JSON."""
    protocol = {key: value for key, value in vars(record.protocol).items() if key not in _CHOICES}
    parts = {
        "fingerprint of": sorted(record.fingerprints.items()),
        "platform": list(record.platform),
        "protocol": sorted(protocol.items()),
    }
    return {
        f"{part} {key.replace('_', ' ')}": json.dumps(value, default=str)
        for part, entries in parts.items()
        for key, value in entries
    }


def _check_agreement(name: str, records: pd.Series) -> None:
    aspects = pd.DataFrame([_aspects(record) for record in records]).fillna("null")
    labels = records.map(_label).reset_index(drop=True)
    differing = [aspect for aspect in aspects if aspects[aspect].nunique() > 1]
    if differing:
        camps = labels.groupby(aspects[differing[0]], sort=False)
        sides = "; ".join(f"{value} in {_some(list(runs))}" for value, runs in camps)
        others = f" (as well: {', '.join(differing[1:])})" if differing[1:] else ""
        raise BadInput(f"one {differing[0]} in all runs of {name}", sides + others, "reporting them apart")


def _some(runs: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
    return ", ".join(runs[:shown]) + more

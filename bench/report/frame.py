"""From record files to one frame with a row per run; runs that can't be compared are refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pandas as pd
from pydantic import BaseModel

from bench.record.model import RECORD_FILE, Record, load
from bench.setup.names import slug, unusual
from methods import registry
from shared.errors import BadInput

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_COMMITTED = re.compile(r"[^/]+-[^/]+-\d+\.json")  # see file_name
_CHOICES = {"budgets", "seeds", "ranks"}  # entries of a protocol that have no part in how a run goes
_NO_COLUMNS = {"notes", "trace"}  # free text and curves, which stay in the record
_DTYPES = {int: "Int64", float: "float64"}  # a column of these keeps its type where a run lacks it
_OPEN = ("network.name",)  # columns of parts that the schema leaves open
_BUDGET_TOLERANCE = 1e-6  # relative; below what a report prints


def collect(path: Path) -> list[tuple[Record, Path]]:
    """All records below `path` with their files, in the order of the paths: a store's, else committed ones.

    Hidden folders belong to drafts of interrupted runs and are no part of a store. Raises BadInput when there is no
    record, and when records are damaged; the message names every damaged one.
    """
    files = sorted(path.rglob("*.json"))
    visible = [file for file in files if "/." not in f"/{file.relative_to(path).as_posix()}"]
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
    """The budget as a fraction of the dense reading; "dense" for the control without a budget."""
    return "dense" if record.budget is None else f"{record.budget.fraction:.6g}"


def file_name(record: Record) -> str:
    """The name under which a record is committed: `<method>-<budget>-<seed>.json`."""
    return f"{record.method}-{share(record)}-{record.seed}.json"


def page_name(record: Record) -> str:
    """The name of the record's page, see bench.setup.names.slug. Raises BadInput when a part can't be a file's name."""
    platform, kinds = record.platform, ("network", "dataset", "device", "protocol", "method")
    label = record.network.get("label", record.network.get("name"))
    names = (label, record.dataset, platform.name, record.protocol.name, record.method)
    for kind, name in zip(kinds, names, strict=True):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadInput(f"a {kind} whose name is letters, digits and ._+-", repr(name), "another name")
    network, dataset, device, protocol, _ = map(str, names)
    parts = unusual(platform.unit, record.energy_fit.kind, record.protocol, network)
    return slug(network, dataset, device, platform.source, *parts, protocol)


@cache
def is_control(method: str) -> bool:
    """Whether the method is one of the suite's controls, which declare no properties of a publication.

    Declarations of third parties do not count, since a page must not depend on the installed packages.
    """
    return method in registry.BUILT_IN and registry.get(method).properties is None


def rank(method: str) -> tuple[bool, int, str]:
    """Sort key of a method in a table: the compared ones in the registry's order, third parties by name, controls."""
    known = list(registry.BUILT_IN)
    return is_control(method), known.index(method) if method in known else len(known), method


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """A row per run, in table order: by page, method (see `rank`), budget with the tightest first, and seed.

    A column per field of a record, with dots for nested ones: `measures.reading`, `network.name`. Joules or seconds are
    per image, accuracies are 0..1. A field that a run lacks is missing. The index is the record's place in `records`.
    Further columns:

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
    runs = runs.reindex(columns=list(dict.fromkeys([*fields, *_OPEN, *(name for name in runs if "." in name)])))
    runs = runs.astype({name: _DTYPES[kind] for name, kind in fields.items() if kind in _DTYPES})
    steps_s = runs["cost.training_iterations"] * runs["cost.distillation_step_s"]
    searches_s = runs["cost.search_samples"] * runs["cost.forward_s_per_image"]
    runs["cost.plain_s"] = (steps_s + searches_s).astype("float64")
    runs = runs.assign(
        page=[page_name(record) for record in records],
        budget=[share(record) for record in records],
        ok=runs["status"] == "ok",
        control=[is_control(record.method) for record in records],
        record=records,
    ).astype({"ok": bool, "control": bool, "protocol.ranks": bool})
    order = runs.assign(rank=[rank(method) for method in runs["method"]], amount=runs["budget.amount"].fillna(0.0))
    return runs.loc[order.sort_values(["page", "rank", "amount", "seed"]).index]


def _fields(schema: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type (without None) of the fields in the schema of a record, nested ones one level deep."""
    fields: dict[str, Any] = {}
    hints = get_type_hints(schema)  # it drops the limits that pydantic puts on values
    for name in schema.__annotations__:
        kind = get_args(hints[name])[0] if NoneType in get_args(hints[name]) else hints[name]
        if not prefix and (is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel))):
            fields |= _fields(kind, f"{name}.")
        elif prefix or get_origin(kind) is not dict:
            fields[f"{prefix}{name}"] = kind
    return fields


def checked(records: Iterable[Record]) -> pd.DataFrame:
    """The frame of records whose runs can be compared page by page: `groupby("page")` gives what may share columns.

    Simulated and measured joules never meet, since the source is part of a page's name. Raises BadInput without a
    record, when a run occurs twice, and when the runs of a page differ in a fingerprint, in their platform or in
    their protocol.
    """
    runs = frame(records)
    if runs.empty:
        raise BadInput("at least one record", "none", "python -m bench run first")
    for name, page in runs.groupby("page"):
        _check_runs(name, page)
        _check_budgets(name, page)
        _check_agreement(name, page["record"])
    return runs


def _label(record: Record) -> str:
    return f"{record.method} at {share(record)} seed {record.seed}"


def _check_runs(name: str, page: pd.DataFrame) -> None:
    files = page["record"].map(file_name).str.lower()  # some file systems take A for a
    for _, runs in page.groupby(files):
        if len(runs) > 1:
            twice = f"{_label(runs['record'].iloc[0])} twice in {name} (keys {' and '.join(runs['key'])})"
            raise BadInput("each method, budget and seed once", twice, "a report of one of the two folders")


def _check_budgets(name: str, page: pd.DataFrame) -> None:
    for fraction, amounts in page.groupby("budget")["budget.amount"]:
        low, high = amounts.min(), amounts.max()
        if fraction != "dense" and not math.isclose(low, high, rel_tol=_BUDGET_TOLERANCE):
            figures = f"{low:.6g} and {high:.6g} for {fraction} of dense in {name}"
            raise BadInput("one budget per column", figures, "running them against one dense reading")
    for fraction, models in page.groupby("budget")["local_fit.fingerprint"]:
        if models.nunique(dropna=False) > 1:
            figures = f"{' and '.join(map(str, models.unique()))} for {fraction} of dense in {name}"
            raise BadInput("one energy model per budget", figures, "a report of each side by itself")


def _aspects(record: Record) -> dict[str, str]:
    """Name -> JSON of everything that all runs of a page must share.

    The code may differ, as long as its results don't, see bench.setup.fingerprints.RESULTS.
    """
    fingerprints = {key: value for key, value in record.fingerprints.items() if key != "code"}
    fingerprints["results"] = _revision(record).partition(".")[0]  # behind the point is the method's own
    protocol = {key: value for key, value in vars(record.protocol).items() if key not in _CHOICES}
    parts = {"fingerprint of": fingerprints, "platform": dict(record.platform), "protocol": protocol}
    return {
        f"{part} {key.replace('_', ' ')}": json.dumps(value, default=str)
        for part, entries in parts.items()
        for key, value in sorted(entries.items())
    }


def _revision(record: Record) -> str:
    return record.fingerprints.get("results", "1")  # records from before there were revisions are of the first


def _check_agreement(name: str, records: pd.Series) -> None:
    for method, revisions in records.map(_revision).groupby(records.map(lambda record: record.method)):
        if revisions.nunique() > 1:
            sides = " and ".join(sorted(revisions.unique()))
            raise BadInput(f"one revision of {method} in {name}", sides, "a report of each side by itself")
    aspects = pd.DataFrame([_aspects(record) for record in records], records.index).fillna("null")
    differing = [aspect for aspect in aspects if aspects[aspect].nunique() > 1]
    if differing:
        camps = records.map(_label).groupby(aspects[differing[0]], sort=False)
        sides = "; ".join(f"{value} in {_some(list(runs))}" for value, runs in camps)
        others = f" (as well: {', '.join(differing[1:])})" if differing[1:] else ""
        raise BadInput(f"one {differing[0]} in all runs of {name}", sides + others, "a report of each side by itself")


def _some(runs: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(runs) - shown} more" if len(runs) > shown else ""
    return ", ".join(runs[:shown]) + more

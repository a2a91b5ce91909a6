"""The foot of a page: everything that is needed to make its numbers again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bench.record.model import Record, to_json
from bench.report.frame import file_name, share
from bench.report.tables import first, seeds
from bench.report.text import ABSENT, Table, code, escape
from bench.setup import protocols

_NAMED_ABOVE = ("name", "budgets", "seeds", "ranks", "widths")  # entries that a page has elsewhere
_LONGEST_NOTE = 160  # characters; a longer note stays in the record alone


def digest(record: Record) -> str:
    """SHA-256 (16 digits) of a record's canonical JSON: ties a page to the very records behind it."""
    return hashlib.sha256(to_json(record)).hexdigest()[:16]


def commands(page: pd.DataFrame) -> list[str]:
    """The distinct commands that made the page's runs; they name an energy model that is not the protocol's own."""
    own = protocols.energy_model(first(page).protocol.name)
    kind = first(page).energy_fit.kind
    option = "" if kind == own else f" --energy-model {kind}"
    of_runs = (record.environment.get("command") for record in page["record"])
    lines = {" ".join(str(command).split()) for command in of_runs if command}
    return sorted(line + option * ("--energy-model" not in line) for line in lines)


def facts(page: pd.DataFrame) -> list[tuple[str, str]]:
    """(name, value) of what all runs share, and of their environment; values that differ stand with their methods."""
    record, records = first(page), list(page["record"])
    network = _listed({key: value for key, value in record.network.items() if value is not None})
    lines = [
        ("commit", _distinct(page, map(_commit, records))),
        ("protocol", _listed(vars(record.protocol))),
        ("network", ", ".join(filter(None, [str(record.network["name"]), network]))),
        ("seeds", ", ".join(map(str, seeds(page)))),
        ("calibration", escape(f"{record.platform.meter} {record.platform.calibration}")),
    ]
    for key in sorted({key for run in records for key in run.fingerprints}):
        missing = "1" if key == "results" else "unknown"  # records from before there were revisions are of the first
        values = (code(run.fingerprints.get(key, missing)) for run in records)
        lines.append((f"fingerprint of {_words(key)}", _distinct(page, values, plain=True)))
    for key in sorted({key for run in records for key in run.environment} - {"command", "commit", "dirty"}):
        lines.append((_words(key), _distinct(page, (_plain(run.environment.get(key)) for run in records))))
    return lines


def _listed(entries: Mapping[str, Any]) -> str:
    """Names and values of the entries that stand nowhere else on the page."""
    return ", ".join(f"{_words(key)} {_plain(value)}" for key, value in entries.items() if key not in _NAMED_ABOVE)


def _commit(record: Record) -> str:
    commit, dirty = record.environment.get("commit"), record.environment.get("dirty")
    state = "" if dirty is None else " with uncommitted changes (dirty)" if dirty else " (clean)"
    return f"{commit or 'unknown'}{state}"


def _distinct(page: pd.DataFrame, values: Iterable[str], *, plain: bool = False) -> str:
    """The value of the runs when they all agree, else each value with the methods that have it.

    plain: whether the values are Markdown already.
    """
    texts = list(values) if plain else list(map(escape, values))
    camps = page["method"].groupby(pd.Series(texts, page.index), sort=False).unique()
    if len(camps) == 1:
        return str(camps.index[0])
    return "; ".join(f"{value} ({', '.join(methods)})" for value, methods in camps.items())


def _words(key: str) -> str:
    return key.replace("_", " ")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in sorted(value.items()))
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "unknown" if value is None else str(value)


def files_table(page: pd.DataFrame, folder: str | None) -> Table:
    """A row per run with its record's digest and key and its network's hash.

    folder: of the records, relative to the page; None where they are not beside it.
    """
    rows = []
    for record in page["record"]:
        file = file_name(record)
        link = code(file) if folder is None else f"[{file}]({folder}/{file})"
        network = ABSENT if record.network_sha256 is None else code(record.network_sha256[:16])
        rows.append([link, code(digest(record)), code(record.key), network])
    return ["record", "SHA-256 of the record", "content key", "SHA-256 of the network"], rows


def notes_lines(page: pd.DataFrame) -> list[str]:
    """The notes that runs took about themselves, a line per run with notes."""
    lines = []
    for record in page["record"]:
        texts = {_words(key): _plain(value) for key, value in sorted(record.notes.items())}
        notes = [f"{key}: {text if len(text) <= _LONGEST_NOTE else 'see the record'}" for key, text in texts.items()]
        if notes:
            where = f"{record.title}, {share(record)}" + (f", seed {record.seed}" if len(seeds(page)) > 1 else "")
            lines.append(f"**{escape(where)}** – {escape('; '.join(notes))}")
    return lines

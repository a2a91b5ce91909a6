"""The foot of a page: everything it takes to make its numbers again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bench.record.model import Record, to_json
from bench.report.frame import file_name, share
from bench.report.tables import first, seeds
from bench.report.text import ABSENT, code, escape, table

_NAMED_ABOVE = ("name", "budgets", "seeds", "ranks", "widths")  # entries that a page has elsewhere
_LONGEST_NOTE = 160  # characters; what is longer is left to the record


def digest(record: Record) -> str:
    """SHA-256 (16 digits) of a record's canonical JSON: ties a page to the very records behind it."""
    return hashlib.sha256(to_json(record)).hexdigest()[:16]


def commands(page: pd.DataFrame) -> list[str]:
    """The distinct commands that made the page's runs."""
    of_runs = (record.environment.get("command") for record in page["record"])
    return sorted({" ".join(str(command).split()) for command in of_runs if command})


def facts(page: pd.DataFrame) -> list[tuple[str, str]]:
    """(what, value) of what all runs share and of the environment; each value with its methods where runs differ."""
    records, record = list(page["record"]), first(page)
    protocol = [(key, value) for key, value in vars(record.protocol).items() if key not in _NAMED_ABOVE]
    network = [(key, value) for key, value in record.network.items() if key not in _NAMED_ABOVE and value is not None]
    lines = [
        ("commit", _distinct(records, _commit)),
        ("protocol", _listed(protocol)),
        ("network", ", ".join([str(record.network["name"]), *([_listed(network)] if network else [])])),
        ("seeds", ", ".join(map(str, seeds(page)))),
        ("calibration", escape(f"{record.platform.meter} {record.platform.calibration}")),
    ]
    lines += [(f"fingerprint of {_words(key)}", code(value)) for key, value in sorted(record.fingerprints.items())]
    keys = sorted({key for record in records for key in record.environment} - {"command", "commit", "dirty"})
    return lines + [
        (_words(key), _distinct(records, lambda r, key=key: _plain(r.environment.get(key)))) for key in keys
    ]


def _listed(entries: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{_words(key)} {_plain(value)}" for key, value in entries)


def _commit(record: Record) -> str:
    commit, dirty = record.environment.get("commit"), record.environment.get("dirty")
    state = "" if dirty is None else " with uncommitted changes (dirty)" if dirty else " (clean)"
    return f"{commit or 'unknown'}{state}"


def _distinct(records: Sequence[Record], value_of: Any) -> str:
    """One value when all runs agree, else each value with the methods that have it."""
    camps: dict[str, list[str]] = {}
    for record in records:
        methods = camps.setdefault(str(value_of(record)), [])
        if record.method not in methods:
            methods.append(record.method)
    if len(camps) == 1:
        return escape(next(iter(camps)))
    return "; ".join(f"{escape(value)} ({', '.join(methods)})" for value, methods in camps.items())


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


def files_table(page: pd.DataFrame, folder: str | None) -> str:
    """A row per run: its record's digest and key, its network's hash. `folder` (relative) holds the records."""
    rows = []
    for record in page["record"]:
        file = file_name(record)
        name = code(file) if folder is None else f"[{file}]({folder}/{file})"
        network = ABSENT if record.network_sha256 is None else code(record.network_sha256[:16])
        rows.append([name, code(digest(record)), code(record.key), network])
    return table(["record", "SHA-256 of the record", "content key", "SHA-256 of the network"], rows, left=4)


def notes_lines(page: pd.DataFrame) -> list[str]:
    """What the runs noted about themselves, a line per run that did."""
    lines = []
    for record in page["record"]:
        texts = {_words(key): _plain(value) for key, value in sorted(record.notes.items())}
        notes = [f"{key}: {text if len(text) <= _LONGEST_NOTE else 'see the record'}" for key, text in texts.items()]
        if notes:
            where = f"{record.title}, {share(record)}" + (f", seed {record.seed}" if len(seeds(page)) > 1 else "")
            lines.append(f"**{escape(where)}** – {escape('; '.join(notes))}")
    return lines

"""Fingerprints of code: they change with what the code computes, not with how it is written down.

A run is repeated when the code that made it changes. Comments, docstrings and formatting are left out, so that editing
them does not repeat stored runs.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from methods.contract import Method
from shared.cache import content_key

DECIDING = ("setup", "run")  # folders of bench/ whose code decides a run's figures
# Raise it with every change that may change what the runs of all methods end with; `Method.revision` is for one's own.
# Runs of one revision share a page, whatever else has changed in the code since.
RESULTS = 1


@cache
def code_fingerprint() -> str:
    """Fingerprint of the code that decides every run's figures, whatever its method.

    It covers shared/, the methods' contract and the deciding folders of bench/.
    """
    root = Path(__file__).parents[2]
    folders = [root / "shared", *(root / "bench" / name for name in DECIDING)]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    return of_files([*files, root / "methods/contract.py"], root)


def method_fingerprint(method: Method) -> str:
    """Fingerprint of the method's own package, or of its module where it has no package."""
    file = Path(inspect.getfile(type(method)))
    in_package = (file.parent / "__init__.py").is_file()
    return of_files(file.parent.rglob("*.py") if in_package else [file], file.parent)


def revision_of_results(method: Method) -> str:
    """The revision of what the method's runs end with: that of all methods, and its own where that is not the first."""
    return f"{RESULTS}" if method.revision == 1 else f"{RESULTS}.{method.revision}"


def of_files(files: Iterable[Path], root: Path) -> str:
    """SHA-256 (16 hex digits) over the code of `files` and their paths below `root`."""
    return content_key(*([file.relative_to(root).as_posix(), of_code(file.read_bytes())] for file in sorted(files)))


def of_code(source: bytes) -> str:
    """SHA-256 (16 hex digits) over the syntax tree of a Python file, without docstrings.

    It is the same on every Python version that parses the file alike (3.11 to 3.14 are checked). A file that this
    version can't parse is hashed by its bytes.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # ValueError: null bytes, on older versions
        return content_key(source)
    return content_key(_plain(tree))


def _plain(value: Any) -> Any:
    """A node as nested lists: its type, then each field with a value.

    The text of `ast.dump` differs between Python versions. Empty fields are left out, because newer versions add fields
    (`type_params` in 3.12) that are empty in older code. `kind` only tells u"" from "".
    """
    match value:
        case ast.JoinedStr():
            return ["JoinedStr", *_f_string_parts(value.values)]
        case ast.AST():
            fields = ((name, entry) for name, entry in ast.iter_fields(value) if name != "kind")
            plain = ((name, _plain(entry)) for name, entry in fields)
            return [type(value).__name__, *([name, entry] for name, entry in plain if entry not in (None, []))]
        case list():
            return [_plain(entry) for entry in value if not _is_docstring(entry)]
        case None:
            return None
        case _:  # a name or a constant; ascii tells 1 from 1.0 and "a" from b"a", on every version of Unicode alike
            return ascii(value)


def _is_docstring(node: object) -> bool:
    """Whether a statement is a string alone: a docstring, or one below an attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _f_string_parts(nodes: list[ast.expr]) -> Iterator[Any]:
    """The parts of an f-string; adjacent texts are joined, since Python versions split them differently."""
    text = ""
    for node in nodes:
        if isinstance(node, ast.Constant):
            text += str(node.value)
            continue
        if text:
            yield ascii(text)
        text = ""
        yield _plain(node)
    if text:
        yield ascii(text)

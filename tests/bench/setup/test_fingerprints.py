"""Fingerprints of code: what changes them, what doesn't, and that all versions of Python agree."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.setup import fingerprints
from methods import registry

SOURCE = b'''"""What it is."""

from __future__ import annotations

FACTOR = 0.5  # why


class Scale:
    """Scales."""

    offset: int = 1
    """Added last."""

    def __call__(self, value: float, /, *, unit: str = "mJ", **other: object) -> str:
        """Text."""
        entries = (f"{name}: {f'{entry}':>{10}}" for name, entry in other.items())
        lines = [f"{FACTOR * value + self.offset:.3f} {unit!r}", *entries]
        return "\\n".join(lines)
'''
# As computed by CPython 3.11, 3.12, 3.13 and 3.14.
HASH = "4743fff1f2338343"


def test_every_version_of_python_gives_the_same_hash() -> None:
    assert fingerprints.of_code(SOURCE) == HASH


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"  # why", b"  # another reason, \xc3\xa4"),
        (b"  # why", b""),
        (b'"""Text."""', b'"""Another text, longer."""'),
        (b'"""What it is."""', b""),
        (b'    """Added last."""\n', b""),
        (b"0.5", b"(0.5)"),
        (b'"mJ"', b"'mJ'"),
        (b"= [f", b"= [\n            f"),
        (b"{FACTOR * value + self.offset:.3f}", b"{ FACTOR*value  +self.offset :.3f}"),
        (b' {unit!r}"', b' " f"{unit!r}"'),
    ],
)
def test_prose_and_formatting_change_nothing(old: bytes, new: bytes) -> None:
    assert old in SOURCE
    assert fingerprints.of_code(SOURCE.replace(old, new)) == HASH


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0.5", b"0.25"),
        (b"0.5", b"1"),
        (b"= 1\n", b"= 1.0\n"),
        (b"= 1\n", b"= True\n"),
        (b"= 1\n", b"= None\n"),
        (b'"mJ"', b'b"mJ"'),
        (b'"mJ"', b'"J"'),
        (b".3f", b".2f"),
        (b"{unit!r}", b"{unit!s}"),
        (b"value: float, /, *", b"value: float, *"),
        (b"FACTOR * value + self", b"FACTOR * (value + self"),
        (b"name, entry in", b"entry, name in"),
    ],
)
def test_what_code_computes_changes_the_hash(old: bytes, new: bytes) -> None:
    assert old in SOURCE
    changed = SOURCE.replace(old, new)
    if new.endswith(b"+ self"):
        changed = changed.replace(b"self.offset", b"self.offset)")
    ast.parse(changed)
    assert fingerprints.of_code(changed) != HASH


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_only_equal_constants_share_a_hash(value: object) -> None:
    """A constant written once more is the same code; beside another it is not."""
    code = f"CONSTANT = {value!a}"
    assert fingerprints.of_code(code.encode()) == fingerprints.of_code(f"# so\n{code}  # and so".encode())
    assert fingerprints.of_code(code.encode()) != fingerprints.of_code(f"CONSTANT = [{value!a}]".encode())


def test_the_hash_is_of_unparsed_code_too() -> None:
    """`ast.unparse` writes the same tree down in its own way: an independent proof that writing decides nothing."""
    for file in sorted(Path(fingerprints.__file__).parent.glob("*.py")):
        source = file.read_bytes()
        assert fingerprints.of_code(ast.unparse(ast.parse(source)).encode()) == fingerprints.of_code(source), file


def test_what_is_no_python_counts_by_its_bytes() -> None:
    broken = [b"def (", b"\x00", b"\xff\xfe", b"print 1"]
    assert len({fingerprints.of_code(source) for source in broken}) == len(broken)


def test_code_of_all_methods_and_of_each_have_fingerprints_apart() -> None:
    ecc, paper, uniform = (registry.get(name) for name in ("ecc", "ecc-paper", "uniform"))
    assert fingerprints.method_fingerprint(ecc) == fingerprints.method_fingerprint(paper)  # one package
    assert fingerprints.method_fingerprint(ecc) != fingerprints.method_fingerprint(uniform)
    of_methods = {fingerprints.method_fingerprint(ecc), fingerprints.method_fingerprint(uniform)}
    assert fingerprints.code_fingerprint() not in of_methods


def test_a_third_partys_module_counts_alone_and_a_package_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below site-packages lies much else."""
    for name in ("lone_guest.py", "other.py", "guest_package/__init__.py", "guest_package/part.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("class Guest: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    lone, packaged = (importlib.import_module(name).Guest() for name in ("lone_guest", "guest_package"))
    before = fingerprints.method_fingerprint(lone), fingerprints.method_fingerprint(packaged)
    (tmp_path / "other.py").write_text("changed = 1\n")
    assert (fingerprints.method_fingerprint(lone), fingerprints.method_fingerprint(packaged)) == before
    (tmp_path / "guest_package/part.py").write_text("changed = 1\n")
    assert fingerprints.method_fingerprint(lone) == before[0] and fingerprints.method_fingerprint(packaged) != before[1]
    (tmp_path / "lone_guest.py").write_text("class Guest:\n    changed = 1\n")
    assert fingerprints.method_fingerprint(lone) != before[0]

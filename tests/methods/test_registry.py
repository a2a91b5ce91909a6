"""Which methods there are."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from methods import registry
from methods.contract import Method, Outcome, Properties, Task
from shared.errors import BadInput


class Guest(Method):
    """A method of someone else's."""

    name, title, paper = "guest", "Guest", "Nobody, 2020"

    def run(self, task: Task) -> Outcome:
        return Outcome(task.copy_of_dense())


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_built_in_methods_can_be_made_and_describe_themselves(name: str) -> None:
    method = registry.get(name)
    assert isinstance(method, Method)
    assert method.name == name
    assert method.title and method.paper
    assert method.properties is None or isinstance(method.properties, Properties)
    assert method is not registry.get(name)  # no state is shared


def test_only_the_dense_control_does_not_compress() -> None:
    assert [name for name in registry.names() if not registry.get(name).compresses] == ["dense"]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"methods out of ecc, .*got 'eec'; try python -m bench methods"):
        registry.get("eec")


def test_third_parties_are_found_and_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("someone_else")
    package.Guest = Guest  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "someone_else", package)
    points = [EntryPoint(name, "someone_else:Guest", registry.GROUP) for name in ("guest", "dense", "a-guest")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "bench.methods" else [])
    assert registry.names() == (*registry.BUILT_IN, "a-guest", "guest")
    assert type(registry.get("guest")) is Guest
    assert type(registry.get("dense")) is not Guest


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no_such_package:Method", "ModuleNotFoundError"),
        ("json:NoSuchMethod", "AttributeError"),
        ("json", "AttributeError"),
        ("broken_package:Method", "RuntimeError: two lines"),
    ],
)
def test_a_broken_third_party_is_refused_by_name(
    value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text('raise RuntimeError("two\\nlines")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("guest", value, registry.GROUP)])
    with pytest.raises(BadInput) as caught:
        registry.get("guest")
    message = str(caught.value)
    assert "'guest'" in message and value in message and words in message and "\n" not in message


def test_a_broken_built_in_is_no_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN, "ecc", "no_such_package:ECC")
    with pytest.raises(ModuleNotFoundError):
        registry.get("ecc")


def test_listing_names_needs_no_torch() -> None:
    code = "import sys, methods.registry as r; r.names(); print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

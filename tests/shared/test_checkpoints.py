"""A state comes back as it was, with the ledger's counts and the time that was spent."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared import checkpoints
from shared.checkpoints import Checkpoints
from shared.ledger import Ledger

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NESTED = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(st.dictionaries(st.text(max_size=5), NESTED, max_size=4))
def test_json_values_come_back(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    kept = Checkpoints(tmp_path_factory.mktemp("kept"), every_s=0)
    kept.save("a", lambda: state, Ledger(1))
    assert kept.load("a", Ledger(1)) == state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16])
def test_tensors_come_back_in_every_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    kept, tensor = Checkpoints(tmp_path, every_s=0), (torch.randn(3, 4, 2, 2) * 2).to(dtype)
    nested = {"a": [tensor, {"b": tensor[0, 0]}], "again": tensor, "last": tensor.to(memory_format=torch.channels_last)}
    kept.save("a", lambda: nested, Ledger(1))
    again = kept.load("a", Ledger(1))
    assert again is not None
    for found, expected in (
        (again["a"][0], tensor),
        (again["a"][1]["b"], tensor[0, 0]),
        (again["again"], tensor),
        (again["last"], tensor),
    ):
        assert found.dtype == dtype and torch.equal(found, expected)


def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / os.fsdecode(b"\xe9"), every_s=0)
    kept.save("a", lambda: {"x": torch.ones(2)}, Ledger(1))
    again = kept.load("a", Ledger(1))
    assert again is not None and torch.equal(again["x"], torch.ones(2))


def test_infinity_and_long_floats_survive(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, every_s=0)
    kept.save("a", lambda: {"x": [math.inf, 0.1 + 0.2, 1e-320]}, Ledger(1))
    assert kept.load("a", Ledger(1)) == {"x": [math.inf, 0.1 + 0.2, 1e-320]}


def test_the_ledger_counts_on_from_the_state(tmp_path: Path) -> None:
    kept, ledger = Checkpoints(tmp_path, every_s=0), Ledger(9, 4, 30, 20)
    kept.save("one", lambda: {}, ledger)
    ledger.spend_iteration()
    kept.save("two", lambda: {}, ledger)
    fresh = Ledger(9, 1, 1, 1)
    assert kept.load("none", fresh) is None and fresh.training_iterations == 1
    assert kept.load("two", fresh) == {} and fresh == Ledger(9, 5, 30, 20)
    assert kept.load("one", fresh) == {} and fresh == Ledger(9, 4, 30, 20)


def test_a_state_is_made_only_when_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, made = 100.0, []

    def state() -> dict[str, Any]:
        made.append(now)
        return {"now": now}

    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    kept = Checkpoints(tmp_path, every_s=60)
    for now in (110.0, 159.0, 160.0, 170.0, 219.0, 221.0):  # noqa: B007 (read by the clock)
        kept.save("a", state, Ledger(1))
    assert made == [160.0, 221.0]
    assert kept.load("a", Ledger(1)) == {"now": 221.0}
    Checkpoints(None, every_s=0).save("a", state, Ledger(1))
    assert made == [160.0, 221.0] and Checkpoints().load("a", Ledger(1)) is None


def test_seconds_before_the_stop_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    kept = Checkpoints(tmp_path, every_s=0)
    now = 1030.0
    kept.save("a", lambda: {}, Ledger(1))
    now = 1050.0
    kept.save("b", lambda: {}, Ledger(1))
    now = 5000.0
    again = Checkpoints(tmp_path, every_s=0)
    assert again.elapsed_s == 0
    for name in ("a", "b", "a"):  # the later state decides, whatever is asked last
        again.load(name, Ledger(1))
    now = 5001.0
    assert again.elapsed_s == 51.0


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    kept, ledger = Checkpoints(tmp_path, every_s=0), Ledger(9, 4)
    kept.save("a b", lambda: {"x": torch.ones(3)}, ledger)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    fresh = Ledger(9)
    assert kept.load("a b", fresh) is None and fresh == Ledger(9)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"a": object()}, "got object at '/a'"),
        ({"a": {1: 2}}, "expected names as keys"),
        ({"a": ["tensor:x"]}, "does not begin with"),
    ],
)
def test_what_cannot_be_kept_is_refused(state: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=told):
        Checkpoints(tmp_path, every_s=0).save("a", lambda: state, Ledger(1))


@pytest.mark.parametrize("name", ["", "A", "../a", "a/b", "a_b", "ä", " a"])
def test_names_that_are_no_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        Checkpoints(tmp_path, every_s=0).save(name, dict, Ledger(1))

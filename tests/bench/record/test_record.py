"""Records hold what a run can have; a file that holds something else is named in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.record import model as record
from bench.record.model import RECORD_FILE, Record
from shared.errors import BadInput

READING = {"amount": 0.0048, "interval": [0.0048, 0.0048], "flags": [], "reference": None, "detail": None}
WHOLE: dict[str, Any] = {
    "schema_version": 3,
    "key": "0123456789abcdef",
    "method": "uniform",
    "title": "Uniform",
    "paper": "control",
    "network": {"name": "mobilenet", "num_classes": 10},
    "dataset": "fashion-mnist",
    "score": "top-1 accuracy",
    "platform": {
        "name": "1080ti",
        "source": "simulated",
        "unit": "J",
        "meter": "simulator",
        "calibration": "v1",
        "host": None,
        "inference_batch": 64,
        "input_shape": [1, 28, 28],
    },
    "protocol": {
        "name": "smoke",
        "iterations": 60,
        "fine_tune_iterations": 10,
        "batch_size": 32,
        "learning_rate": 0.002,
        "budgets": [0.4],
        "seeds": [0],
        "search_images": 64,
        "minimum_short_term_iterations": 1,
        "episodes": 8,
        "stages": 2,
    },
    "seed": 0,
    "budget": {"fraction": 0.4, "amount": 0.005, "dense_reading": 0.0125, "dense_estimate": 0.0126},
    "status": "ok",
    "reason": None,
    "dense_accuracy": 0.92,
    "landing": {
        "widths": [6, 10],
        "estimate": 0.0049,
        "before": READING | {"amount": 0.0051},
        "after": READING,
        "removed_channels": 2,
        "search_accuracy_before": 0.7,
        "search_accuracy_after": 0.6,
    },
    "measures": {
        "widths": [5, 9],
        "upper_bounds": [8, 16],
        "estimate": 0.0047,
        "reading": 0.0048,
        "interval": [0.0048, 0.0048],
        "flags": [],
        "reference": None,
        "detail": None,
        "parameters": 400,
        "macs": 90000,
        "accuracy_before": 0.6,
        "accuracy_after": 0.85,
    },
    "cost": {
        "training_iterations": 60,
        "search_samples": 0,
        "energy_queries": 9,
        "landing_readings": 3,
        "fine_tune_iterations": 10,
        "method_s": 1.5,
        "fine_tune_s": 0.5,
        "distillation_step_s": 0.02,
        "forward_s_per_image": 0.0001,
    },
    "energy_fit": {
        "kind": "bilinear",
        "relative_error": 0.03,
        "skill": 0.1,
        "dense_relative_error": 0.01,
        "samples": 1000,
        "noise": None,
    },
    "local_fit": None,
    "fingerprints": {"dataset": "abc"},
    "notes": {},
    "trace": {"energy": [1.0, None]},
    "environment": {},
    "network_sha256": None,
}


def changed(place: str, value: object) -> str:
    """The record as JSON with another value at `place`."""
    document = json.loads(json.dumps(WHOLE))
    *folders, name = place.split(".")
    parent = document
    for folder in folders:
        parent = parent[folder]
    assert name in parent
    parent[name] = value
    return json.dumps(document)


def told(content: str | bytes, folder: Path) -> str:
    """What is said of a record file with that content: a line with its name."""
    file = folder / RECORD_FILE
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput) as caught:
        record.read(folder)
    message = str(caught.value)
    assert message.startswith("expected a record ") and str(file) in message and "; try " in message
    assert message.isprintable(), message  # a line
    return message


def test_a_record_reads_back_byte_for_byte(tmp_path: Path) -> None:
    first = Record.model_validate_json(json.dumps(WHOLE))
    (tmp_path / RECORD_FILE).write_bytes(record.to_json(first))
    again = record.read(tmp_path)
    assert again == first and record.to_json(again) == record.to_json(first)
    assert json.loads(record.to_json(first)) == WHOLE | {"protocol": WHOLE["protocol"] | plain_protocol(first)}


def plain_protocol(of: Record) -> dict[str, Any]:
    """The protocol's fields with their defaults, which files may leave out."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(of.protocol).items()}


AMOUNTS = ("budget.amount", "budget.dense_reading", "landing.before.amount", "measures.reading", "measures.estimate")
SHARES = ("dense_accuracy", "measures.accuracy_before", "measures.accuracy_after", "landing.search_accuracy_after")
COUNTS = ("measures.macs", "cost.training_iterations", "landing.removed_channels", "cost.landing_readings", "seed")
NUMBERS = (*AMOUNTS, *SHARES, *COUNTS, "cost.method_s", "energy_fit.skill")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("place", [*NUMBERS, "trace.energy", "notes", "landing.before.interval"])
def test_what_is_no_number_is_named(place: str, constant: str, tmp_path: Path) -> None:
    message = told(
        changed(place, "HERE").replace('"HERE"', f"[{constant}]" if "." not in place else constant), tmp_path
    )
    assert f"no JSON ({constant} is no number that a run can have)" in message


@pytest.mark.parametrize("place", NUMBERS)
def test_a_number_too_large_for_a_float_is_named(place: str, tmp_path: Path) -> None:
    assert f"at {place}" in told(changed(place, "HERE").replace('"HERE"', "1e999"), tmp_path)


@pytest.mark.parametrize(
    ("places", "values"),
    [
        (AMOUNTS, (0.0, -1e-9, "much", "0.1", None, True)),
        (SHARES, (7719, 1.0000001, -0.1, 85)),
        (COUNTS, (-1, 1.5, "9", True)),
        (("cost.method_s", "cost.forward_s_per_image"), (-1e-9,)),
        (("platform.unit",), ("Wh", "j")),
        (("platform.source",), ("guessed",)),
        (("status",), ("fine",)),
        (("platform.inference_batch",), (0,)),
        (("landing.before.interval", "measures.interval"), ([0.1], [0.1, 0.2, 0.3])),
    ],
)
def test_a_value_that_no_run_has_is_named_with_its_place(
    places: tuple[str, ...], values: tuple[object, ...], tmp_path: Path
) -> None:
    for place in places:
        for value in values:
            assert f" at {place}" in told(changed(place, value), tmp_path), value


@given(accuracy=st.floats(allow_nan=False, allow_infinity=False), macs=st.integers())
def test_accuracies_are_shares_and_counts_are_not_negative(accuracy: float, macs: int) -> None:
    document = json.loads(changed("measures.accuracy_after", accuracy))
    document["measures"]["macs"] = macs
    try:
        Record.model_validate_json(json.dumps(document))
    except ValueError:
        assert not (0 <= accuracy <= 1 and macs >= 0)
    else:
        assert 0 <= accuracy <= 1 and macs >= 0


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        ([9, 9], "a width is above its upper bound"),
        ([0, 9], "at measures.widths.0"),
        ([-3, 9], "at measures.widths.0"),
        ([5], "as many widths as upper bounds"),
        ([5, 9, 1], "as many widths as upper bounds"),
    ],
)
def test_widths_that_no_network_has_are_named(widths: list[int], words: str, tmp_path: Path) -> None:
    assert words in told(changed("measures.widths", widths), tmp_path)


def test_a_run_without_a_miss_has_measures(tmp_path: Path) -> None:
    assert "a run without a miss has measures" in told(changed("measures", None), tmp_path)


@pytest.mark.parametrize("schema", [1, 2, 99, "3", "a\nb", True, 3.5, [3]])
def test_another_schema_is_told_from_damage(schema: object, tmp_path: Path) -> None:
    message = told(changed("schema_version", schema), tmp_path)
    assert message.startswith("expected a record of schema 3 in ") and f"got schema {schema!r}" in message
    assert message.endswith("; try the command that made it once more, which repeats the run")


def test_a_record_without_a_schema_is_none(tmp_path: Path) -> None:
    document = {name: value for name, value in WHOLE.items() if name != "schema_version"}
    assert "got JSON without a schema_version; " in told(json.dumps(document), tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"\x00" * 9,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"{} {}",
        json.dumps(WHOLE).encode()[:-9],
    ],
)
def test_what_is_not_json_is_named(content: bytes, tmp_path: Path) -> None:
    assert "got no JSON (" in told(content, tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}", '{"schema_version": 3}'])
def test_json_of_something_else_is_named(content: str, tmp_path: Path) -> None:
    told(content, tmp_path)


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    document = WHOLE | {"guess": 1}
    assert " at guess" in told(json.dumps(document), tmp_path)


@pytest.mark.parametrize("make", [lambda file: None, lambda file: file.mkdir()])
def test_a_file_that_cannot_be_read_is_named(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / RECORD_FILE)
    with pytest.raises(BadInput) as caught:
        record.read(tmp_path)
    assert str(caught.value).startswith(f"expected a record in {tmp_path / RECORD_FILE}, got ")

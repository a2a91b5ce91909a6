"""A table comes back from its file as it was, and a file that is none is refused with a reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from methods.netadapt import table_file
from methods.netadapt.readings import table_from_platform
from methods.netadapt.table import LookupTable
from shared import platforms
from shared.energy import BilinearModel
from shared.errors import BadInput
from shared.networks import Structure, build, structure


@pytest.fixture(scope="module")
def alexnet() -> Structure:
    with torch.device("meta"):
        return structure(build("alexnet", width_multiplier=0.25))


@pytest.fixture
def tables(alexnet: Structure) -> dict[str, LookupTable]:
    bounds = alexnet.position_bounds
    terms = tuple((j, j + 1) for j in range(len(bounds) - 1))
    coefficients = torch.rand(len(terms), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = BilinearModel(torch.tensor(1 / 3).double(), coefficients, terms, tuple(map(float, bounds)), "s")
    return {
        "model": LookupTable.from_model(model, bounds, platform="tx2"),
        "platform": table_from_platform(platforms.get("1080ti"), alexnet, batch=2),
    }


@pytest.mark.parametrize("name", ["model", "platform"])
def test_comes_back_to_the_bit(name: str, tables: dict[str, LookupTable], alexnet: Structure, tmp_path: Path) -> None:
    table, path = tables[name], tmp_path / "below" / "table.json"
    table_file.save(table, path)
    again = table_file.load(path)
    told = ("source", "platform", "batch", "unit", "position_bounds")
    assert [getattr(again, field) for field in told] == [getattr(table, field) for field in told]
    assert [entry.operations for entry in again.entries] == [entry.operations for entry in table.entries]
    draw = np.random.default_rng(0)
    rows = alexnet.positions(draw.integers(1, np.array(alexnet.upper_bounds) + 1, size=(200, len(alexnet.units))))
    assert torch.equal(again(rows), table(rows))


def test_the_file_says_what_it_holds(tables: dict[str, LookupTable], tmp_path: Path) -> None:
    for name, table in tables.items():
        table_file.save(table, tmp_path / name)
    of_model, of_platform = (json.loads((tmp_path / name).read_text()) for name in ("model", "platform"))
    told = ("schema_version", "source", "platform", "batch", "unit")
    assert [of_model[field] for field in told] == [1, "energy model", "tx2", None, "s"]
    assert [of_platform[field] for field in told] == [1, "simulated", "1080ti", 2, "J"]
    assert "features.0" in of_platform["entries"][0]["operations"]


def spoiled(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def spoil(text: str) -> str:
        values = json.loads(text)
        change(values)
        return json.dumps(values)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text[: len(text) // 2], "no JSON"),
        (lambda text: "", "no JSON"),
        (lambda text: "[1]", "got version None"),
        (lambda text: "{}", "got version None"),
        (spoiled(lambda file: file.update(schema_version=2)), "expected schema version 1 .* got version 2"),
        (spoiled(lambda file: file.pop("unit")), "Field required at unit"),
        (spoiled(lambda file: file.update(extra=1)), "at extra"),
        (spoiled(lambda file: file["entries"][1].update(energy=["a"])), r"at entries\.1\.energy\.0"),
        (spoiled(lambda file: file["entries"][1]["energy"].__setitem__(3, float("nan"))), r"finite number at entries"),
        (spoiled(lambda file: file["entries"][1]["energy"].pop()), "80 values for 81 grid points in entry 1"),
        (spoiled(lambda file: file["entries"][1]["grids"].pop()), "1 grids for 2 positions in entry 1"),
        (spoiled(lambda file: file["entries"][1]["grids"][0].reverse()), "does not rise"),
        (spoiled(lambda file: file["entries"][1]["grids"][0].__setitem__(2, 1.0)), "does not rise"),
        (spoiled(lambda file: file["entries"][1]["grids"][0].clear()), "does not rise"),
        (spoiled(lambda file: file["entries"][1]["grids"][0].pop()), "does not rise from 1 to"),
        (spoiled(lambda file: file["entries"][1].update(positions=[1, 8])), r"positions \(1, 8\) for 7 units"),
        (spoiled(lambda file: file["entries"][1].update(positions=[0, 1])), r"positions \(0, 1\)"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(
    spoil: Callable[[str], str], told: str, tables: dict[str, LookupTable], tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    table_file.save(tables["platform"], path)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(BadInput, match=told) as caught:
        table_file.load(path)
    message = str(caught.value)
    assert str(path) in message and message.endswith("try making the table anew") and "\n" not in message


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        table_file.load(tmp_path / "none.json")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="no JSON"):
        table_file.load(tmp_path / "bytes")

"""The file of a lookup table holds all that the table holds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from methods.netadapt import table_file
from methods.netadapt.readings import table_from_platform
from methods.netadapt.table import Entry, LookupTable
from shared import platforms
from shared.energy import BilinearModel
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
def test_whoever_reads_the_file_has_the_table_to_the_bit(
    name: str, tables: dict[str, LookupTable], alexnet: Structure, tmp_path: Path
) -> None:
    table, path = tables[name], tmp_path / "below" / "table.json"
    table_file.save(table, path)
    values = json.loads(path.read_text())
    assert values.pop("schema_version") == 2
    entries = [
        Entry(
            tuple(entry.pop("positions")),
            tuple(map(np.array, entry.pop("grids"))),
            np.array(entry.pop("energy")),
            tuple(entry.pop("operations")),
        )
        for entry in values["entries"]
    ]
    again = LookupTable(**values | {"entries": tuple(entries), "position_bounds": tuple(values["position_bounds"])})
    told = ("source", "platform", "batch", "unit", "position_bounds")
    assert [getattr(again, field) for field in told] == [getattr(table, field) for field in told]
    assert [entry.operations for entry in again.entries] == [entry.operations for entry in table.entries]
    draw = np.random.default_rng(0)
    rows = alexnet.positions(draw.integers(1, np.array(alexnet.upper_bounds) + 1, size=(200, len(alexnet.units))))
    assert torch.equal(again(rows), table(rows))
    assert not any(values["entries"])  # no fields but those above


def test_the_file_says_what_it_holds(tables: dict[str, LookupTable], tmp_path: Path) -> None:
    for name, table in tables.items():
        table_file.save(table, tmp_path / name)
    of_model, of_platform = (json.loads((tmp_path / name).read_text()) for name in ("model", "platform"))
    told = ("schema_version", "source", "platform", "batch", "unit")
    assert [of_model[field] for field in told] == [2, "energy model", "tx2", None, "s"]
    assert [of_platform[field] for field in told] == [2, "simulated", "1080ti", 2, "J"]
    assert "features.0" in of_platform["entries"][0]["operations"]


def test_a_number_that_is_none_is_not_written(tables: dict[str, LookupTable], tmp_path: Path) -> None:
    tables["model"].entries[0].energy[...] = np.nan
    with pytest.raises(ValueError, match="JSON compliant"):
        table_file.save(tables["model"], tmp_path / "table.json")
    assert not list(tmp_path.iterdir())

"""`bench.load_records`: runs as a frame, from a store and from committed records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import bench
from shared.errors import BadInput

RECORDS = Path(__file__).parents[3] / "reports" / "records"
PAGE = "mobilenet-fashion-mnist-1080ti-simulated-quick"
NAMED = {
    *("method", "seed", "status", "dataset", "network.name", "platform.name", "platform.source", "protocol.name"),
    *("budget.fraction", "budget.amount", "measures.estimate", "measures.reading"),
    *("measures.accuracy_before", "measures.accuracy_after"),
}


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return bench.load_records(RECORDS)


def test_committed_records_are_rows_of_their_own_figures(committed: pd.DataFrame) -> None:
    files = sorted(RECORDS.glob("*/*.json"))
    assert len(files) > 50 and sorted(committed["file"]) == files  # the study's data beside them are no record
    assert set(committed) >= NAMED
    assert committed["page"].tolist() == [path.parent.name for path in committed["file"]]
    for _, run in committed.iterrows():
        record = json.loads(run["file"].read_bytes())
        assert (run["method"], run["seed"], run["status"]) == (record["method"], record["seed"], record["status"])
        if record["budget"] is None:
            assert run["budget"] == "dense" and pd.isna(run["budget.amount"])
        else:
            assert run["budget.amount"] == record["budget"]["amount"]
        if record["measures"] is None:
            assert pd.isna(run["measures.reading"]) and pd.isna(run["measures.macs"])
        else:
            assert run["measures.reading"] == record["measures"]["reading"]
            assert run["measures.macs"] == record["measures"]["macs"]


def test_the_folder_of_reports_and_of_one_page_will_do(committed: pd.DataFrame) -> None:
    assert len(bench.load_records(RECORDS.parent)) == len(committed)
    of_page = bench.load_records(str(RECORDS / PAGE))
    assert set(of_page["page"]) == {PAGE} and len(of_page) == (committed["page"] == PAGE).sum()


def test_a_store_is_read_alike(committed: pd.DataFrame, tmp_path: Path) -> None:
    for file in (RECORDS / PAGE).glob("*.json"):
        place = tmp_path / PAGE / file.stem / "record.json"
        place.parent.mkdir(parents=True)
        shutil.copy(file, place)
    draft = tmp_path / PAGE / ".draft-x" / "record.json"
    draft.parent.mkdir()
    draft.write_text("{")
    stored = bench.load_records(tmp_path)
    same = committed[committed["page"] == PAGE].dropna(axis=1, how="all").drop(columns="file").reset_index(drop=True)
    pd.testing.assert_frame_equal(stored[list(same)], same)
    assert all(file.name == "record.json" for file in stored["file"])


def test_misses_have_counts_that_stay_whole_numbers(committed: pd.DataFrame) -> None:
    assert committed["measures.parameters"].dtype == committed["cost.training_iterations"].dtype == "Int64"
    assert committed["measures.reading"].dtype == committed["budget.amount"].dtype == "float64"
    assert committed["ok"].dtype == bool and (committed["ok"] == (committed["status"] == "ok")).all()


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="python -m bench run"):
        bench.load_records(tmp_path)

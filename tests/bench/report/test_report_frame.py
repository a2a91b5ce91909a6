"""One frame of runs: what stands in it, what may share a page, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.record.model import Budget, Record
from bench.report.frame import checked, collect, file_name, frame, is_control
from bench.report.provenance import facts
from methods import registry
from shared.errors import BadInput

Make = Callable[..., Record]


def test_pages_are_named_after_what_their_columns_share(make_record: Make) -> None:
    there = make_record().platform
    records = [
        make_record("ecc"),
        make_record("amc"),
        make_record(platform=there.model_copy(update={"name": "tx2"})),
        make_record(dataset="imagenet"),
    ]
    assert list(checked(records)["page"].unique()) == [
        "mobilenet-fashion-mnist-1080ti-simulated-quick",
        "mobilenet-fashion-mnist-tx2-simulated-quick",
        "mobilenet-imagenet-1080ti-simulated-quick",
    ]


def test_simulated_never_shares_a_page_with_measured(make_record: Make) -> None:
    simulated = make_record("ecc")
    meter = {"source": "measured", "meter": "nvml", "calibration": "driver 555"}
    measured = make_record("amc", platform=simulated.platform.model_copy(update=meter))
    runs = checked([simulated, measured])
    assert [(name.rsplit("-", 2)[1], list(page["method"])) for name, page in runs.groupby("page")] == [
        ("measured", ["amc"]),
        ("simulated", ["ecc"]),
    ]


def test_order_is_that_of_a_table_whatever_the_order_of_records(quick_runs: list[Record], make_record: Make) -> None:
    runs = frame(reversed([*quick_runs, make_record("zebra"), make_record("aardvark")]))
    assert list(runs["method"].unique()) == ["ecc", "netadapt", "amc", "aardvark", "zebra", "dense", "uniform"]
    assert list(runs.loc[runs["method"] == "ecc", "budget"]) == ["0.25", "0.35"]
    assert set(runs.loc[runs["control"], "method"]) == {"dense", "uniform"}


def test_a_row_is_its_record(quick_runs: list[Record]) -> None:
    runs = frame(quick_runs)
    assert sorted(runs.index) == list(range(len(quick_runs)))
    for place, row in runs.iterrows():
        record = quick_runs[place]
        assert row["record"] is record and row["network.name"] == "mobilenet" and row["protocol.iterations"] == 800
        assert row["ok"] == (record.status == "ok") and row["platform.input_shape"] == (1, 28, 28)
        assert row["cost.plain_s"] == pytest.approx(800 * 0.0625 + 0.0002 * record.cost.search_samples)
        assert row["environment.commit"] == "0123456789abcdef"
        if record.measures is None:
            assert row.filter(like="measures.").isna().all()
        else:
            assert row["measures.widths"] == record.measures.widths
    assert not {"trace", "notes"} & set(runs)  # they are in the record


def test_what_no_run_has_is_a_column_still(make_record: Make) -> None:
    alone = frame([make_record("dense", None, cost=None)])
    assert alone["budget"].tolist() == ["dense"]
    for column in ("budget.fraction", "landing.estimate", "cost.plain_s", "cost.training_iterations", "landing.after"):
        assert alone[column].isna().all(), column
    assert set(frame([])) >= {"page", "network.name", "measures.reading", "record"}


def test_controls_are_those_without_properties_of_a_publication() -> None:
    controls = {name for name in registry.BUILT_IN if is_control(name)}
    assert controls >= {"dense", "uniform", "uniform-gradual", "random", "magnitude"}
    assert not controls & {"ecc", "ecc-paper", "netadapt", "netadapt-original", "amc"}
    assert not is_control("somebody-elses")  # nor does it have to be installed


@pytest.mark.parametrize("fingerprint", ["dataset", "dense_weights", "profile", "energy_model"])
def test_mixed_fingerprints_are_refused_naming_the_runs(make_record: Make, fingerprint: str) -> None:
    other = make_record().fingerprints | {fingerprint: "other"}
    records = [make_record("ecc"), make_record("netadapt"), make_record("amc", 0.25, 2, fingerprints=other)]
    with pytest.raises(BadInput) as caught:
        checked(records)
    message = str(caught.value)
    assert f"one fingerprint of {fingerprint.replace('_', ' ')}" in message
    assert '"other" in amc at 0.25 seed 2' in message
    assert "ecc at 0.35 seed 0, netadapt at 0.35 seed 0" in message
    assert "\n" not in message


def test_a_missing_fingerprint_differs_and_further_differences_are_named(make_record: Make) -> None:
    records = [make_record("ecc"), make_record("amc", fingerprints={"dataset": "d2"})]
    with pytest.raises(
        BadInput, match=r"fingerprint of dataset.*as well: fingerprint of dense weights, fingerprint of energy model"
    ):
        checked(records)


def test_code_may_differ_as_long_as_its_results_do_not(make_record: Make) -> None:
    known = make_record().fingerprints
    newer = make_record("amc", fingerprints=known | {"code": "c2", "results": "1"})
    page = checked([make_record("ecc"), newer])
    assert dict(facts(page))["fingerprint of code"] == "`c1` (ecc); `c2` (amc)"
    with pytest.raises(BadInput, match=r'one fingerprint of results .*"1" in ecc.*"2" in amc'):
        checked([make_record("ecc"), make_record("amc", fingerprints=known | {"results": "2"})])


def test_a_method_s_own_revision_is_one_on_a_page(make_record: Make) -> None:
    known = make_record().fingerprints
    newer = [make_record("amc", seed=seed, fingerprints=known | {"results": "1.2"}) for seed in (0, 1)]
    page = checked([make_record("ecc"), *newer])
    assert dict(facts(page))["fingerprint of results"] == "`1` (ecc); `1.2` (amc)"
    with pytest.raises(BadInput, match=r"one revision of amc in .*, got 1 and 1\.2"):
        checked([make_record("ecc"), make_record("amc", seed=2), *newer])
    with pytest.raises(BadInput, match=r"one fingerprint of results"):
        checked([make_record("ecc"), make_record("amc", fingerprints=known | {"results": "2.2"})])


@pytest.mark.parametrize(
    ("changes", "aspect"),
    [
        ({"inference_batch": 1}, "platform inference batch"),
        ({"calibration": "v2"}, "platform calibration"),
        ({"meter": "replay"}, "platform meter"),
        ({"input_shape": (3, 224, 224)}, "platform input shape"),
    ],
)
def test_a_platform_must_be_the_same_in_all_runs(make_record: Make, changes: dict[str, object], aspect: str) -> None:
    other = make_record("amc", platform=make_record().platform.model_copy(update=changes))
    with pytest.raises(BadInput, match=aspect):
        checked([make_record("ecc"), other])


def test_a_protocol_must_be_the_same_but_for_the_runs_it_chooses(make_record: Make) -> None:
    protocol = make_record().protocol
    checked([make_record("ecc"), make_record("amc", 0.5, 7, protocol=replace(protocol, seeds=(7,), budgets=(0.5,)))])
    with pytest.raises(BadInput, match="one protocol learning rate"):
        checked([make_record("ecc"), make_record("amc", protocol=replace(protocol, learning_rate=0.1))])


def test_a_run_that_is_there_twice_is_refused(make_record: Make) -> None:
    with pytest.raises(BadInput, match=r"ecc at 0\.35 seed 0 twice .*keys first and second"):
        checked([make_record(key="first"), make_record(key="second")])


def test_a_column_has_one_budget(make_record: Make) -> None:
    other = Budget(fraction=0.35, amount=0.005, dense_reading=0.0142857, dense_estimate=0.0143)
    with pytest.raises(BadInput, match=r"one budget per column, got 0\.004375 and 0\.005 for 0\.35 of dense"):
        checked([make_record("ecc"), make_record("amc", budget=other)])


@pytest.mark.parametrize("name", ["../../etc", "a b", "", "a/b", ".hidden", 3])
def test_names_that_are_no_file_names_are_refused(make_record: Make, name: object) -> None:
    with pytest.raises(BadInput, match="a network whose name"):
        checked([make_record(network={"name": name})])
    if isinstance(name, str):
        with pytest.raises(BadInput, match="a method whose name"):
            checked([make_record(method=name, title="x")])


def test_no_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least one record"):
        checked([])
    (tmp_path / "energy-models.json").write_text("{}")
    with pytest.raises(BadInput, match="run folders with a record"):
        collect(tmp_path)


def test_file_names_tell_runs_apart(make_record: Make) -> None:
    runs = [make_record("ecc", 0.35), make_record("ecc", 0.3514785, 1), make_record("dense", None, 2)]
    assert [file_name(run) for run in runs] == ["ecc-0.35-0.json", "ecc-0.351479-1.json", "dense-dense-2.json"]


def test_collect_reads_all_runs_but_drafts(quick_runs, save_record, tmp_path: Path) -> None:
    saved = [save_record(record, tmp_path) for record in quick_runs]
    draft = tmp_path / "plan" / ".draft-x"
    draft.mkdir()
    (draft / "record.json").write_text("{")
    collected = collect(tmp_path)
    assert sorted(file for _, file in collected) == sorted(file for _, file in saved)
    assert {record.key: record for record, _ in collected} == {record.key: record for record in quick_runs}


def test_every_damaged_record_is_named(quick_runs, save_record, tmp_path: Path) -> None:
    files = [save_record(record, tmp_path)[1] for record in quick_runs]
    whole = json.loads(files[2].read_text())
    files[0].write_text('{"schema_version": 1')
    files[2].write_text(json.dumps(whole | {"seed": "three"}))
    with pytest.raises(BadInput) as caught:
        collect(tmp_path)
    message = str(caught.value)
    assert str(files[0]) in message and str(files[2]) in message and str(files[1]) not in message
    assert "at seed" in message and "\n" not in message

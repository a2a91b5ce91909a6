"""Committed reports: the check finds whatever is edited by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from bench.record.model import Record
from bench.report import check, collect, page, plots, publish, regenerate
from bench.report.text import Unit
from shared.errors import BadInput

Make = Callable[..., Record]
PAGE = "mobilenet-fashion-mnist-1080ti-simulated-quick"


@pytest.fixture(scope="module", autouse=True)
def _draw_once() -> Iterator[None]:
    """The plots of a page are drawn once for all tests here: they depend on its runs alone (tested with the plots)."""
    drawn: dict[str, dict[str, bytes]] = {}

    def draw(runs: pd.DataFrame, unit: Unit) -> dict[str, bytes]:
        key = runs["record"].map(repr).str.cat()
        if key not in drawn:
            drawn[key] = plots.draw(runs, unit)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "draw", draw)
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, quick_runs_of_module, save_of_module) -> Path:
    """A reports folder with one page, made from stored runs; not to be changed."""
    root = tmp_path_factory.mktemp("published")
    for record in quick_runs_of_module:
        save_of_module(record, root / "runs")
    reports = root / "reports"
    assert publish(collect(root / "runs"), reports) == [reports / f"{PAGE}.md"]
    return reports


@pytest.fixture
def reports(published: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(published, tmp_path / "reports"))


def test_published_pages_agree_with_their_records(published: Path, quick_runs: list[Record]) -> None:
    assert check(published) == []
    names = {path.name for path in (published / "records" / PAGE).iterdir()}
    assert names == {f"{r.method}-{'dense' if r.budget is None else r.budget.fraction}-0.json" for r in quick_runs}
    links = (published / f"{PAGE}.md").read_text()
    assert all((published / f"records/{PAGE}/{name}").is_file() for name in names)
    assert all(f"(records/{PAGE}/{name})" in links for name in names)


def test_the_index_names_every_page(published: Path) -> None:
    text = (published / "README.md").read_text()
    assert "## Simulated joules" in text and "Measured joules" not in text
    assert f"[mobilenet on fashion-mnist, 1080ti]({PAGE}.md)" in text
    assert "| quick (ranks nothing) | ECC; NetAdapt; AMC; Dense; Uniform |" in text  # a title may hold a comma
    assert "learning-rate-" not in text


def test_check_finds_an_edited_page(reports: Path) -> None:
    markdown = reports / f"{PAGE}.md"
    markdown.write_text(markdown.read_text().replace("89.34", "91.34"))
    (problem,) = check(reports)
    assert problem.startswith(f"{PAGE}.md: line ") and "91.34" in problem and "89.34" in problem


@pytest.mark.parametrize("edit", [{"dense_accuracy": 0.99}, {"notes": {"reached": 641}}, {"trace": {"energy": [1]}}])
def test_check_finds_an_edited_record_whatever_was_edited(reports: Path, edit: dict[str, object]) -> None:
    path = reports / "records" / PAGE / "netadapt-0.25-0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    assert f"{PAGE}.md" in " ".join(check(reports))


def test_check_finds_an_edited_plot(reports: Path) -> None:
    plot = reports / f"{PAGE}-widths.svg"
    plot.write_bytes(plot.read_bytes().replace(b"M 0 ", b"M 1 ", 1))
    assert check(reports) == [f"{PAGE}-widths.svg: not the plot of its records"]


def test_check_finds_what_is_missing_and_what_is_too_much(reports: Path) -> None:
    (reports / f"{PAGE}-accuracy.svg").unlink()
    (reports / "README.md").write_text("mine\n")
    (reports / "alexnet-imagenet-tx2-measured-paper.md").write_text("made up\n")
    (reports / "learning-rate-quick.md").write_text("no page of a report\n")
    index, missing, stray = check(reports)
    assert missing.endswith("accuracy.svg: missing")
    assert index.startswith("README.md: line 1")
    assert stray == "alexnet-imagenet-tx2-measured-paper.md: no records behind it"


def test_check_finds_a_page_whose_records_are_gone(reports: Path) -> None:
    shutil.rmtree(reports / "records")
    problems = check(reports)
    assert f"{PAGE}.md: no records behind it" in problems and any(p.startswith("README.md") for p in problems)


def test_check_names_a_damaged_record(reports: Path) -> None:
    path = reports / "records" / PAGE / "ecc-0.35-0.json"
    path.write_text("{")
    (problem,) = check(reports)
    assert str(path) in problem


def test_check_names_a_record_in_anothers_place(reports: Path) -> None:
    folder = reports / "records" / PAGE
    (folder / "ecc-0.35-0.json").rename(folder / "amc-0.25-0.json")
    (problem,) = check(reports)
    assert f"that of {PAGE}/ecc-0.35-0.json" in problem


def test_check_refuses_records_that_can_not_be_compared(reports: Path) -> None:
    path = reports / "records" / PAGE / "ecc-0.35-0.json"
    whole = json.loads(path.read_text())
    whole["fingerprints"]["energy_model"] = "e2"
    path.write_text(json.dumps(whole))
    (problem,) = check(reports)
    assert '"e2" in ecc at 0.35 seed 0' in problem


def test_an_empty_folder_does_not_pass(tmp_path: Path) -> None:
    assert check(tmp_path) == ["README.md: missing", "paper.md: missing"]


def test_regenerate_mends_pages_and_takes_learning_rates_into_the_index(reports: Path) -> None:
    (reports / f"{PAGE}.md").write_text("lost\n")
    (reports / "learning-rate-quick.md").write_text("grid\n")
    assert len(check(reports)) == 2
    regenerate(reports)
    index = (reports / "README.md").read_text()
    assert check(reports) == [] and "(learning-rate-quick.md)" in index and "energy-models" not in index
    (reports / "energy-models.md").write_text("study\n")
    regenerate(reports)
    assert "(energy-models.md)" in (reports / "README.md").read_text()


def test_publishing_again_replaces_the_page_and_leaves_others(reports: Path, save_record, make_record: Make) -> None:
    runs = reports.parent / "more"
    tx2 = make_record().platform.model_copy(update={"name": "tx2", "source": "measured", "meter": "ina3221"})
    saved = [save_record(make_record("ecc"), runs), save_record(make_record("amc", platform=tx2), runs)]
    publish(saved[1:], reports)
    measured = "mobilenet-fashion-mnist-tx2-measured-quick"
    assert check(reports) == [] and (reports / f"{measured}.md").is_file()
    assert len(list((reports / "records" / PAGE).iterdir())) == 9
    index = (reports / "README.md").read_text()
    assert index.index("## Measured joules") < index.index(measured) < index.index("## Simulated joules")
    publish(saved[:1], reports)
    assert [path.name for path in (reports / "records" / PAGE).iterdir()] == ["ecc-0.35-0.json"]
    assert check(reports) == [] and not (reports / f"{PAGE}-trace-ecc.svg").exists()


def test_records_can_be_added_to_a_page(reports: Path, save_record, make_record: Make) -> None:
    runs, before = reports.parent / "more", {path.name for path in (reports / "records" / PAGE).iterdir()}
    again, new = save_record(make_record("ecc", after=0.81), runs), save_record(make_record("a-guest"), runs)
    publish([again, new], reports, add=True)
    assert {path.name for path in (reports / "records" / PAGE).iterdir()} == before | {"a-guest-0.35-0.json"}
    assert (reports / "records" / PAGE / "ecc-0.35-0.json").read_bytes() == again[1].read_bytes()
    assert check(reports) == [] and "a-guest" in (reports / f"{PAGE}.md").read_text()
    odd = save_record(make_record("amc", 0.2, fingerprints={"dataset": "d2"}), runs)
    with pytest.raises(BadInput, match="fingerprint of dataset"):
        publish([odd], reports, add=True)
    assert check(reports) == []


def test_committed_records_are_the_files_of_the_runs(reports: Path, save_record, make_record: Make) -> None:
    record, file = save_record(make_record("ecc"), reports.parent / "run")
    publish([(record, file)], reports)
    committed = reports / "records" / PAGE / "ecc-0.35-0.json"
    assert committed.read_bytes() == file.read_bytes()


def test_nothing_is_published_when_records_are_refused(save_record, make_record: Make, tmp_path: Path) -> None:
    odd = make_record("amc", fingerprints={"dataset": "d2"})
    saved = [save_record(record, tmp_path / "runs") for record in (make_record("ecc"), odd)]
    with pytest.raises(BadInput):
        publish(saved, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()

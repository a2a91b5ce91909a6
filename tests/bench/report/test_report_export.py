"""CSV read back by pandas against the records; LaTeX whose every special character is escaped."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import rank
from bench.cli import app as cli
from bench.record.model import Record
from bench.report import checked, export, frame, publish
from shared.errors import BadInput
from tests.bench.report.conftest import read_at

Make = Callable[..., Record]
Save = Callable[[Record, Path], tuple[Record, Path]]
PAGE = "mobilenet-fashion-mnist-1080ti-simulated-quick"


def read(records: list[Record], folder: Path) -> pandas.DataFrame:
    path, ranking = export.write(checked(records), "csv", folder)
    assert ranking.name == f"{path.stem}-ranking.csv"
    return pandas.read_csv(path).set_index(["method", "budget (share of dense)", "seed"])


def test_csv_has_a_row_per_run_and_unrounded_figures_with_units(quick_runs: list[Record], tmp_path: Path) -> None:
    table = read(quick_runs, tmp_path)
    assert len(table) == len(quick_runs)
    for run in quick_runs:
        if run.measures is None or run.budget is None:
            continue
        row = table.loc[run.method, run.budget.fraction, run.seed]
        assert row["simulated (J)"] == run.measures.reading and row["budget (J)"] == run.budget.amount
        assert row["after fine-tuning, top-1 accuracy (%)"] == pytest.approx(100 * run.measures.accuracy_after)
        assert row["unused (% of budget)"] == pytest.approx(0.5) and row["MACs per image"] == 1_234_567
        assert row["widths"] == " ".join(map(str, run.measures.widths))
    assert table.loc["netadapt", 0.25, 0]["reading to budget (%)"] == pytest.approx(1.3)
    assert table.loc["ecc", 0.25, 0]["overhead (ratio)"] == pytest.approx(55 / (800 * 0.0625))
    assert set(table["joules are"]) == {"simulated"} and not any("measured" in head for head in table.columns)


def test_csv_and_latex_carry_the_ranking_with_its_intervals(seeded_runs: list[Record], tmp_path: Path) -> None:
    page = checked(seeded_runs)
    _, path = export.write(page, "csv", tmp_path)
    table, expected = pandas.read_csv(path).set_index("method"), rank(page).set_index("method")
    assert list(table.index) == ["ecc", "netadapt"]
    for column in ("mean", "low", "high", "n", "misses"):
        assert table[column].tolist() == pytest.approx(expected[column].tolist())
    assert table["reason"].str.startswith("ranks need 5 seeds").all() and table["rank"].isna().all()
    text = export.latex_text(page)
    mean, low, high = (f"{100 * expected.loc['ecc', column]:.2f}" for column in ("mean", "low", "high"))
    assert f"& {mean} & {low} to {high} &" in text and "-ranking}" in text


def test_csv_keeps_misses_with_their_reason_and_empty_cells(quick_runs: list[Record], tmp_path: Path) -> None:
    missed = read(quick_runs, tmp_path).loc["amc", 0.25, 0]
    assert (
        missed["status"] == "miss"
        and missed["reason"] == "keeps at least 0.2 of each layer; E = 0.0041 J | above *any* <budget>"
    )
    assert pandas.isna(missed["simulated (J)"]) and missed["training iterations"] == 800


def test_csv_of_hardware_has_intervals_landing_and_its_own_unit(make_record: Make, tmp_path: Path) -> None:
    base = make_record()
    measures = base.measures.model_copy(update={"interval": (0.001, 0.002), "reference": 0.013})
    landing = base.landing.model_copy(
        update={"before": read_at(0.25), "after": read_at(0.125), "removed_channels": 3, "search_accuracy_after": 0.5}
    )
    platform = base.platform.model_copy(update={"source": "measured", "unit": "s"})
    row = read([make_record(platform=platform, measures=measures, landing=landing)], tmp_path).iloc[0]
    assert (row["interval from (s)"], row["interval to (s)"]) == (0.001, 0.002)
    assert (row["as compressed, measured (s)"], row["as landed, measured (s)"]) == (0.25, 0.125)
    assert row["channels removed by landing"] == 3 and row["dense network read beside it, measured (s)"] == 0.013
    assert row["search split after landing, top-1 accuracy (%)"] == 50
    assert row["seconds are"] == "measured" and not any("(J)" in head or "simulated" in head for head in row.index)


def tabulars(text: str) -> list[list[list[str]]]:
    """Cells of every tabular."""
    bodies = re.findall(r"\\begin\{tabular\}\{l(r+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    tables = []
    for aligned, body in bodies:
        lines = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r"\\")]
        tables.append([re.split(r" (?<!\\)& ", line) for line in lines])
        assert {len(line) for line in tables[-1]} == {len(aligned) + 1}
        assert [line for line in body.splitlines() if not line.endswith(r"\\")] == [
            r"\toprule",
            r"\midrule",
            r"\bottomrule",
        ]
    return tables


def test_latex_has_the_main_table_and_one_per_budget(quick_runs: list[Record], tmp_path: Path) -> None:
    (path,) = export.write(checked(quick_runs), "latex", tmp_path)
    assert path == tmp_path / f"{PAGE}.tex"
    text = path.read_text()
    main, tight, _ = tabulars(text)
    assert main[0] == [r"top-1 accuracy in \% at budget", "0.25 = 3.125 mJ", "0.35 = 4.375 mJ", "dense = 12.500 mJ"]
    assert ["AMC", "miss$^{1}$", "86.55", "--"] in main
    assert tight[0][5] == "simulated mJ" and tight[2][6] == r"+1.30 $\uparrow$"
    assert text.count(r"\caption{") == 3 == text.count("simulated joules per image")
    assert text.count("It ranks nothing.") == 3
    assert (
        r"$^{1}$ Miss, AMC at 0.25: keeps at least 0.2 of each layer; E = 0.0041 J \textbar{} above *any* \textless{}"
        in text
    )


def test_latex_escapes_what_others_named(make_record: Make) -> None:
    text = export.latex_text(checked([make_record("ecc", title="50 % & more_[x] \\input{y}")]))
    assert r"50 \% \& more\_{[}x{]} \textbackslash{}input\{y\} & 88.00" in text


@given(st.text())
def test_no_special_character_is_left_bare(text: str) -> None:
    left = re.sub(r"\\[&%$#_{}]|\\text[a-z]+\{\}|\\dots\{\}|\{[\[\]]\}|\$[^$]*\$", "", export.latex(text))
    assert not set(left) & set("\\&%$#_{}~^[]<>|\n")


def test_formats_without_a_page_or_of_another_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="records to make pages of"):
        export.write(frame([]), "csv", tmp_path)
    with pytest.raises(BadInput, match="'html'"):
        export.check_name("html")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["bench", "report", *map(str, arguments)])
        return cli.main(), capsys.readouterr().err

    return call


def test_the_command_writes_beside_markdown_and_copies_no_records(
    command, make_record: Make, save_record: Save, tmp_path: Path
) -> None:
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    saved = save_record(make_record(), runs)
    assert command("--out", runs, "--format", "csv") == (0, "")
    assert (runs / f"{PAGE}.csv").is_file() and not (runs / f"{PAGE}.md").exists()
    assert command("--out", runs, "--to", reports, "--format", "latex")[0] == 0
    assert [path.name for path in reports.iterdir()] == [f"{PAGE}.tex"]
    publish([saved], reports)
    shutil.rmtree(runs)
    assert command("--again", "--to", reports, "--format", "csv")[0] == 0
    assert (reports / f"{PAGE}.csv").is_file() and (reports / f"{PAGE}.md").is_file()
    assert command("--check", "--to", reports)[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [("--format", "html"), ("--format", "CSV"), ("--check", "--format", "csv"), ("--again", "--format", "csv")],
)
def test_bad_formats_are_one_line_and_write_nothing(arguments: tuple[str, ...], command, tmp_path: Path) -> None:
    code, error = command(*arguments, "--to", tmp_path / "to")
    assert code == 2 and len(error.splitlines()) == 1, error
    assert not (tmp_path / "to").exists()

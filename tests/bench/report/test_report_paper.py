"""The paper's page: claimed figures against the paper's own arithmetic, obtained ones against made-up records."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from bench.cli import app as cli
from bench.record.model import Record
from bench.report import check, checked, frame, paper, regenerate
from bench.report.claims import TITLES, published
from bench.report.experiments import Experiment, experiments
from bench.report.paper import properties_table, turns
from bench.setup import plan, protocols
from methods import registry
from shared import data, networks, platforms
from shared.errors import BadInput

Make = Callable[..., Record]
ROOT = Path(__file__).parents[3]
NO_COMMANDS = "python -m bench run"


def section(text: str, title: str) -> str:
    """What stands below the heading `title`."""
    return re.split(r"\n#+ ", text.split(f"# {title}", 1)[1], maxsplit=1)[0]


def rows(text: str) -> list[list[str]]:
    """Cells of all table rows of a text, heads included."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [line for line in cells if not set("".join(line)) <= set("-:")]


def columns(text: str) -> list[dict[str, str]]:
    """Rows of the text's first table as cells by head."""
    head, *body = rows(text)
    return [dict(zip(head, row, strict=True)) for row in body if len(row) == len(head)]


@pytest.fixture
def table_2(make_record: Make) -> Callable[..., list[Record]]:
    """ERFNet on Cityscapes: ECC 2 points above what the paper has, NetAdapt 1 below, at two of the TX2's budgets."""

    def made(source: str = "simulated", dense: float = 1.3213, **changes: Any) -> list[Record]:
        (claimed,) = [entry for entry in published()["table"] if entry["platform"] == "tx2"]
        base = make_record()
        records = []
        for column in (0, 3):
            joules = claimed["budgets_joules"][column]
            budget = {"fraction": joules / dense, "amount": joules, "dense_reading": dense, "dense_estimate": dense}
            for method, offset in (("ecc", 0.02), ("netadapt", -0.01)):
                measures = base.measures.model_copy(
                    update={
                        "accuracy_before": 0.5,
                        "accuracy_after": claimed[method][column] + offset,
                        "reading": 0.99 * joules,
                    }
                )
                fields: dict[str, Any] = {
                    "network": {"name": "erfnet", "num_classes": 20},
                    "dataset": "cityscapes",
                    "score": "mean IoU",
                    "platform": base.platform.model_copy(update={"name": "tx2", "source": source}),
                    "protocol": replace(base.protocol, name="paper"),
                    "budget": type(base.budget)(**budget),
                    "measures": measures,
                    "dense_accuracy": 0.72,
                    "energy_fit": base.energy_fit.model_copy(update={"kind": "bilinear"}),
                }
                records.append(make_record(method, budget["fraction"], **fields | changes))
        return records

    return made


def text_of(records: list[Record], folder: Path) -> str:
    return paper.page_text(checked(records) if records else frame([]), folder)


# --- claimed


def test_printed_savings_are_those_of_the_printed_joules() -> None:
    """Section 4.3.2's 16 and 19 % within 0.6 points follow from Table 2 and the dense figures."""
    (dense,) = [entry for entry in published()["dense"] if entry["network"] == "erfnet"]
    for claimed in published()["table"]:
        (statement,) = [
            entry
            for entry in published()["statement"]
            if entry["network"] == "erfnet" and claimed["platform"] in entry["platforms"] and "saving" in entry
        ]
        saved = 1 - claimed["budgets_joules"][-1] / dense["joules"][claimed["platform"]]
        assert round(100 * saved) == 100 * statement["saving"]
        assert 0 < dense["accuracy"] - claimed["ecc"][-1] < statement["loss"]


def test_words_and_figures_of_a_statement_agree() -> None:
    compared = [entry for entry in published()["statement"] if "saving" in entry or "lead" in entry]
    assert len(compared) == 6
    for entry in compared:
        numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", entry["text"])]
        if "lead" in entry:
            assert numbers == [100 * entry["lead"], entry["joules"]] and TITLES[entry["over"]] in entry["text"]
        else:
            assert numbers == pytest.approx([100 * entry["saving"], 100 * entry["loss"]])


def test_table_1_has_the_paper_s_ticks_and_the_methods_own() -> None:
    (_, body), differing = properties_table()
    answers = {row[0]: row[1:] for row in body}
    assert answers["EAP"][:5] == ["yes", "yes", "no", "no", "yes"]
    assert answers["ECC"] == 8 * ["yes"]
    assert answers["AMC"][:4] == ["yes", "no", "no", "yes"] == answers["LcP"][:4]
    assert answers["ECC, constant step"][0] == "not in Table 1"
    for name in ("ecc", "netadapt", "amc", "netadapt-original", "eap", "lcp", "legr", "wsp", "slimming"):
        method = registry.get(name)
        assert answers[method.title][4:] == ["yes" if answer else "no" for answer in vars(method.properties).values()]
    assert differing == []


def test_table_1_names_what_a_method_declares_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    method = type(registry.get("amc"))
    changed = type(method.properties)(**vars(method.properties) | {"targets_energy": True})
    monkeypatch.setattr(method, "properties", changed)
    assert properties_table()[1] == ["AMC, Target energy?"]


# --- not run


def test_without_records_every_item_is_there_and_says_so(tmp_path: Path) -> None:
    text = text_of([], tmp_path)
    overview = {(row[0], row[1]): row[2] for row in rows(text.split("## Table 1")[0])[1:]}
    assert {item for item, _ in overview} == {"Table 1", "Table 2", *(f"Figure {n}" for n in range(2, 7))}
    assert all("not run" in state for (item, _), state in overview.items() if item not in ("Table 1", "Figure 6"))
    for title in ("Figure 6: widths", "Before and after fine-tuning"):
        assert "Not run." in section(text, title)
    results = columns(section(text, "Table 2: ERFNet on Cityscapes\n") + text.split("## Table 2")[1])
    assert results[0]["claimed after, %"] == "67.13" and results[0]["obtained after, %"] == "not run"


def test_commands_name_what_exists_and_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every command of the page gets through the command line to a request whose names are known."""
    requests: list[plan.Request] = []

    def make(request: plan.Request, say: Any, *, to_train: bool) -> None:
        requests.append(request)
        raise BadInput("no more", "enough", "nothing")

    monkeypatch.setattr(plan, "make", make)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^python -m bench (run .*)$", text_of([], tmp_path), re.MULTILINE)
    assert len(commands) == 12
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["bench", *command.split()])
        assert cli.main() == 2
    for request in requests:
        assert request.network in networks.names() and request.dataset in data.names()
        assert request.device in platforms.devices() and request.protocol in protocols.names()
        assert set(request.methods.split(",")) == {"ecc", "netadapt", "amc"}
    assert len(requests) == 12 and {r.protocol for r in requests} == {"paper", "quick"}
    (tx2,) = [r for r in requests if (r.network, r.device, r.protocol) == ("mobilenet", "tx2", "paper")]
    assert "0.0247J" in str(tx2.budgets)


# --- obtained


def test_obtained_stands_beside_claimed_in_columns_of_its_own(table_2, tmp_path: Path) -> None:
    part = text_of(table_2(), tmp_path).split("## Table 2")[1].split("### tx2")[1].split("\n## ")[0]
    results = {(row["Budget per image"], row["method"]): row for row in columns(part)}
    ecc = results["0.8542 J", "ECC"]
    assert ecc["claimed after, %"] == "67.33"
    assert ecc["obtained after, % (simulated platform)"] == "69.33"
    assert ecc["obtained before, % (simulated platform)"] == "50.00"
    assert ecc["obtained J (simulated)"] == f"{0.99 * 0.8542:.4f}"
    assert results["1.0724 J", "NetAdapt"]["obtained after, % (simulated platform)"] == "69.84"
    assert results["0.9756 J", "ECC"]["obtained after, % (simulated platform)"] == "not run"
    assert results["0.8542 J", "AMC"]["obtained after, % (simulated platform)"] == "not run"
    assert len(results) == 12 and NO_COMMANDS not in part.split("python -m bench dense")[0]


def test_a_budget_that_the_paper_has_not_gets_rows_without_a_claim(table_2, tmp_path: Path) -> None:
    more = table_2(budget=table_2()[0].budget.model_copy(update={"fraction": 0.5, "amount": 0.66065}))[:1]
    part = text_of(more, tmp_path).split("## Table 2")[1].split("### tx2")[1]
    (row,) = [r for r in columns(part) if r["Budget per image"] == "0.5 of dense" and r["method"] == "ECC"]
    assert row["claimed after, %"] == "–" and row["obtained after, % (simulated platform)"] == "69.33"


def test_simulated_and_measured_share_no_column(table_2, tmp_path: Path) -> None:
    measured = [
        record.model_copy(update={"measures": record.measures.model_copy(update={"accuracy_after": 0.6})})
        for record in table_2("measured")
    ]
    text = text_of([*table_2(), *measured], tmp_path)
    part = text.split("## Table 2")[1].split("### tx2")[1]
    row = columns(part)[0]
    assert row["obtained after, % (simulated platform)"] == "69.33"
    assert row["obtained after, % (measured platform)"] == "60.00"
    verdict = columns(part[part.index("| Claimed (metered)") :])[0]
    # 1 - 0.99 * 0.8542 / 1.3213 is 36.0 %, with 72 - 69.33 points lost; 1 - 0.99 * 1.0724 / 1.3213 is 19.6 %
    assert verdict["obtained (simulated)"] == "19.6 % saved at a loss of −1.83 points"
    assert verdict["obtained (measured)"] == "no budget with a loss below 0.6 points"
    assert "### Measured platforms" in text and "### Simulated platforms" in text


def test_the_saving_is_the_largest_within_the_loss(table_2, tmp_path: Path) -> None:
    part = text_of(table_2(dense_accuracy=0.69), tmp_path).split("## Table 2")[1].split("### tx2")[1]
    verdict = columns(part[part.index("| Claimed (metered)") :])[0]
    assert verdict["obtained (simulated)"] == "36.0 % saved at a loss of −0.33 points"


def test_another_protocol_data_set_or_unit_is_not_the_experiment(table_2, tmp_path: Path) -> None:
    base = table_2()[0]
    others = [
        table_2(protocol=replace(base.protocol, name="quick")),
        table_2(platform=base.platform.model_copy(update={"unit": "s"})),
        table_2(platform=base.platform.model_copy(update={"name": "local"})),
        table_2(dataset="garment-scenes"),
    ]
    for records in others:
        items = experiments(checked(records))
        assert len(items) == 6 and all(each.runs.empty for each in items)
    assert [each.item for each in experiments(checked(others[3])) if each.alike] == ["Table 2"]
    assert [each.item for each in experiments(checked(table_2())) if len(each.runs)] == ["Table 2"]


def test_the_lead_over_netadapt_is_in_points(make_record: Make, tmp_path: Path) -> None:
    base = make_record()
    budget = base.budget.model_copy(update={"fraction": 0.507, "amount": 0.0247, "dense_reading": 0.0487})
    shared = {
        "network": {"name": "mobilenet", "num_classes": 1001},
        "dataset": "imagenet",
        "platform": base.platform.model_copy(update={"name": "tx2"}),
        "protocol": replace(base.protocol, name="paper"),
        "budget": budget,
    }
    runs = [make_record("ecc", 0.507, after=0.68, **shared), make_record("netadapt", 0.507, after=0.69, **shared)]
    part = text_of(runs, tmp_path).split("## Figure 4")[1].split("### tx2")[1].split("\n## ")[0]
    (lead,) = [row for row in rows(part) if row[0].startswith("ECC: 2.6 %")]
    assert lead[2:] == ["−1.00 points", "not run"]
    assert "plotted only" in part and "0.0247 J" in part


def test_misses_are_told_below(table_2, tmp_path: Path) -> None:
    runs = [r.model_copy(update={"status": "miss", "reason": "above", "measures": None}) for r in table_2()]
    part = text_of(runs, tmp_path).split("## Table 2")[1]
    assert "miss¹" in part and "¹ **Miss**, ECC at 0.646485: above." in part


def test_widths_and_fine_tuning_of_every_page_in_joules(quick_runs: list[Record], tmp_path: Path) -> None:
    text = text_of(quick_runs, tmp_path)
    (narrow, _) = columns(section(text, "Figure 6: widths"))
    ecc = next(r for r in quick_runs if r.method == "ecc" and r.budget.fraction == 0.25)
    shares = [w / c for w, c in zip(ecc.measures.widths, ecc.measures.upper_bounds, strict=True)]
    assert narrow["narrowest unit"] == f"{shares.index(min(shares)) + 1} of 14"
    assert narrow["its width, % of dense"] == f"{100 * min(shares):.1f}"
    before = columns(text.split("### Simulated platforms")[1])[1]
    assert (before["ECC before, %"], before["ECC after, %"]) == ("84.34", "89.34")
    assert "miss¹" in text.split("### Simulated platforms")[1]


@pytest.mark.parametrize(
    ("shares", "expected"), [([], 0), ([1, 1], 0), ([1, 2, 3], 0), ([1, 2, 1], 1), ([2, 1, 2, 1], 2), ([1, 2, 2, 1], 0)]
)
def test_turns_are_inner_units_beyond_both_neighbours(shares: list[float], expected: int) -> None:
    assert turns(shares) == expected


# --- the study, the folder


def test_figures_2_and_3_are_those_of_the_study(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    kind = "mobilenet/tx2/bilinear"
    parts = {
        f"fit/{kind}": {"error": 0.0321, "median_error": 0.321, "dense_joules": 0.05},
        f"adam/{kind}/raw/0.001": {"curve": [[1, 0.5], [9, 0.0456]]},
        f"depth/{kind}/raw/0.001/2": {"curve": [[9, 0.0789]]},
    }
    (tmp_path / paper.STUDY).write_text(json.dumps({"parts": parts}))
    text = text_of([], tmp_path)
    errors = {(row["Network"], row["platform"]): row for row in columns(section(text, "Figure 2: error"))}
    assert list(errors["mobilenet", "tx2"].values())[2:] == ["around 3", "4.56", "3.21", "0.10"]
    assert list(errors["mobilenet", "1080ti"].values())[2:] == ["around 3", *3 * ["not run"]]
    depths = [
        row
        for row in rows(section(text, "Figure 3: hidden"))
        if row[:3] == ["tx2", "significantly worse", "joules, 0.001"]
    ]
    assert depths[0][3:] == ["not run", "not run", "7.89", "not run"]
    dense = next(row for row in columns(section(text, "Dense networks")) if row["platform"] == "tx2")
    assert (dense["claimed J (metered)"], dense["obtained J (simulated)"]) == ("0.0487", "0.0500")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"parts": 3}'])
def test_a_damaged_study_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / paper.STUDY).write_text(content)
    with pytest.raises(BadInput, match=r"energy-models\.json"):
        text_of([], tmp_path)
    (problem,) = check(tmp_path)
    assert "energy-models.json" in problem and "\n" not in problem


def test_the_page_is_written_indexed_and_checked(tmp_path: Path) -> None:
    regenerate(tmp_path)
    assert check(tmp_path) == [] and "(paper.md)" in (tmp_path / "README.md").read_text()
    page = tmp_path / "paper.md"
    page.write_text(page.read_text().replace("67.33", "76.33"))
    (problem,) = check(tmp_path)
    assert problem.startswith("paper.md: line ") and "76.33" in problem


def test_the_committed_page_has_the_committed_study_and_links_to_what_exists() -> None:
    text = (ROOT / "reports" / paper.NAME).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / "reports" / target).exists(), target
    assert "| not run" not in section(text, "Figure 2: error") + section(text, "Figure 3: hidden")
    tables = [token for token in MarkdownIt("commonmark").enable("table").parse(text) if token.type == "table_open"]
    assert len(tables) >= 12


def test_an_experiment_without_pages_names_its_needs() -> None:
    items = experiments(frame([]))
    assert [(each.item, each.platform) for each in items] == [
        (item, platform) for item in ("Figure 4", "Figure 5", "Table 2") for platform in ("1080ti", "tx2")
    ]
    assert all(isinstance(each, Experiment) and "needs a GPU" in each.state for each in items)

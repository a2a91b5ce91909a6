"""The energy-model study with tiny counts: its parts, its data file, and the page that the file makes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bench.report.publish import check as check_other_pages
from bench.studies import energy_models as energy_study
from bench.studies.energy_models import Plan, page, page_files, plots, study
from bench.studies.energy_models.claims import claims_table, judged, unsettled, verdicts
from bench.studies.energy_models.frame import frame
from bench.studies.energy_models.mlp import MlpModel, train
from bench.studies.energy_models.parts import compute, ground
from bench.studies.energy_models.plan import DEPTHS, Part, parts, readings
from methods.netadapt.readings import table_from_platform
from shared import energy, platforms
from shared.energy import BilinearModel
from shared.energy.terms import terms
from shared.errors import BadInput

TINY = Plan(
    networks=(("mobilenet", 1001), ("alexnet", 1000)),
    samples=160,
    test_samples=60,
    sizes=(10, 20, 50, 100, 1_000),
    decays=(1.0, 1e-3),
    adam_steps=12,
    depth_rows=40,
    depth_steps=6,
    budgets=(0.05, 0.7),
    near=8,
    climbers=2,
    proposals=3,
    rounds=2,
)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A folder with the tiny study's page and data, and what was said while it was computed."""
    folder, said = tmp_path_factory.mktemp("study"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(folder / "cache"))
        ground.cache_clear()
        energy_study.write(folder / "reports", TINY, jobs=1, say=said.append)
        yield folder / "reports", said
    ground.cache_clear()


def load(folder: Path) -> dict[str, Any]:
    return json.loads((folder / study.DATA).read_text())


def test_parts_are_the_studys_grid() -> None:
    wanted = parts(TINY)
    assert len({part.name for part in wanted}) == len(wanted)
    by_study = {
        study: [part for part in wanted if part.study == study]
        for study in ("fit", "adam", "depth", "budget", "lookup")
    }
    grounds = 2 * 2 * 2  # networks, platforms, kinds of terms
    ways = 2 * (4 + 2 + 2 + 2)  # platforms; both decays only for the chain of the first network; both targets
    assert {study: len(found) for study, found in by_study.items()} == {
        "fit": grounds,
        "adam": ways,
        "depth": ways * len(DEPTHS),
        "budget": grounds * 2,
        "lookup": 4,
    }
    assert readings(TINY, "alexnet", "bilinear") == [(False, 1e-3), (True, 1e-3)]


def test_the_papers_counts() -> None:
    plan = Plan()
    assert plan.networks == (("mobilenet", 1001), ("alexnet", 1000), ("erfnet", 20)) and plan.batch == 1
    assert (plan.samples, plan.test_samples, plan.adam_steps) == (10_000, 2_000, 10_000)
    assert plan.decays == (1.0, 1e-3, 1 / (plan.samples - plan.test_samples))
    assert Plan.of(json.loads(json.dumps({"plan": plan.__dict__}))) == plan


def test_least_squares_of_the_chain_is_what_runs_use(studied: tuple[Path, list[str]]) -> None:
    figures = load(studied[0])["parts"]["fit/alexnet/tx2/bilinear"]
    base = ground(TINY, "alexnet", "tx2")
    fitted = energy.fit(base.profile, base.structure, "bilinear")
    assert figures["error"] == pytest.approx(fitted.relative_error, rel=1e-4)
    assert figures["error"] / figures["median_error"] == pytest.approx(fitted.skill, rel=1e-4)
    assert figures["dense_estimate"] / figures["dense_joules"] - 1 == pytest.approx(
        fitted.dense_relative_error, abs=1e-4
    )
    assert figures["unknowns"] == 9
    assert list(figures["sizes"]) == ["10", "20", "50", "100"]  # 1,000 rows are more than there are
    assert figures["sizes"]["100"] == figures["error"]


def test_smaller_sizes_are_means_over_rows_that_no_two_share(studied: tuple[Path, list[str]]) -> None:
    figures = load(studied[0])["parts"]["fit/alexnet/tx2/bilinear"]
    base = ground(TINY, "alexnet", "tx2")
    positions, joules = base.structure.positions(base.profile.widths), base.profile.amounts
    errors = []
    for start in (0, 50):
        rows = slice(start, start + 50)
        model = BilinearModel.fit(positions[rows], joules[rows], upper_bounds=base.structure.position_bounds)
        errors.append(np.mean(np.abs(model(positions[100:]).numpy() / joules[100:] - 1)))
    assert figures["sizes"]["50"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert "10" not in load(studied[0])["parts"]["fit/mobilenet/tx2/bilinear"]["sizes"]  # 16 unknowns


@pytest.mark.parametrize("scaled", [False, True])
def test_curves_end_where_the_trained_model_does(studied: tuple[Path, list[str]], scaled: bool) -> None:
    part = Part("depth", "mobilenet", "tx2", "bilinear", scaled, 1.0, 2)
    base = ground(TINY, "mobilenet", "tx2")
    positions, joules = base.structure.positions(base.profile.widths), base.profile.amounts
    unit_joules = joules[:40].mean() if scaled else 1.0
    chain = terms(base.structure, "bilinear")
    model = MlpModel(chain, base.structure.position_bounds, depth=2, unit_joules=unit_joules)
    train(model, positions[:40], joules[:40], steps=6, weight_decay=1.0)
    error = np.mean(np.abs(model(positions[100:]).detach().numpy() / joules[100:] - 1))
    figures = load(studied[0])["parts"][part.name]
    assert [step for step, _ in figures["curve"]] == [1, 2, 3, 4, 5, 6]
    assert figures["curve"][-1][1] == pytest.approx(error, rel=1e-3)
    assert figures["rows"] == 40
    without = load(studied[0])["parts"][part._replace(depth=0).name]
    assert without["curve"][-1][0] == TINY.adam_steps and without["rows"] == 40


def test_budgets_are_shares_of_the_dense_reading_and_may_be_out_of_reach(studied: tuple[Path, list[str]]) -> None:
    found = load(studied[0])["parts"]
    base = ground(TINY, "mobilenet", "1080ti")
    low, high = (found[f"budget/mobilenet/1080ti/bilinear/{share}"] for share in ("0.05", "0.7"))
    assert high["budget_joules"] == pytest.approx(0.7 * base.profile.dense_reading, rel=1e-4)
    assert set(low) == {"budget_joules", "seconds"}
    assert high["random"]["count"] == 8 and high["multipliers"]["count"] > 1
    for kind in ("random", "multipliers"):
        assert high[kind]["least"] <= high[kind]["mean"] <= high[kind]["most"]
    widths = np.array([high["worst"]["widths"]])
    joules = base.true_joules(base.structure.positions(widths).numpy())[0]
    estimate = base.fit("bilinear", slice(100))(base.structure.positions(widths)).item()
    assert high["worst"]["excess"] == pytest.approx(joules / estimate - 1, rel=1e-3)
    assert high["worst"]["over_budget"] == pytest.approx(joules / high["budget_joules"] - 1, abs=1e-4)


def test_page_and_data_agree(studied: tuple[Path, list[str]]) -> None:
    folder, said = studied
    assert energy_study.check(folder) == []
    assert page(load(folder)) == (folder / "energy-models.md").read_text()
    assert len(said) == len(parts(TINY)) and said[-1].startswith(f"{len(said)} of {len(said)}: lookup/alexnet/tx2")
    text = (folder / "energy-models.md").read_text()
    assert "simulated" in text and "nan" not in text and "None" not in text and "\n\n\n" not in text
    assert all(plot in text for plot in page_files(load(folder)) if plot.endswith(".svg"))


def test_other_pages_check_does_not_mind(studied: tuple[Path, list[str]]) -> None:
    folder, _ = studied
    assert not any("energy-models" in problem for problem in check_other_pages(folder))


def test_check_names_what_differs(studied: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = studied
    assert energy_study.check(tmp_path) == []
    (tmp_path / "records").mkdir()
    for path in [*folder.glob("*.*"), folder / study.DATA]:
        (tmp_path / path.relative_to(folder)).write_bytes(path.read_bytes())
    assert energy_study.check(tmp_path) == []
    (tmp_path / "energy-models-other.svg").write_text("<svg/>")
    assert energy_study.check(tmp_path) == ["energy-models-other.svg: no data behind it"]
    (tmp_path / "energy-models-other.svg").unlink()
    whole = (tmp_path / study.DATA).read_bytes()

    data = json.loads(whole)
    data["parts"]["fit/mobilenet/tx2/bilinear"]["error"] += 0.01
    (tmp_path / study.DATA).write_text(json.dumps(data))
    assert {line.split(":")[0] for line in energy_study.check(tmp_path)} == {
        "energy-models.md",
        "energy-models-adam.svg",
        "energy-models-depth-raw.svg",
        "energy-models-depth-scaled.svg",
    }
    del data["parts"]["fit/mobilenet/tx2/bilinear"]
    (tmp_path / study.DATA).write_text(json.dumps(data))
    (problem,) = energy_study.check(tmp_path)
    assert "figures of a whole study" in problem and "fit/mobilenet/tx2/bilinear" in problem
    for broken in ("{", "[]"):
        (tmp_path / study.DATA).write_text(broken)
        assert len(energy_study.check(tmp_path)) == 1

    (tmp_path / study.DATA).write_bytes(whole)
    (tmp_path / "energy-models.md").unlink()
    assert energy_study.check(tmp_path) == ["energy-models.md: missing"]
    (tmp_path / study.DATA).unlink()
    assert "energy-models-adam.svg: no records/energy-models.json behind it" in energy_study.check(tmp_path)


def test_a_stopped_study_goes_on(
    studied: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = studied
    data = load(folder)
    dropped = [name for name in data["parts"] if name.startswith("lookup/alexnet/tx2")]
    for name in dropped:
        del data["parts"][name]
    (tmp_path / "records").mkdir()
    (tmp_path / study.DATA).write_text(json.dumps(data))
    computed: list[Part] = []

    def counted(plan: Plan, part: Part) -> dict[str, Any]:
        computed.append(part)
        return compute(plan, part)

    monkeypatch.setattr(study, "compute", counted)
    energy_study.write(tmp_path, TINY, jobs=1, say=lambda line: None)
    assert [part.name for part in computed] == dropped

    def timeless(content: dict[str, Any]) -> Any:
        return [[name, {**part, "seconds": 0}] for name, part in content["parts"].items()]  # in the same order too

    assert timeless(load(tmp_path)) == timeless(load(folder))
    assert energy_study.check(tmp_path) == []


@pytest.mark.parametrize(
    "change", [{"plan": {}}, {"calibrations": {"tx2": "another"}}, {"networks": {"mobilenet": "another"}}]
)
def test_parts_of_another_study_are_dropped(
    studied: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / study.DATA).write_text(json.dumps(load(studied[0]) | change))

    def stop(plan: Plan, part: Part) -> dict[str, Any]:
        raise KeyboardInterrupt(part.name)

    monkeypatch.setattr(study, "compute", stop)
    with pytest.raises(KeyboardInterrupt, match=parts(TINY)[0].name):
        energy_study.write(tmp_path, TINY, jobs=1, say=lambda line: None)


def test_damaged_data_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, studied: tuple[Path, list[str]]
) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / study.DATA).write_text('{"plan"')
    with pytest.raises(BadInput, match="try deleting it"):
        energy_study.write(tmp_path, TINY, jobs=1)


def test_verdicts_follow_the_figures(studied: tuple[Path, list[str]]) -> None:
    """Errors planted so that joules with decay 0.001 agree with every claim and the other readings miss one each."""
    data = copy.deepcopy(load(studied[0]))

    def plant(study: str, platform: str, way: str, error: float, depth: str = "") -> None:
        data["parts"][f"{study}/mobilenet/{platform}/bilinear/{way}{depth}"]["curve"][-1][1] = error

    for way in ("raw/1", "raw/0.001", "scaled/1", "scaled/0.001"):
        for platform in ("1080ti", "tx2"):
            plant("adam", platform, way, 0.03)
            for depth in DEPTHS:
                plant("depth", platform, way, 0.03 if platform == "1080ti" or depth == 0 else 0.09, f"/{depth}")
    plant("adam", "tx2", "raw/1", 0.17)
    plant("depth", "1080ti", "scaled/1", 0.02, "/2")  # a gain of a whole point
    for depth in (1, 2, 3):
        plant("depth", "tx2", "scaled/0.001", 0.031, f"/{depth}")  # a loss of a tenth
    found = verdicts(frame(data))
    titles = ["joules, 1", "joules, 0.001", "mean 1, 1", "mean 1, 0.001"]
    assert found["all"] == (["joules, 0.001"], [titles[0], *titles[2:]])
    assert found["error, 1080ti"] == (titles, [])
    assert found["error, tx2"] == (titles[1:], titles[:1])
    assert found["gain, 1080ti"] == ([*titles[:2], titles[3]], ["mean 1, 1"])
    assert found["loss, tx2"] == (titles[:3], ["mean 1, 0.001"])
    figures = judged(frame(data), "mean 1, 1")
    assert figures["gain, 1080ti"][0] == pytest.approx(0.01) and figures["loss, tx2"][0] == pytest.approx(0.06)
    head, (_, tx2, gain, _) = claims_table(frame(data))
    assert head[2:] == [f"obtained (simulated): {title}" for title in titles]
    assert tx2[1:3] == ["around 3 %", "17.00 %, differs"]
    assert gain[2] == "0.00 points, agrees" and gain[4] == "1.00 points, differs"


def test_what_still_moved_is_named(studied: tuple[Path, list[str]]) -> None:
    data = copy.deepcopy(load(studied[0]))
    for name, part in data["parts"].items():
        if name.startswith("depth/"):
            part["curve"] = [[step, 0.03] for step in range(1, TINY.depth_steps + 1)]
    assert unsettled(frame(data), "tx2") == []
    data["parts"]["depth/mobilenet/tx2/bilinear/raw/0.001/2"]["curve"][1][1] = 0.5  # of the first half
    data["parts"]["depth/mobilenet/tx2/bilinear/scaled/1/3"]["curve"][2][1] = 0.05  # step 3 of 6
    assert unsettled(frame(data), "tx2") == ["3 with mean 1, 1 (−2.0 points)"]
    assert unsettled(frame(data), "1080ti") == []


def test_processes_compute_what_one_does(studied: tuple[Path, list[str]]) -> None:
    few = [Part("fit", "alexnet", "tx2", "bilinear"), Part("adam", "alexnet", "tx2", "bilinear", True, 1e-3)]
    computed = {part.name: figures for part, figures in study._computed(TINY, few, jobs=2)}
    for name, figures in computed.items():
        assert {**figures, "seconds": 0} == {**load(studied[0])["parts"][name], "seconds": 0}
    assert len(computed) == 2 and torch.get_num_threads() == 1


def test_panels_of_a_row_share_an_axis_that_shows_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 100 %; the first panel's own range is not the row's."""
    shown = []
    monkeypatch.setattr(plots, "svg", lambda figure, title, data: shown.append(figure) or b"")

    style = {"row": 0, "line": "l", "colour": 0, "dash": 0, "level": float("nan")}
    points = [("a", 1, 3.0), ("a", 2, 2.5), ("b", 1, 40.0), ("b", 2, 1.2), ("c", 1, 5000.0), ("c", 2, 2.0)]
    plots.draw("t", "c", "x", pd.DataFrame(points, columns=["panel", "x", "error"]).assign(**style))
    for axes in shown[0].axes:
        low, high = axes.get_ylim()
        assert low < 1.2 and high == 100


def test_the_lookup_table_is_held_against_the_same_rows(studied: tuple[Path, list[str]]) -> None:
    """Oracle: a fresh table, the factor by least squares of another library, errors row by row."""
    part = Part("lookup", "alexnet", "tx2", "operations")
    found = load(studied[0])["parts"][part.name]
    base = ground(TINY, "alexnet", "tx2")
    table = table_from_platform(platforms.get("tx2"), base.structure, 1)
    sums = np.array([float(table(row)) for row in base.structure.positions(base.profile.widths)])
    (factor,), *_ = np.linalg.lstsq(sums[:100, None], base.profile.amounts[:100], rcond=None)
    held_out = base.profile.amounts[100:]
    assert found["factor"] == pytest.approx(factor, rel=1e-4)
    assert found["error"] == pytest.approx(np.mean(np.abs(sums[100:] - held_out) / held_out), rel=1e-4)
    assert found["scaled_error"] == pytest.approx(np.mean(np.abs(factor * sums[100:] - held_out) / held_out), rel=1e-4)
    assert found["readings"] == table.size and found["dense_estimate"] > 0.9 * found["dense_joules"]

"""Plots: drawn from the right numbers, legible on any page, the same every time."""

from __future__ import annotations

import io
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from bench.record.model import Record
from bench.report import checked
from bench.report.plots import accuracy, differences, draw, forest, legend_columns, points, unit_widths
from bench.report.style import (
    BUDGETS,
    CARD,
    FAINT,
    INK,
    PALETTE,
    creator_and_data,
    house_style,
    method_style,
    same_plot,
)
from bench.report.tables import page_unit
from bench.report.traces import TRACE_POINTS, courses
from methods.registry import BUILT_IN

Make = Callable[..., Record]
ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2, 0..1."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def seen_by_dichromat(colour: str, kind: str) -> list[float]:
    """RGB, 0..1, as somebody without red or green cones sees it (Viénot, Brettel and Mollon 1999)."""
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    r, g, b = r**2.2, g**2.2, b**2.2
    red, spill = (0.11238, 0.00401) if kind == "protan" else (0.29275, -0.02234)
    yellow = red * r + (1 - red) * g
    return [max(0.0, linear) ** (1 / 2.2) for linear in (yellow, yellow, b + spill * (r - g))]


def test_contrast_on_the_card() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert min(contrast(ink, CARD) for ink in (INK, FAINT)) >= 7
    for colour, _ in (*PALETTE, *BUDGETS):
        assert contrast(colour, CARD) >= 3, colour


def test_no_two_methods_share_colour_or_marker() -> None:
    for position in (0, 1):
        styles = [style[position] for style in PALETTE]
        assert len(set(styles)) == len(styles) > len(BUILT_IN)
        assert len({style[position] for style in BUDGETS}) == len(BUDGETS)


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_the_compared_methods_and_the_first_budgets_differ_for_dichromats(kind: str) -> None:
    methods = [method_style(name, [])[0] for name in ("ecc", "netadapt", "amc", "uniform", "uniform-gradual")]
    for group in (methods, [colour for colour, _ in BUDGETS[:3]]):
        for one, other in combinations(group, 2):
            assert math.dist(seen_by_dichromat(one, kind), seen_by_dichromat(other, kind)) > 0.2, (one, other)


@pytest.fixture(scope="module")
def drawn(quick_runs_of_module: list[Record]) -> dict[str, bytes]:
    """The three plots of the quick page."""
    page = checked(quick_runs_of_module)
    return draw(page, page_unit(page))


def test_plots_are_xml_on_an_opaque_card_with_a_title_and_no_date(drawn: dict[str, bytes]) -> None:
    assert set(drawn) == {"accuracy", "widths", "trace-ecc"}
    for content in drawn.values():
        root = ElementTree.fromstring(content)
        assert root.tag == f"{SVG}svg" and root.findtext(f"{SVG}title")
        width, height = (float(root.attrib[side].removesuffix("pt")) for side in ("width", "height"))
        card = next(path for path in root.iter(f"{SVG}path") if CARD in path.get("style", ""))
        assert "opacity" not in card.attrib["style"]
        numbers = [float(word) for word in card.attrib["d"].split() if word.strip("-").replace(".", "").isdigit()]
        assert min(numbers[::2]) < 2 and max(numbers[::2]) > width - 2
        assert min(numbers[1::2]) < 2 and max(numbers[1::2]) > height - 2
        assert b"dc:date" not in content and b"<text" not in content


def test_plots_carry_the_records_numbers(drawn: dict[str, bytes], quick_runs: list[Record]) -> None:
    assert b"<title>top-1 accuracy on test against simulated mJ per image</title>" in drawn["accuracy"]
    plotted = pd.read_csv(io.StringIO(creator_and_data(drawn["accuracy"])[1]), dtype={"budget": str})
    plotted = plotted.set_index(["method", "budget"])
    drawn_runs = [run for run in quick_runs if run.measures]
    assert len(plotted) == len(drawn_runs) == len(quick_runs) - 1  # AMC's miss is not drawn
    for run in drawn_runs:
        point = plotted.loc[run.method, f"{run.budget.fraction:g}" if run.budget else "dense"]
        p = run.measures.accuracy_after
        assert point["reading"] == pytest.approx(1e3 * run.measures.reading)
        assert point["after"] == pytest.approx(100 * p)
        assert point["after error"] == pytest.approx(100 * math.sqrt(p * (1 - p) / 10_000))
        assert point["before"] == pytest.approx(100 * run.measures.accuracy_before)
        assert point["control"] == (run.method in ("dense", "uniform"))


def test_points_far_below_the_others_are_named_instead_of_flattening_them(make_record: Make) -> None:
    runs = [make_record(method, fraction) for method in ("ecc", "amc", "uniform") for fraction in (0.35, 0.25)]
    page = checked(runs)
    with house_style():
        (plain, _) = accuracy(page, page_unit(page), points(page, page_unit(page))).axes
        page = checked([*runs, make_record("magnitude", 0.35, after=0.1), make_record("magnitude", 0.25)])
        (after, _) = accuracy(page, page_unit(page), points(page, page_unit(page))).axes
    assert not [text for text in plain.texts if "below" in text.get_text()]
    assert "below the plot: magnitude" in [text.get_text() for text in after.texts]
    assert 50 < after.get_ylim()[0] < 89


def test_differences_are_those_of_the_ranking(make_record: Make) -> None:
    protocol = replace(make_record().protocol, name="standard", ranks=True)
    planted = {"ecc": 0.02, "amc": -0.01, "uniform-gradual": 0.0}
    runs = [
        make_record(method, fraction, seed, after=0.8 + gain + 0.001 * seed * (method != "amc"), protocol=protocol)
        for method, gain in planted.items()
        for fraction in (0.35, 0.25)
        for seed in range(3)
    ]
    page = checked(runs)
    data = differences(page)
    assert data["method"].tolist() == ["ecc", "amc"]
    assert data["mean"].tolist() == pytest.approx([2.0, -1.1])
    ecc, amc = data.itertuples()
    assert ecc.low == pytest.approx(2.0) and ecc.high == pytest.approx(2.0)  # the same in every seed
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert (amc.low, amc.high) == pytest.approx((-1.1 - half, -1.1 + half))
    assert "differences" in draw(page, page_unit(page))
    two_seeds = checked([run for run in runs if run.seed < 2])
    assert differences(two_seeds).empty and "differences" not in draw(two_seeds, page_unit(two_seeds))
    assert differences(checked([run for run in runs if run.method != "uniform-gradual"])).empty


def test_points_of_several_seeds_are_means_with_intervals(seeded_runs: list[Record]) -> None:
    page = checked(seeded_runs)
    point = points(page, page_unit(page)).iloc[0]
    half = 4.302652729911275 / math.sqrt(3)  # Student's t at 97.5 % with two degrees of freedom; the deviation is 1
    assert point[["after", "after error", "before", "before error"]].tolist() == pytest.approx([89.0, half, 84.0, half])
    run = page["record"].iloc[0].measures
    line = unit_widths(page).query("method == 'ecc' and budget == '0.35'")
    shares = [w / c for w, c in zip(run.widths, run.upper_bounds, strict=True)]
    assert line["mean"].tolist() == pytest.approx(shares) and line["unit"].tolist() == list(range(1, 15))


def test_widths_have_the_least_and_the_most_of_the_seeds(make_record: Make) -> None:
    base = make_record().measures
    narrow = base.model_copy(update={"widths": tuple(1 for _ in base.widths)})
    last = unit_widths(checked([make_record(), make_record(seed=1, measures=narrow)])).iloc[-1]
    shares = [1 / base.upper_bounds[-1], base.widths[-1] / base.upper_bounds[-1]]
    assert last[["min", "max", "mean"]].tolist() == pytest.approx([*shares, statistics.fmean(shares)])


def test_trace_is_thinned_and_normalised(quick_runs: list[Record]) -> None:
    page = checked(quick_runs)
    run = next(run for run in page["record"] if run.method == "ecc" and run.budget.fraction == 0.25)
    course = courses(page, "ecc", page_unit(page)).query("budget == '0.25'").to_dict("list")
    assert TRACE_POINTS <= len(course["iteration"]) <= 2 * TRACE_POINTS
    assert course["iteration"][0] == 0 and course["iteration"][-1] == 799
    for row in (0, 17, -1):
        i = course["iteration"][row]
        assert course["energy"][row] == pytest.approx(1e3 * run.trace["energy"][i])
        shares = [w / c for w, c in zip(run.trace["phi"][i], run.measures.upper_bounds, strict=True)]
        assert course["phi"][row] == pytest.approx(statistics.fmean(shares))
        assert course["y"][row] == pytest.approx(statistics.fmean(run.trace["y"][i]))
        assert course["z"][row] == pytest.approx(run.trace["z"][i])
    last, i = course["iteration"][16:18]
    assert course["loss"][17] == pytest.approx(statistics.fmean(run.trace["loss"][last + 1 : i + 1]))


def test_traces_that_can_not_be_drawn_are_left_out(make_record: Make) -> None:
    def page(trace: dict[str, list[object]]) -> pd.DataFrame:
        return checked([make_record(trace=trace)])

    def drawn_columns(trace: dict[str, list[object]]) -> pd.DataFrame:
        return courses(page(trace), "ecc", page_unit(page(trace)))

    assert drawn_columns({}).empty
    assert drawn_columns({"reward": [1, 2]}).empty
    assert drawn_columns({"energy": [1.0, 2.0], "reward": [1, 2]}).empty  # episodes, not iterations
    assert drawn_columns({"iteration": [1, 2], "energy": [1.0, 2.0], "loss": [1.0]}).empty
    assert drawn_columns({"iteration": [1, 2], "energy": ["x", None]}).empty
    odd_columns = {"phi": [[1], "x"], "s": [None, [None] * 14], "z": [math.inf, 2.0], "y": [[], [1, 2]]}
    odd = {"iteration": [1, 2], "energy": [0.01, math.nan], **odd_columns}
    course = drawn_columns(odd)
    assert list(course) == ["iteration", "energy", "y", "z", "budget"]
    assert course["energy"].iloc[0] == 10.0 and course["z"].iloc[1] == 2.0 and course["y"].iloc[1] == 1.5
    assert course[["energy", "y", "z"]].isna().sum().tolist() == [1, 1, 1]
    assert ElementTree.fromstring(draw(page(odd), page_unit(page(odd)))["trace-ecc"]).tag == f"{SVG}svg"


def test_a_course_is_of_the_first_seed_that_has_one(make_record: Make) -> None:
    trace = {"iteration": [1, 2], "energy": [0.02, 0.01]}
    traces = ({}, trace, {**trace, "z": [1, 1]})
    page = checked([make_record(seed=seed, trace=trace) for seed, trace in enumerate(traces)])
    course = courses(page, "ecc", page_unit(page))
    assert course["energy"].tolist() == [20.0, 10.0] and "z" not in course


def test_an_unusual_page_draws(make_record: Make) -> None:
    """A plug-in whose title looks like mathematics and markup, alone, on a data set of unknown size."""
    page = checked([make_record("plugin", title="Cost $x_1$ & <b>", dataset="mine")])
    assert points(page, page_unit(page))["after error"].tolist() == [0]
    drawn = draw(page, page_unit(page))
    assert set(drawn) == {"accuracy", "widths"}
    for content in drawn.values():
        assert ElementTree.fromstring(content).tag == f"{SVG}svg"


def test_no_point_no_plot(make_record: Make) -> None:
    page = checked([make_record(reason="above the budget")])
    assert draw(page, page_unit(page)) == {}


def test_third_parties_get_colours_of_their_own() -> None:
    others = [f"method-{number}" for number in range(len(PALETTE) - len(BUILT_IN))]
    styles = [method_style(method, others) for method in (*BUILT_IN, *others)]
    assert len(set(styles)) == len(PALETTE)
    assert method_style("one-more", [*others, "one-more"]) == styles[0]


def test_no_backend_is_asked_for(save_record: Callable[..., Any], make_record: Make, tmp_path: Path) -> None:
    """A notebook's backend that isn't installed, at which importing matplotlib fails."""
    save_record(make_record(), tmp_path)
    command = [sys.executable, "-m", "bench", "report", "--out", str(tmp_path)]
    environment = os.environ | {"MPLBACKEND": "module://no_such_notebook.backend"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.svg"))) == 2


def test_same_plot_of_one_version_means_same_bytes(drawn: dict[str, bytes]) -> None:
    content = drawn["accuracy"]
    moved = content.replace(b"M 0 ", b"M 9 ", 1)
    assert moved != content
    assert same_plot(content, content) and not same_plot(moved, content)
    assert not same_plot(b"no svg", content) and not same_plot(drawn["widths"], content)


def test_same_plot_of_another_version_means_same_data(drawn: dict[str, bytes]) -> None:
    content = drawn["accuracy"]
    creator, _ = creator_and_data(content)
    assert creator.startswith("Matplotlib v")
    older = content.replace(creator.encode(), b"Matplotlib v3.8.0", 1).replace(b"M 0 ", b"M 9 ", 1)
    assert same_plot(older, content)
    assert not same_plot(older.replace(b",89.34,", b",91.34,"), content)


@pytest.mark.parametrize(
    ("labels", "columns"), [(["a"] * 3, 3), (["a"] * 5, 5), (["a"] * 6, 3), (["x" * 60] * 3, 1), (["x" * 40] * 4, 2)]
)
def test_legend_columns_fit_the_width(labels: list[str], columns: int) -> None:
    assert legend_columns(labels) == columns


def test_a_method_far_below_leaves_the_others_intervals_readable(make_record: Make) -> None:
    rows = [("ecc", "ECC", False, -0.4, -0.6, -0.2), ("amc", "AMC", False, -0.8, -1.3, -0.3)]
    rows.append(("magnitude", "Magnitude per joule", True, -68.35, -68.52, -68.17))
    data = pd.DataFrame(rows, columns=["method", "title", "control", "mean", "low", "high"])
    page = checked([make_record()])
    axes = forest(page, page_unit(page), data).axes[0]
    left, right = axes.get_xlim()
    assert -2 < left < -1.3 and right > 0
    assert [text.get_text() for text in axes.texts] == ["← −68.35 (−68.52 to −68.17)"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ECC", "AMC", "Magnitude per joule"]
    axes = forest(page, page_unit(page), data[:2]).axes[0]
    assert not axes.texts

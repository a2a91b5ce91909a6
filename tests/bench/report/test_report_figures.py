"""Plots: drawn from the right numbers, legible on any page, the same every time."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from itertools import combinations
from xml.etree import ElementTree

import pytest

from bench.record import Record
from bench.report.cells import page_unit
from bench.report.collect import pages
from bench.report.figures import draw, legend_columns
from bench.report.series import TRACE_POINTS, accuracy_data, trace_data, widths_data
from bench.report.style import BUDGETS, CARD, FAINT, INK, METHODS, OTHERS, creator_and_data, same_plot

Make = Callable[..., Record]
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
    for colour, _ in (*METHODS.values(), *OTHERS, *BUDGETS):
        assert contrast(colour, CARD) >= 3, colour


def test_no_two_methods_share_colour_or_marker() -> None:
    for position in (0, 1):
        styles = [style[position] for style in (*METHODS.values(), *OTHERS)]
        assert len(set(styles)) == len(styles)
        assert len({style[position] for style in BUDGETS}) == len(BUDGETS)


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_the_compared_methods_and_the_first_budgets_differ_for_dichromats(kind: str) -> None:
    methods = [METHODS[name][0] for name in ("ecc", "netadapt", "amc", "uniform", "uniform-gradual")]
    for group in (methods, [colour for colour, _ in BUDGETS[:3]]):
        for one, other in combinations(group, 2):
            assert math.dist(seen_by_dichromat(one, kind), seen_by_dichromat(other, kind)) > 0.2, (one, other)


@pytest.fixture(scope="module")
def drawn(quick_runs_of_module: list[Record]) -> dict[str, bytes]:
    """The three plots of the quick page."""
    (page,) = pages(quick_runs_of_module)
    unit = page_unit(page)
    made = (accuracy_data(page, unit), widths_data(page), trace_data(page, "ecc", unit))
    return {data["figure"]: draw(data) for data in made if data}


def test_plots_are_xml_on_an_opaque_card_with_a_title_and_no_date(drawn: dict[str, bytes]) -> None:
    assert set(drawn) == {"accuracy", "widths", "trace"}
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
    data = json.loads(creator_and_data(drawn["accuracy"])[1])
    assert data["x_label"] == "simulated mJ per image" and "simulated" in data["caption"]
    assert "ranks nothing" in data["caption"]
    points = {line["method"]: line["points"] for line in data["lines"]}
    assert set(points) == {"ecc", "netadapt", "amc", "uniform"} and len(points["amc"]) == 1  # its miss is not drawn
    for run in quick_runs:
        if run.budget and run.measures:
            nearest = min(points[run.method], key=lambda p: abs(p[0] - 1e3 * run.measures.reading))
            assert nearest[0] == pytest.approx(1e3 * run.measures.reading)
            assert nearest[1] == pytest.approx(100 * run.measures.accuracy_after)
            p = run.measures.accuracy_after
            assert nearest[2] == pytest.approx(100 * math.sqrt(p * (1 - p) / 10_000))
            assert nearest[3] == pytest.approx(100 * run.measures.accuracy_before)
    assert data["dense"] == {"reading": "12.500 mJ", "delivered": 92.34, "before": 87.51, "after": 92.51}


def test_points_of_several_seeds_are_means_with_deviations(seeded_runs: list[Record]) -> None:
    (page,) = pages(seeded_runs)
    point = accuracy_data(page, page_unit(page))["lines"][0]["points"][0]
    assert point[1:] == pytest.approx([89.0, 1.0, 84.0, 1.0])
    line = widths_data(page)["panels"][0]["lines"]["0.35"]
    run = page.records[0].measures
    assert [unit[0] for unit in line] == pytest.approx(
        [w / c for w, c in zip(run.widths, run.upper_bounds, strict=True)]
    )


def test_trace_is_thinned_and_normalised(quick_runs: list[Record]) -> None:
    (page,) = pages(quick_runs)
    data = trace_data(page, "ecc", page_unit(page))
    run = page.runs("ecc", "0.25")[0]
    course = data["courses"]["0.25"]
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
    def data(trace: dict[str, list[object]]) -> object:
        (page,) = pages([make_record(trace=trace)])
        return trace_data(page, "ecc", page_unit(page))

    assert data({}) is None
    assert data({"reward": [1, 2]}) is None
    assert data({"energy": [1.0, 2.0], "reward": [1, 2]}) is None  # episodes, not iterations
    assert data({"iteration": [1, 2], "energy": [1.0, 2.0], "loss": [1.0]}) is None
    odd_columns = {"phi": [[1], "x"], "s": [None, [None] * 14], "z": [math.inf, None]}
    odd = data({"iteration": [1, 2], "energy": [0.01, math.nan], **odd_columns})
    assert odd["courses"]["0.35"]["energy"] == [10.0, None]
    assert odd["courses"]["0.35"]["phi"] == odd["courses"]["0.35"]["z"] == [None, None]
    assert ElementTree.fromstring(draw(odd)).tag == f"{SVG}svg"


def test_an_unusual_page_draws(make_record: Make) -> None:
    """A plug-in whose title looks like mathematics and markup, alone, on a data set of unknown size."""
    (page,) = pages([make_record("plugin", title="Cost $x_1$ & <b>", dataset="mine")])
    data = accuracy_data(page, page_unit(page))
    assert data["lines"][0]["points"][0][2] == 0
    for each in (data, widths_data(page)):
        assert ElementTree.fromstring(draw(each)).tag == f"{SVG}svg"


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
    assert not same_plot(older.replace(b"92.34", b"93.34"), content)


@pytest.mark.parametrize(
    ("labels", "columns"), [(["a"] * 3, 3), (["a"] * 5, 5), (["a"] * 6, 3), (["x" * 60] * 3, 1), (["x" * 40] * 4, 2)]
)
def test_legend_columns_fit_the_width(labels: list[str], columns: int) -> None:
    assert legend_columns(labels) == columns

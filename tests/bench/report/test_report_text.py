"""Numbers as text: checked by reading them back, by numpy, and by a Markdown parser."""

from __future__ import annotations

import math
import re
from html import unescape

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench.report.text import (
    ABSENT,
    count,
    escape,
    mean_std,
    percent,
    seconds,
    signed_percent,
    span,
    superscript,
    table,
    unit_for,
)

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
JOULES = st.floats(1e-9, 1e4)
FACTORS = {"J": 1.0, "mJ": 1e-3, "µJ": 1e-6, "nJ": 1e-9}


@settings(deadline=None)
@given(st.lists(JOULES, min_size=1, max_size=8))
def test_joules_read_back_within_half_a_last_digit(values: list[float]) -> None:
    unit = unit_for(values)
    for value in values:
        read = float(unit(value)) * FACTORS[unit.symbol]
        assert abs(read - value) <= (0.5 + 1e-6) * 10**-unit.decimals * FACTORS[unit.symbol] + 1e-12 * value


@settings(deadline=None)
@given(st.lists(JOULES, min_size=1, max_size=8))
def test_unit_suits_the_largest_and_shows_four_digits_of_the_smallest(values: list[float]) -> None:
    unit = unit_for(values)
    largest, smallest = (extreme(values) / FACTORS[unit.symbol] for extreme in (max, min))
    assert 1 <= largest * (1 + 1e-12) < 1e3 * (1 + 1e-9) or unit.symbol == "J"
    digits = unit(min(values)).replace(".", "").lstrip("0")
    assert len(digits) >= 4 or (unit.decimals == 6 and smallest < 1e-2)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.0487, 0.0247], "24.70 mJ"),
        ([1.9708, 1.3843], "1.384 J"),
        ([1.25e-5, 3.1e-6], "3.100 µJ"),
        ([0.0125, 0.003125], "3.125 mJ"),
        ([250.0, 120.0], "120.0 J"),
    ],
)
def test_joules_with_their_unit(values: list[float], text: str) -> None:
    assert unit_for(values).named(values[-1]) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.0031], "3.100 ms"), ([1.5, 0.02], "0.02000 s"), ([2e-4, 1.5e-4], "150.0 µs"), ([], None)],
)
def test_seconds_with_their_unit(values: list[float], text: str | None) -> None:
    unit = unit_for(values, "s")
    assert unit.symbol == "ms" if text is None else unit.named(values[-1]) == text


def test_unit_ignores_what_is_no_amount() -> None:
    assert unit_for([math.nan, -1.0, 0.0, math.inf, 0.002]).symbol == "mJ"
    assert unit_for([]).symbol == "mJ"
    assert unit_for([1.0])(math.nan) == unit_for([1.0])(None) == ABSENT


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=10))
def test_mean_and_sample_deviation_are_those_of_numpy(values: list[float]) -> None:
    mean, std = (float(part) for part in mean_std(values, "{:.9f}").split(" ± "))
    assert mean == pytest.approx(np.mean(values), abs=1e-8)
    assert std == pytest.approx(np.std(values, ddof=1), abs=1e-8)


def test_one_value_has_no_deviation_and_nothing_is_a_dash() -> None:
    assert mean_std([88.125]) == "88.12"
    assert mean_std([]) == mean_std([math.nan]) == ABSENT


def test_small_formats() -> None:
    assert percent(0.87654) == "87.65" and percent(None) == percent(math.inf) == ABSENT
    assert signed_percent(-0.0142) == "−1.4 %" and signed_percent(0.02) == "+2.0 %"
    assert count(1234567) == "1,234,567" and count(None) == ABSENT
    assert seconds(7.26) == "7.3" and seconds(1234.5) == "1,234" and seconds(None) == ABSENT
    assert span([800, 800]) == "800" and span([790, 800]) == "790–800" and span([]) == ABSENT
    assert superscript(12) == "¹²"


def _plain(html: str) -> str:
    """The text of HTML that has no element but one paragraph or cell."""
    assert not re.search(r"<(?!/?(?:p|td)\b)", html), html
    return unescape(re.sub(r"<[^>]*>", "", html))


@settings(deadline=None)
@given(st.text(st.sampled_from("ab1 _*`[]()<>|\\~&;$#!x\n"), max_size=30))
def test_a_markdown_reader_sees_escaped_text_as_it_was(text: str) -> None:
    line = " ".join(text.split())
    assume(line)
    assert _plain(MARKDOWN.render(f"x {escape(text)}")).strip() == f"x {line}".strip()


@settings(deadline=None)
@given(st.text(st.sampled_from("ab1 _*`[]<>|\\&;"), max_size=20))
def test_escaped_text_stays_in_its_cell(text: str) -> None:
    html = MARKDOWN.render(table((["head", "n"], [[f"x {escape(text)}", "7"]])))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert unescape(cells[0]) == f"x {' '.join(text.split())}".strip() and cells[1:] == ["7"]


def test_a_table_is_aligned_as_text_and_as_markdown() -> None:
    text = table((["Method", "±"], [["ECC", "89.00 ± 1.00"], ["a longer name", "1"]]))
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    assert lines[1].count("-:") == 1
    assert MARKDOWN.render(text).count("<td") == 4


def test_a_table_refuses_a_ragged_row() -> None:
    with pytest.raises(ValueError, match="expected 2 cells in a row, got 1"):
        table((["a", "b"], [["1"]]))


def test_multiply_adds_have_large_units() -> None:
    assert unit_for([4.1e6, 9e5], "MAC").named(1_646_500) == "1.6465 MMAC"
    assert unit_for([2e9], "MAC").symbol == "GMAC" and unit_for([500.0, 2e3], "MAC").symbol == "kMAC"
    assert unit_for([2e3], "J").symbol == "J"

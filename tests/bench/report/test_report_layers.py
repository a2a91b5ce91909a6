"""The figure of a network's layers: every cause is drawn and named, and a bar is as long as the layer's amount."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from bench.report import layers
from bench.report.text import unit_for
from bench.studies.eyeriss import amounts
from bench.studies.eyeriss.page import _by_level
from shared.platforms.simulated import CAUSES


def test_the_chip_has_as_many_causes_as_colours() -> None:
    assert len(_by_level(amounts("alexnet")).columns) == len(layers.COLOURS) == len(set(layers.COLOURS))
    assert len(CAUSES) <= len(layers.COLOURS)


def test_every_cause_is_in_the_figure_and_bars_end_at_the_layers_amounts() -> None:
    joules = pd.DataFrame({f"cause {k}": [0.001 * (k + 1), 0.002] for k in range(7)}, index=["conv1", "fc"])
    unit = unit_for(joules.sum(axis=1), "J")
    figure = layers._figure(joules / unit.size, unit, "a title")
    (axes,) = figure.axes
    ends = [0.0, 0.0]
    for bars in axes.containers:
        for row, bar in enumerate(bars):
            assert isinstance(bar, Rectangle) and bar.get_x() == pytest.approx(ends[row])
            ends[row] += bar.get_width()
    assert ends == pytest.approx([28.0, 14.0]) and unit.symbol == "mJ"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(joules.columns)

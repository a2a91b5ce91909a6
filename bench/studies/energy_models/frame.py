"""The study's figures as one frame, a row per part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.studies.energy_models.plan import Plan, parts

PLACE = ["network", "platform", "kind"]  # where a model is fitted, and what kind of terms it has


def frame(data: Mapping[str, Any]) -> pd.DataFrame:
    """A row per part in the order of the page: the fields of `Part`, `way` and the part's figures.

    way     targets and weight decay of a training, as a page names them: "joules, 1/8000"
    error   held-out mean |Ê - E| / E; for a training after its last iteration, with earlier ones in `curve`

    Names of nested figures have dots: `sizes.100`, `random.mean`, `worst.excess`. Figures that a part lacks are NaN.
    Raises KeyError naming a part that `data` lacks.
    """
    rows = []
    for part in parts(Plan.of(data)):
        figures = data["parts"][part.name]
        row = part._asdict() | figures
        if "curve" in figures:
            row |= {"way": way_title(part.scaled, part.decay), "error": figures["curve"][-1][1]}
        rows.append(row)
    return pd.json_normalize(rows, max_level=1)


def way_title(scaled: bool, decay: float) -> str:
    """The page's name for a way of reading "weight decay 1.0"."""
    return f"{'mean 1' if scaled else 'joules'}, {decay_title(decay)}"


def decay_title(decay: float) -> str:
    """The decay as text: 0.000125 is "1/8000"."""
    return f"{decay:g}" if decay >= 1e-3 else f"1/{1 / decay:.0f}"


def of_study(figures: pd.DataFrame, study: str, **fields: Any) -> pd.DataFrame:
    """The parts of one study whose fields have these values."""
    chosen = figures["study"].eq(study)
    for name, value in fields.items():
        chosen &= figures[name].eq(value)
    return figures[chosen]

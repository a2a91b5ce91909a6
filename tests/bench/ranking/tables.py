"""Runs of a page as `bench.ranking` reads them, without records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

BUDGETS = (0.3, 0.35, 0.4, 0.45, 0.5)


def page(
    accuracies: dict[str, ArrayLike],
    budgets: Sequence[float] = BUDGETS,
    missed: Sequence[tuple[str, float, int]] = (),
    ranks: bool = True,
) -> pd.DataFrame:
    """A row per run. accuracies: method -> (seeds, budgets), 0..1. Networks read 1 % below their budgets.

    missed: (method, budget, seed) of runs that missed.
    """
    rows = []
    for method, table in accuracies.items():
        for seed, row in enumerate(np.asarray(table, dtype=float)):
            for budget, accuracy in zip(budgets, row, strict=True):
                ok = (method, budget, seed) not in missed
                rows.append(
                    {
                        "page": "a-page",
                        "method": method,
                        "seed": seed,
                        "budget": f"{budget:.6g}",
                        "budget.amount": budget,
                        "granularity": "channels",
                        "ok": ok,
                        "reason": None if ok else "Infeasible: too little",
                        "measures.reading": 0.99 * budget if ok else np.nan,
                        "measures.accuracy_after": accuracy if ok else np.nan,
                        "protocol.ranks": ranks,
                        "protocol.name": "standard" if ranks else "quick",
                    }
                )
    return pd.DataFrame(rows)

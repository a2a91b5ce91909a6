"""Which of the paper's claims about energy models hold, for each way to read its training settings."""

from __future__ import annotations

import pandas as pd

from bench.report.text import Table, percent
from bench.studies.energy_models.frame import of_study
from shared.energy.terms import KINDS

# The figures that count as the paper's words; both are this suite's choice.
AROUND = (0.02, 0.04)  # "around 0.03"
NOTICEABLE = 0.005  # of mean relative error: half a percentage point
CHAIN = KINDS[0]  # the paper's terms
_CLAIMED = {
    "error, 1080ti": ("error without hidden layers, 1080 Ti (Figure 2)", "around 3 %"),
    "error, tx2": ("error without hidden layers, TX2 (Figure 2)", "around 3 %"),
    "gain, 1080ti": ("gain by the best of 1 to 3 hidden layers, 1080 Ti (Figure 3)", "not noticeable"),
    "loss, tx2": ("loss by 1 to 3 hidden layers, their mean, TX2 (Figure 3)", "significant"),
}


def claimed(figures: pd.DataFrame, study: str) -> pd.DataFrame:
    """The trainings that the claims are about: those of the first network with the paper's terms."""
    return of_study(figures, study, network=figures["network"].iloc[0], kind=CHAIN)


def ways(figures: pd.DataFrame) -> list[str]:
    """The readings of the weight decay that are tried."""
    return list(claimed(figures, "adam")["way"].unique())


def judged(figures: pd.DataFrame, way: str) -> dict[str, tuple[float, bool]]:
    """Claim -> (figure, whether it agrees) under one reading."""
    adam, deep = (claimed(figures[figures["way"] == way], study) for study in ("adam", "depth"))
    errors = deep.pivot(index="platform", columns="depth", values="error")
    gain = (errors[0] - errors.drop(columns=0).min(axis=1)).get("1080ti")
    loss = (errors.drop(columns=0).mean(axis=1) - errors[0]).get("tx2")
    claims = {
        f"error, {platform}": (error, AROUND[0] <= error <= AROUND[1])
        for platform, error in zip(adam["platform"], adam["error"], strict=True)
    }
    if gain is not None:
        claims["gain, 1080ti"] = (gain, gain < NOTICEABLE)
    if loss is not None:
        claims["loss, tx2"] = (loss, loss > NOTICEABLE)
    return claims


def claims_table(figures: pd.DataFrame) -> Table:
    """A row per claim: the claimed figure, then the one obtained with each reading. Points are percentage points."""
    by_way = {way: judged(figures, way) for way in ways(figures)}
    rows = []
    for claim in next(iter(by_way.values())):
        unit = " %" if claim.startswith("error") else " points"
        judgements = [of_way[claim] for of_way in by_way.values()]
        cells = [f"{percent(figure)}{unit}, {'agrees' if agrees else 'differs'}" for figure, agrees in judgements]
        rows.append([*_CLAIMED[claim], *(cell.replace("-", "−") for cell in cells)])
    return ["MobileNet", "claimed (metered)", *(f"obtained (simulated): {way}" for way in by_way)], rows


def verdicts(figures: pd.DataFrame) -> dict[str, tuple[list[str], list[str]]]:
    """Claim, and "all" of them at once -> (readings with which it agrees, readings with which it does not)."""
    by_claim: dict[str, tuple[list[str], list[str]]] = {}
    for way in ways(figures):
        holds = {claim: agrees for claim, (_, agrees) in judged(figures, way).items()}
        for claim, agrees in (holds | {"all": all(holds.values())}).items():
            by_claim.setdefault(claim, ([], []))[not agrees].append(way)
    return by_claim


def unsettled(figures: pd.DataFrame, platform: str) -> list[str]:
    """The trainings with hidden layers whose error moved noticeably in the last half of their iterations."""
    deep, lines = claimed(figures[figures["platform"] == platform], "depth"), []
    for depth, way, curve in deep.loc[deep["depth"] > 0, ["depth", "way", "curve"]].itertuples(index=False):
        halfway = next(error for step, error in curve if 2 * step >= curve[-1][0])
        moved = curve[-1][1] - halfway
        if abs(moved) > NOTICEABLE:
            points = f"{100 * moved:+.1f}".replace("-", "−")
            lines.append(f"{depth} with {way} ({points} points)")
    return lines

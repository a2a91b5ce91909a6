"""Which of the paper's claims about energy models hold under which reading of its training."""

from __future__ import annotations

from typing import Any

from bench.energy_study.plan import DEPTHS, Part, Plan, readings
from bench.energy_study.plots import CHAIN, reading_title
from bench.report.text import percent, table

# When a figure counts as what the paper says in words; both are this suite's choice.
AROUND = (0.02, 0.04)  # "around 0.03"
NOTICEABLE = 0.005  # of mean relative error: half a percentage point
Way = tuple[bool, float]  # scaled targets, weight decay


def final(data: dict[str, Any], part: Part) -> float:
    """The error after the last iteration."""
    return float(data["parts"][part.name]["curve"][-1][1])


def by_depth(data: dict[str, Any], network: str, platform: str, kind: str, way: Way) -> list[float]:
    """The final errors of no, one, two and three hidden layers."""
    return [final(data, Part("depth", network, platform, kind, *way, depth)) for depth in DEPTHS]


def judged(data: dict[str, Any], plan: Plan, way: Way) -> dict[str, tuple[float, bool]]:
    """Claim -> (figure, whether it agrees) under one reading; the claims are about the first network."""
    network = plan.networks[0][0]
    found = {}
    for platform in plan.platforms:
        error = final(data, Part("adam", network, platform, CHAIN, *way))
        found[f"error, {platform}"] = (error, AROUND[0] <= error <= AROUND[1])
    for platform in plan.platforms:
        plain, *deeper = by_depth(data, network, platform, CHAIN, way)
        if platform == "1080ti":
            found["gain, 1080ti"] = (plain - min(deeper), plain - min(deeper) < NOTICEABLE)
        if platform == "tx2":
            loss = sum(deeper) / len(deeper) - plain
            found["loss, tx2"] = (loss, loss > NOTICEABLE)
    return found


_CLAIMED = {
    "error, 1080ti": ("error without hidden layers, 1080 Ti (Figure 2)", "around 3 %"),
    "error, tx2": ("error without hidden layers, TX2 (Figure 2)", "around 3 %"),
    "gain, 1080ti": ("gain by the best of 1 to 3 hidden layers, 1080 Ti (Figure 3)", "not noticeable"),
    "loss, tx2": ("loss by 1 to 3 hidden layers, their mean, TX2 (Figure 3)", "significant"),
}


def claims_table(data: dict[str, Any], plan: Plan, ways: list[Way]) -> str:
    """Claimed and obtained in columns of their own; points are percentage points of the error."""
    by_way = [judged(data, plan, way) for way in ways]
    rows = []
    for claim in by_way[0]:
        title, claimed = _CLAIMED[claim]
        unit = " %" if claim.startswith("error") else " points"
        cells = [f"{percent(found[claim][0])}{unit}, {'agrees' if found[claim][1] else 'differs'}" for found in by_way]
        rows.append([title, claimed, *(cell.replace("-", "−") for cell in cells)])
    head = ["MobileNet", "claimed (metered)", *(f"obtained (simulated): {reading_title(*way)}" for way in ways)]
    return table(head, rows, left=2)


def verdicts(data: dict[str, Any], plan: Plan) -> dict[str, tuple[list[str], list[str]]]:
    """Claim, and "all" of them at once -> (readings under which it agrees, under which it does not)."""
    ways = readings(plan, plan.networks[0][0], CHAIN)
    found: dict[str, tuple[list[str], list[str]]] = {}
    for way in ways:
        held = {claim: agrees for claim, (_, agrees) in judged(data, plan, way).items()}
        for claim, agrees in (held | {"all": all(held.values())}).items():
            found.setdefault(claim, ([], []))[not agrees].append(reading_title(*way))
    return found


def unsettled(data: dict[str, Any], plan: Plan, platform: str) -> list[str]:
    """The first network's trainings with hidden layers whose error moved noticeably in the last half of iterations."""
    network = plan.networks[0][0]
    found = []
    for way in readings(plan, network, CHAIN):
        for depth in DEPTHS[1:]:
            curve = data["parts"][Part("depth", network, platform, CHAIN, *way, depth).name]["curve"]
            halfway = next(error for step, error in curve if 2 * step >= plan.depth_steps)
            moved = curve[-1][1] - halfway
            if abs(moved) > NOTICEABLE:
                points = f"{100 * moved:+.1f}".replace("-", "−")
                found.append(f"{depth} with {reading_title(*way)} ({points} points)")
    return found

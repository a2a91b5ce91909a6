"""Chooses one learning rate per protocol on the search split (a validation split), and writes the grid down.

With a rate far too small for the protocol's iterations, gradual methods score many points above one-shot ones. So the
chosen rate is the one with the highest mean search accuracy over the controls, one-shot and gradual. The grids of
compared methods stand beside it and decide nothing: they show what a rate of its own would be worth to each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bench.setup.plan import Plan
from bench.setup.request import Request
from bench.studies.trials import at_tightest, planned, scores, trial
from methods import registry
from shared.cache import atomic_write

GRID = (3e-4, 1e-3, 2e-3, 4e-3, 8e-3)
CONTROLS = ("uniform", "uniform-gradual")


def tune(request: Request, *, jobs: int, folder: Path, console: Console) -> None:
    """Run the controls and the request's methods at the protocol's tightest budget over GRID; write the page.

    The page is `folder`/learning-rate-<protocol>.md for MobileNet, else learning-rate-<protocol>-<network>.md. Its
    scores lie in a JSON file of that name in `folder`/records.
    """
    names = dict.fromkeys([*CONTROLS, *request.methods.split(",")])
    request = replace(request, methods=",".join(names))
    plan = planned(request)
    chosen = [job for job in at_tightest(plan) if job.seed == plan.jobs[0].seed]
    network = "" if request.network == Request.network else f"-{request.network}"
    name = f"learning-rate-{request.protocol}{network}"
    trials = [trial(plan, job, registry.get(job.method), rate) for rate in GRID for job in chosen]

    def say(line: str) -> None:
        console.print(line, highlight=False)

    found = scores(trials, jobs, folder / f"records/{name}.json", say)
    # a miss counts as the worst score
    grid = {(one.job.method, one.rate or 0.0): score or 0.0 for one, score in zip(trials, found, strict=True)}
    text = page(plan, [job.method for job in chosen], grid)
    atomic_write(folder / f"{name}.md", text.encode())
    say(text)
    say(f"written to {folder / name}.md")


def page(plan: Plan, methods: Sequence[str], grid: dict[tuple[str, float], float]) -> str:
    """The page of the grid: scores (0..1) by method and rate, the controls first."""
    rates = sorted({rate for _, rate in grid})
    means = {rate: sum(grid[method, rate] for method in CONTROLS) / len(CONTROLS) for rate in rates}
    best = max(means, key=lambda rate: means[rate])
    job = at_tightest(plan)[0]
    assert job.budget is not None
    request, others = plan.setup.request, [method for method in methods if method not in CONTROLS]
    network = "" if request.network == Request.network else f" for {request.network}"
    lines = [
        f"# Learning rate of the protocol `{plan.setup.protocol.name}`{network}",
        "",
        f"Search accuracy in % after compression and fine-tuning at {job.budget.fraction:.3g} of the dense joules "
        f"({request.network} on {request.dataset}, {request.device}, {plan.setup.platform.source}), "
        f"seed {job.seed}. The controls alone choose the rate, which holds for every method.",
        "",
        "| learning rate | " + " | ".join([*CONTROLS, "their mean", *others]) + " |",
        "| ---: |" + " ---: |" * (len(methods) + 1),
    ]
    for rate in rates:
        shares = [*(grid[method, rate] for method in CONTROLS), means[rate], *(grid[other, rate] for other in others)]
        mark = " (best)" if rate == best else ""
        lines.append(f"| {rate:g}{mark} | " + " | ".join(f"{100 * share:.2f}" for share in shares) + " |")
    if 0.0 in grid.values():
        lines += ["", "A score of 0.00 is a miss: the budget was out of reach, or training diverged."]
    edge = " It lies on the edge of the grid: widen the grid." if best in (rates[0], rates[-1]) else ""
    lines += ["", f"Chosen: {best:g}.{edge}"]
    for other in others:
        own = max(rates, key=lambda rate: grid[other, rate])
        gain = 100 * (grid[other, own] - grid[other, best])
        lines.append(f"Of its own {other} would take {own:g}, for {gain:+.2f} points.")
    return "\n".join([*lines, ""])

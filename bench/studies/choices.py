"""Studies that choose how a method is made: variants of it on the search split, with seeds that no page uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from bench.report.text import mean_std, table
from bench.setup.request import Request
from bench.studies.trials import planned, scores, trial
from methods.contract import Method
from shared.cache import atomic_write
from shared.host import print_any_text, usable_cores

COLUMNS = ["network", "budget", "variant", "seed", "score"]
COMMON = Request(methods="ecc", protocol="standard", seeds="101,102,103", meter="sim", device="1080ti")
REQUESTS = tuple(replace(COMMON, network=network, budgets="0.45,0.3") for network in ("mobilenet", "alexnet"))


@dataclass(frozen=True)
class Choice:
    """A study. name: of its page, its records and, with underscores, its module. columns: what the variants are."""

    name: str
    title: str
    columns: str
    variants: Mapping[str, Method]
    verdict: Callable[[Mapping[str, float]], str]  # from the variants' means in %

    def write(self, folder: Path, jobs: int, say: Callable[[str], None] = print) -> Path:
        """Run all variants in `jobs` processes and write the page into `folder`; returns its path."""
        trials = [
            trial(plan, replace(job, method=method.name), method)
            for plan in map(planned, REQUESTS)
            for job in plan.jobs
            for method in self.variants.values()
        ]
        trials.sort(key=lambda one: one.job.seed)  # so that a stopped study has whole seeds
        found = scores(trials, jobs, folder / f"records/{self.name}.json", say)
        variants = {method: name for name, method in self.variants.items()}
        rows = [
            (one.request.network, one.job.budget.name, variants[one.method], one.job.seed, score)
            for one, score in zip(trials, found, strict=True)
            if one.job.budget is not None
        ]
        path = folder / f"{self.name}.md"
        atomic_write(path, self.page(pd.DataFrame(rows, columns=COLUMNS)).encode())
        return path

    def page(self, scores: pd.DataFrame) -> str:
        """The page. scores: a row per run with COLUMNS; scores are 0..1."""
        names = list(self.variants)
        cells = scores.groupby(["network", "budget", "variant"], sort=False)["score"]
        texts = cells.agg(lambda column: mean_std(100 * column)).unstack("variant")[names]
        means = 100 * cells.mean().groupby("variant").mean()
        rows = [[", ".join(place), *row] for place, row in zip(texts.index, texts.to_numpy().tolist(), strict=True)]
        rows.append(["mean", *(f"{means[name]:.2f}" for name in names)])
        seeds = ", ".join(map(str, sorted(scores["seed"].unique())))
        lines = [
            f"# {self.title}",
            "",
            f"Search accuracy in % after fine-tuning, mean ± sample standard deviation over the seeds {seeds}, which "
            f"no page uses: protocol {COMMON.protocol}, fashion-mnist, simulated {COMMON.device}, budgets as fractions "
            f"of the dense joules. {self.columns}",
            "",
            table((["network, budget", *names], rows)),
            "",
            self.verdict({name: float(means[name]) for name in names}),
            "",
            f"`python -m bench.studies.{self.name.replace('-', '_')} reports` makes this page.",
            "",
        ]
        return "\n".join(lines)

    def main(self) -> None:
        """The command line: the folder of the page."""
        print_any_text()
        print(self.write(Path(sys.argv[1]), usable_cores()))

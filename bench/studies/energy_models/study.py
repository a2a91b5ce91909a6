"""The study of energy models behind the page `energy-models.md`: section 4.2 of the ECC paper on simulated platforms.

Yang, Zhu, Liu, CVPR 2019. One data file holds its figures; the page and its plots are made from them.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.report.style import same_plot
from bench.setup.environment import environment
from bench.studies.energy_models.page import NAME, page_files
from bench.studies.energy_models.parts import compute, ground
from bench.studies.energy_models.plan import Part, Plan, parts
from shared.cache import atomic_write, checked_cache_dir
from shared.errors import BadInput

DATA = f"records/{NAME}.json"


def write(folder: Path, plan: Plan | None = None, *, jobs: int = 2, say: Callable[[str], None] = print) -> Path:
    """Compute what the data file in `folder` lacks, then write page and plots beside it; returns the page's path.

    The file is saved after every part, so a stopped study goes on where it was. Parts from another plan, other
    constants of the platforms or other networks are dropped. After a change of the study's code delete the file. `jobs`
    processes of one thread each take some eight minutes on two idle cores, and no time when the file is complete.
    """
    plan = plan or Plan()
    checked_cache_dir()
    path, basis = folder / DATA, _basis(plan)
    data = _load(path) if path.is_file() else {}
    if any(data.get(key) != value for key, value in basis.items()):
        data = basis | {"environment": environment(), "parts": {}}
    wanted = parts(plan)
    missing = [part for part in wanted if part.name not in data["parts"]]
    done = len(wanted) - len(missing)
    for part, figures in _computed(plan, missing, jobs):
        data["parts"][part.name] = figures
        done += 1
        ordered = {each.name: data["parts"][each.name] for each in wanted if each.name in data["parts"]}
        atomic_write(path, (json.dumps(data | {"parts": ordered}, indent=1) + "\n").encode())
        say(f"{done} of {len(wanted)}: {part.name} in {figures['seconds']:.1f} s")
    for name, content in page_files(_load(path)).items():
        atomic_write(folder / name, content)
    return folder / f"{NAME}.md"


def check(folder: Path) -> list[str]:
    """How the page and its plots in `folder` differ from what their data make: a line per file that differs.

    Empty where the page was never written. Plots are compared as those of other pages are.
    """
    present = {path.name for path in folder.glob(f"{NAME}*") if path.suffix in (".md", ".svg")}
    if not (folder / DATA).is_file():
        return [f"{name}: no {DATA} behind it" for name in sorted(present)]
    try:
        data = _load(folder / DATA)
        expected = page_files(data)
    except (BadInput, KeyError, TypeError) as error:
        return [f"{DATA}: expected the figures of a whole study, got {error!s}; try writing the page again"]
    problems = [f"{name}: no data behind it" for name in sorted(present - set(expected))]
    for name, content in expected.items():
        if name not in present:
            problems.append(f"{name}: missing")
        elif not _same(name, (folder / name).read_bytes(), content):
            problems.append(f"{name}: not what {DATA} makes")
    return problems


def _same(name: str, committed: bytes, fresh: bytes) -> bool:
    return same_plot(committed, fresh) if name.endswith(".svg") else committed == fresh


def _basis(plan: Plan) -> dict[str, Any]:
    """What the figures depend on beside the code, in the form that JSON reads back."""
    names = [name for name, _ in plan.networks]
    grounds = {(name, platform): ground(plan, name, platform) for name in names for platform in plan.platforms}
    basis = {
        "plan": asdict(plan),
        "source": sorted({base.platform.source for base in grounds.values()}),
        "calibrations": {platform: base.platform.calibration for (_, platform), base in grounds.items()},
        "networks": {name: base.structure.fingerprint for (name, _), base in grounds.items()},
    }
    return dict(json.loads(json.dumps(basis)))


def _load(path: Path) -> dict[str, Any]:
    """The data file's content; raises BadInput for text that is no JSON object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"JSON in {path}", str(error), "deleting it") from None
    if not isinstance(data, dict):
        raise BadInput(f"an object in {path}", type(data).__name__, "deleting it")
    return data


def _computed(plan: Plan, missing: list[Part], jobs: int) -> Iterator[tuple[Part, dict[str, Any]]]:
    """Every missing part with its figures, in the order in which they are ready."""
    if jobs == 1:
        for part in missing:
            yield part, compute(plan, part)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start_worker) as pool:
        futures = {pool.submit(compute, plan, part): part for part in missing}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _start_worker() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # a strong weight decay leaves subnormal numbers, which are slow

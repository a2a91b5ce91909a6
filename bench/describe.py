"""Puts a finished run into a record."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from bench import record as records
from bench.dense import DenseWeights
from bench.environment import environment
from bench.plan import Ground, Job
from methods import registry
from methods.contract import Method, Outcome
from shared.cache import content_key
from shared.ledger import Ledger
from shared.networks import structure
from shared.platforms import SimulatedPlatform

if TYPE_CHECKING:
    from bench.harness import Seconds


DECIDING = (
    "harness",
    "readings",
    "repair",
    "rules",
    "describe",
    "teacher",
    "plan",
    "budgets",
    "dense",
    "protocols",
)  # modules of bench


@cache
def code_fingerprint() -> str:
    """SHA-256 (16 digits) over the code that decides every run's figures, whatever its method.

    Shared/, the contract and the deciding modules of bench/.
    """
    root = Path(__file__).parent.parent
    files = [
        *(root / "shared").rglob("*.py"),
        root / "methods/contract.py",
        *(root / f"bench/{n}.py" for n in DECIDING),
    ]
    return _hash_of_files(files, root)


def method_fingerprint(method: Method) -> str:
    """SHA-256 (16 digits) over the method's own package, or over its module where that lies in no package."""
    file = Path(inspect.getfile(type(method)))
    in_package = (file.parent / "__init__.py").is_file()
    return _hash_of_files(file.parent.rglob("*.py") if in_package else [file], file.parent)


def _hash_of_files(files: Iterable[Path], root: Path) -> str:
    return content_key(*([file.relative_to(root).as_posix(), file.read_bytes()] for file in sorted(files)))


def measures(small: nn.Module, accuracy_before: float, accuracy_after: float, ground: Ground) -> records.Measures:
    """Widths, amounts and size of the cut network. A reading of hardware is taken later."""
    anatomy = structure(small)
    widths = anatomy.upper_bounds
    positions = ground.structure.positions(torch.tensor([widths]))
    reading = None
    if isinstance(ground.platform, SimulatedPlatform):
        amounts = ground.platform.true(ground.structure.operations, positions.numpy(), ground.inference_batch)
        reading = float(amounts[0])
    return records.Measures(
        widths=widths,
        upper_bounds=ground.structure.upper_bounds,
        estimate=float(ground.fit.model(positions)[0]),
        reading=reading,
        interval=None,
        flags=(),
        detail=None,
        parameters=int(anatomy.parameters(widths)),
        macs=int(anatomy.macs(widths)),
        accuracy_before=accuracy_before,
        accuracy_after=accuracy_after,
    )


def record(
    job: Job,
    key: str,
    ground: Ground,
    dense: DenseWeights,
    outcome: Outcome,
    reason: str | None,
    measured: records.Measures | None,
    small: nn.Module | None,
    ledger: Ledger,
    fine_tuning: Ledger,
    seconds: Seconds,
    command: str,
) -> records.Record:
    """The record of a run; `reason` is None when it kept all rules, `small` is the cut network where there is one."""
    method = registry.get(job.method)
    dense_config = {"name": ground.workload.network, **dict(ground.workload.arguments)}
    return records.Record(
        key=key,
        method=job.method,
        title=method.title,
        paper=method.paper,
        network=dense_config if small is None else dict(small.config),  # type: ignore[arg-type]
        dataset=ground.workload.dataset,
        score=ground.dataset.objective.score_name,
        platform=records.Platform(
            name=ground.platform.name,
            source=ground.platform.source,
            unit=ground.platform.unit,
            meter=ground.platform.meter,
            calibration=ground.platform.calibration,
            host=ground.platform.host,
            inference_batch=ground.inference_batch,
            input_shape=ground.dataset.input_shape,
        ),
        protocol=asdict(ground.protocol),
        seed=job.seed,
        budget=None
        if job.budget is None
        else records.Budget(
            fraction=job.budget.fraction,
            amount=job.budget.amount,
            dense_reading=ground.dense_reading,
            dense_estimate=ground.dense_estimate,
        ),
        status="ok" if reason is None else "miss",
        reason=reason,
        dense_accuracy=dense.accuracy,
        measures=measured,
        repair=None,
        first_pass=None,
        dense_again=None,
        cost=records.Cost(
            **ledger.as_record(),  # type: ignore[arg-type]
            measurements=0,
            fine_tune_iterations=fine_tuning.training_iterations,
            method_s=seconds.method,
            fine_tune_s=seconds.fine_tune,
            distillation_step_s=seconds.distillation_step,
            forward_s_per_image=seconds.forward_per_image,
        ),
        energy_fit=records.EnergyFit(
            kind=ground.energy_model,
            relative_error=ground.fit.relative_error,
            skill=ground.fit.skill,
            dense_relative_error=ground.fit.dense_relative_error,
            samples=len(ground.profile.amounts),
            noise=ground.profile.noise,
        ),
        fingerprints={
            "dataset": ground.dataset.fingerprint,
            "dense_weights": dense.fingerprint,
            "profile": ground.profile.key,
            "energy_model": content_key(ground.fit.model.to_dict()),
            "code": code_fingerprint(),
            "compute": content_key(ground.computing.told),
        },
        notes=outcome.notes,
        trace=outcome.trace,
        environment=environment(ground.computing) | {"command": command, "method_source": method_fingerprint(method)},
        network_sha256=None,
    )

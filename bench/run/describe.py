"""Builds the record of a run from the files of its stages."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor

from bench.record import model as records
from bench.run.stages import Run
from bench.run.zeros import Zeros
from bench.setup.fingerprints import code_fingerprint, method_fingerprint, revision_of_results
from bench.setup.setup import Setup
from methods import registry
from shared.cache import content_key
from shared.checkpoints import State
from shared.ledger import Ledger


def describe(run: Run) -> tuple[records.Record, dict[str, Tensor] | None]:
    """The record of a run whose stages are done, and its network's tensors, which are None after a miss."""
    setup, method = run.setup, registry.get(run.job.method)
    spent, tuned = Ledger(0), Ledger(0)
    compressed = run.read("compress", spent) or {}
    landed, fine_tuned = run.read("land") or {}, run.read("tune", tuned) or {}
    scores = run.read("score")
    seconds = compressed["seconds"]
    environment = json.loads(compressed["environment"])
    record = records.Record(
        key=run.key,
        method=run.job.method,
        title=method.title,
        paper=method.paper,
        network=_network(setup, None if scores is None else fine_tuned["widths"]),
        dataset=setup.workload.dataset,
        score=setup.dataset.objective.score_name,
        platform=_platform(setup),
        protocol=setup.protocol,
        seed=run.job.seed,
        granularity=method.granularity,
        budget=_budget(run),
        status="miss" if scores is None else "ok",
        reason=compressed.get("reason") or landed.get("reason"),
        dense_accuracy=setup.dense.accuracy,
        landing=json.loads(landed["landing"]) if "landing" in landed else None,
        measures=None if scores is None else _measures(run, fine_tuned, scores),
        cost=records.Cost(
            training_iterations=spent.training_iterations,
            search_samples=spent.search_samples,
            energy_queries=spent.energy_queries,
            landing_readings=landed.get("readings", 0),
            fine_tune_iterations=tuned.training_iterations,
            method_s=seconds["method"],
            fine_tune_s=fine_tuned.get("seconds", 0.0),
            distillation_step_s=seconds["distillation_step"],
            forward_s_per_image=seconds["forward_per_image"],
        ),
        energy_fit=_energy_fit(setup),
        local_fit=_local_fit(run),
        fingerprints={
            "dataset": setup.dataset.fingerprint,
            "dense_weights": setup.dense.fingerprint,
            "profile": setup.profile.key,
            "energy_model": content_key(setup.fit.model.to_dict()),
            "code": code_fingerprint(),
            "results": revision_of_results(method),
            "compute": content_key(setup.computing.label),
        },
        notes=json.loads(compressed["notes"]),
        trace=json.loads(compressed["trace"]),
        environment=environment | {"command": setup.request.command, "method_source": method_fingerprint(method)},
        network_sha256=None,
    )
    return record, fine_tuned.get("network") if scores else None


def _network(setup: Setup, widths: list[int] | None) -> dict[str, Any]:
    """Arguments of shared.networks.build for the network at `widths`, and its label where that is not its name."""
    config: dict[str, Any] = setup.dense.network.config  # type: ignore[assignment]
    label = setup.workload.label
    return {**config, "widths": widths} | ({} if label == config["name"] else {"label": label})


def _platform(setup: Setup) -> records.Platform:
    names = ("name", "source", "unit", "meter", "calibration", "host")
    return records.Platform(
        **{name: getattr(setup.platform, name) for name in names},
        inference_batch=setup.inference_batch,
        input_shape=setup.dataset.input_shape,
    )


def _budget(run: Run) -> records.Budget | None:
    budget = run.job.budget
    if budget is None:
        return None
    reach = run.setup.reach_at(budget)
    return records.Budget(
        fraction=budget.fraction,
        amount=budget.amount,
        dense_reading=reach.dense_reading,
        dense_estimate=reach.dense_estimate,
    )


def _measures(run: Run, fine_tuned: State, scores: State) -> records.Measures:
    setup, widths = run.setup, tuple(fine_tuned["widths"])
    read = run.read("read")
    assert read is not None, "the score comes after the reading"
    reading: dict[str, Any] = json.loads(read["reading"])
    zeros = Zeros(**read.get("zeros", Zeros(0.0, 0, 0)._asdict()))
    return records.Measures(
        widths=widths,
        upper_bounds=setup.structure.upper_bounds,
        estimate=setup.estimate(widths, run.job.budget) - zeros.joules,
        reading=reading.pop("amount"),
        **reading,
        parameters=int(setup.structure.parameters(widths)) - zeros.weights,
        macs=int(setup.structure.macs(widths)) - zeros.multiply_adds,
        accuracy_before=scores["accuracy_before"],
        accuracy_after=scores["accuracy_after"],
    )


def _energy_fit(setup: Setup) -> records.EnergyFit:
    fit = setup.fit
    return records.EnergyFit(
        kind=fit.kind,
        relative_error=fit.relative_error,
        skill=fit.skill,
        dense_relative_error=fit.dense_relative_error,
        samples=len(setup.profile.amounts),
        noise=setup.profile.noise,
    )


def _local_fit(run: Run) -> records.LocalFit | None:
    if run.job.budget is None:
        return None
    near = vars(run.setup.near(run.job.budget)).copy()
    return records.LocalFit(fingerprint=content_key(near.pop("model").to_dict()), **near)

"""One run from dense weights to record: the only place where a method meets test images and the platform's true joules."""

from __future__ import annotations

import copy
import hashlib
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import record as records
from bench.dense import DenseWeights
from bench.environment import environment
from bench.plan import Ground, Job
from methods import registry
from methods.contract import Infeasible, Method, Outcome, Task
from shared.cache import content_key
from shared.data import BatchStream
from shared.ledger import BudgetExhausted, Ledger
from shared.networks import active_widths, compact, structure
from shared.rng import forked
from shared.training import EVALUATION_BATCH, Teacher, Trainer, accuracy, recalibrate_batch_norm

BUDGET_TOLERANCE = 1e-9  # relative, for sums in another order
AGREEMENT = 1e-4  # masked against cut outputs, relative to the largest output, float32


class Miss(Exception):
    """A run that ended without a network that keeps the rules; the message is the reason."""


@dataclass(frozen=True)
class Result:
    """A finished run: its record and the network's tensors (None after a miss without a network)."""

    record: records.Record
    weights: dict[str, torch.Tensor] | None


def source_fingerprint(method: Method) -> str:
    """SHA-256 (16 digits) over the code that decides a run's outcome: shared rooms, contract, harness and the method's own package."""
    root = Path(__file__).parent.parent
    module = Path(__import__(type(method).__module__, fromlist=["_"]).__file__)
    files = [*sorted((root / "shared").rglob("*.py")), root / "methods/contract.py", Path(__file__)]
    files += sorted(module.parent.glob("*.py")) if module.is_relative_to(root) else [module]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def cosine(spent: float) -> float:
    """Factor on the learning rate during fine-tuning: half a cosine from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * spent))


def execute(
    job: Job,
    key: str,
    ground: Ground,
    dense: DenseWeights,
    teacher: Teacher,
    report: Callable[[str, float], None],
    command: str,
) -> Result:
    """Run `job` and describe it. A method that fails or breaks a rule becomes a record with status "miss" and its reason.

    `report(step, share)` is told how far the running step is, share in 0..1.
    """
    method = registry.get(job.method)
    protocol = ground.protocol
    stream = BatchStream(ground.dataset.train, job.seed, protocol.batch_size)
    ledger = Ledger(protocol.iterations, observer=lambda it: report("compress", it.training_iterations / max(1, it.limit)))
    budget_joules = math.inf if job.budget is None else job.budget.joules
    task = Task(
        network=copy.deepcopy(dense.network),
        structure=ground.structure,
        energy_model=ground.fit.model,
        budget_joules=budget_joules,
        protocol=protocol,
        seed=job.seed,
        ledger=ledger,
        train=stream,
        search=ground.dataset.search,
        teacher=teacher,
    )
    outcome, measures, weights, config, reason = Outcome(dense.network), None, None, {}, None
    costs = unit_costs(dense.network, stream, teacher, ground)
    method_s = fine_tune_s = 0.0
    fine_tune_ledger = Ledger(
        protocol.fine_tune_iterations, observer=lambda it: report("fine-tune", it.training_iterations / max(1, it.limit))
    )
    try:
        started = time.perf_counter()
        try:
            with forked(job.seed, job.method):
                outcome = method.run(task)
        finally:
            method_s = time.perf_counter() - started
        costs = [(before + after) / 2 for before, after in zip(costs, unit_costs(dense.network, stream, teacher, ground), strict=True)]
        _check_rules(task, dense, outcome, budget_joules)
        small = _cut(outcome.network, stream)
        recalibrate_batch_norm(small, (stream.batch(index) for index in range(protocol.recalibration_batches)))
        before = accuracy(small, ground.dataset.test)
        started = time.perf_counter()
        with forked(job.seed, "fine-tuning"):
            trainer = Trainer(
                small, stream, teacher, fine_tune_ledger, protocol, first_batch=protocol.iterations, schedule=cosine
            )
            while fine_tune_ledger.remaining:
                trainer.step()
        fine_tune_s = time.perf_counter() - started
        measures = _measure(small, before, ground)
        weights = {name: tensor.contiguous() for name, tensor in small.state_dict().items()}
        config = _config(small)
    except (Infeasible, BudgetExhausted, Miss) as miss:
        reason = str(miss)
    except Exception as error:  # a method of someone else's: the plan goes on, the record tells
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    return Result(
        records.Record(
            key=key,
            method=job.method,
            title=method.title,
            paper=method.paper,
            network=config or {"name": ground.workload.network, **dict(ground.workload.arguments)},
            dataset=ground.workload.dataset,
            platform=_platform(ground),
            protocol=asdict(protocol),
            seed=job.seed,
            budget=None if job.budget is None else _budget(job, ground),
            status="ok" if reason is None else "miss",
            reason=reason,
            dense_accuracy=dense.accuracy,
            measures=measures,
            cost=records.Cost(
                **ledger.as_record(),
                fine_tune_iterations=fine_tune_ledger.training_iterations,
                method_s=method_s,
                fine_tune_s=fine_tune_s,
                distillation_step_s=costs[0],
                forward_s_per_image=costs[1],
            ),
            energy_fit=_energy_fit(ground),
            fingerprints={
                "dataset": ground.dataset.fingerprint,
                "dense_weights": dense.fingerprint,
                "profile": ground.profile.key,
                "energy_model": content_key(ground.fit.model.to_dict()),
            },
            notes=outcome.notes,
            trace=outcome.trace,
            environment=environment() | {"command": command, "source": source_fingerprint(method)},
            network_sha256=None,
        ),
        weights,
    )


def unit_costs(dense: nn.Module, stream: BatchStream, teacher: Teacher, ground: Ground, repeats: int = 5) -> list[float]:
    """Seconds of a plain distillation step of the dense network, and of a bare forward pass per search image, medians on copies."""
    ledger = Ledger(repeats + 2)
    trainer = Trainer(copy.deepcopy(dense), stream, teacher, ledger, ground.protocol)
    model = copy.deepcopy(dense).eval()
    images, _ = ground.dataset.search.take(torch.arange(min(EVALUATION_BATCH, ground.protocol.search_images)))
    steps, passes = [], []
    with torch.no_grad():
        model(images)
    while ledger.remaining:
        started = time.perf_counter()
        trainer.step()
        steps.append(time.perf_counter() - started)
    for _ in range(3):
        started = time.perf_counter()
        with torch.no_grad():
            model(images)
        passes.append((time.perf_counter() - started) / len(images))
    return [sorted(steps[2:])[repeats // 2], sorted(passes)[1]]


def _check_rules(task: Task, dense: DenseWeights, outcome: Outcome, budget_joules: float) -> None:
    """The rules that every method's outcome must keep. Raises Miss with the first that is broken."""
    if task.ledger.remaining:
        raise Miss(f"spent {task.ledger.training_iterations} of {task.ledger.limit} training iterations; every method spends all")
    for (name, given), now in zip(dense.network.state_dict().items(), task.network.state_dict().values(), strict=True):
        if not torch.equal(given, now):
            raise Miss(f"changed the dense network in place ({name}); work on task.copy_of_dense()")
    for name, tensor in outcome.network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise Miss(f"returned a network with NaN or infinite values in {name}")
    widths = active_widths(outcome.network)
    estimate = float(task.energy_model(task.structure.positions(torch.tensor(widths))))
    if estimate > budget_joules * (1 + BUDGET_TOLERANCE):
        raise Miss(f"estimated {estimate:.6g} J per image, above the budget of {budget_joules:.6g} J")
    if min(widths) < 1:
        raise Miss(f"removed all channels of unit {widths.index(0) + 1} of {len(widths)}")


@torch.no_grad()
def _cut(network: nn.Module, stream: BatchStream) -> nn.Module:
    """The network without its zeroed channels; raises Miss when the outputs differ."""
    small = compact(network).to(memory_format=torch.channels_last)
    images, _ = stream.batch(0)
    whole, cut = network.eval()(images), small.eval()(images)
    worst = ((whole - cut).abs().max() / whole.abs().max().clamp(min=1e-30)).item()
    if not worst <= AGREEMENT:
        raise Miss(f"zeroed and cut network differ by {worst:.2g} of the largest output")
    return small


def _measure(small: nn.Module, accuracy_before: float, ground: Ground) -> records.Measures:
    """Widths, joules and size of the cut network, and its accuracy after fine-tuning."""
    widths = active_widths(small)
    positions = ground.structure.positions(torch.tensor([widths]))
    reading = ground.platform.true_joules(ground.structure.operations, positions.numpy(), ground.inference_batch)
    anatomy = structure(small)
    return records.Measures(
        widths=widths,
        upper_bounds=ground.structure.upper_bounds,
        estimate_joules=float(ground.fit.model(positions)[0]),
        reading_joules=float(reading[0]),
        parameters=int(anatomy.parameters(widths)),
        macs=int(anatomy.macs(widths)),
        accuracy_before=accuracy_before,
        accuracy_after=accuracy(small, ground.dataset.test),
    )


def _config(small: nn.Module) -> dict[str, Any]:
    config: dict[str, Any] = small.config  # type: ignore[assignment]
    return config


def _platform(ground: Ground) -> records.Platform:
    return records.Platform(
        name=ground.platform.name,
        source="simulated",
        meter="simulator",
        calibration=ground.platform.calibration,
        inference_batch=ground.inference_batch,
        input_shape=ground.dataset.input_shape,
    )


def _budget(job: Job, ground: Ground) -> records.Budget:
    assert job.budget is not None
    return records.Budget(
        fraction=job.budget.fraction,
        joules=job.budget.joules,
        dense_reading_joules=ground.dense_reading_joules,
        dense_estimate_joules=ground.dense_estimate_joules,
    )


def _energy_fit(ground: Ground) -> records.EnergyFit:
    fit = ground.fit
    return records.EnergyFit(
        kind="bilinear",
        relative_error=fit.relative_error,
        skill=fit.skill,
        dense_relative_error=fit.dense_relative_error,
        samples=len(ground.profile.joules),
    )

"""One run from dense weights to record.

The only place where a method meets test images and the platform's true joules.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench import describe
from bench.dense import DenseWeights
from bench.plan import Ground, Job
from bench.record import Measures, Record
from bench.rules import check_rules, checked, reason, steps_paid
from methods import registry
from methods.contract import Outcome, Task
from shared.checkpoints import Checkpoints, State
from shared.computing import Computing
from shared.data import Batches
from shared.errors import BadFile
from shared.ledger import Ledger
from shared.networks import structure
from shared.protocol import Protocol
from shared.rng import forked
from shared.training import Teacher, Trainer, evaluation_batch, recalibrate_batch_norm, score

Report = Callable[[str, float], None]  # (running step, share of it that is done)


@dataclass(frozen=True)
class Result:
    """A finished run: its record and the cut network's tensors (None after a miss)."""

    record: Record
    weights: dict[str, Tensor] | None


@dataclass
class Seconds:
    """Wall seconds of a run's parts, and of the two prices they are compared with (medians, before and after the
    method).
    """

    method: float = 0.0
    fine_tune: float = 0.0
    distillation_step: float = 0.0
    forward_per_image: float = 0.0


def execute(
    job: Job,
    key: str,
    ground: Ground,
    dense: DenseWeights,
    teacher: Teacher,
    report: Report,
    command: str,
    folder: Path | None = None,
) -> Result:
    """Run `job` and describe it; with a `folder` for its states it goes on where an earlier process was stopped.

    A method that fails or breaks a rule becomes a record with status "miss" and its reason. Raises BadFile for a file
    of the data set that can't be used.
    """
    resumed = folder is not None and folder.exists()
    task = make_task(job, ground, dense, teacher, report)
    fine_tuning = Ledger(ground.protocol.fine_tune_iterations, observer=_reporter("fine-tune", report))
    outcome, seconds, missed = Outcome(dense.network), Seconds(), None
    small: nn.Module | None = None
    measures: Measures | None = None
    try:
        cuts = Checkpoints(folder, every_s=0.0)
        if kept := cuts.load("cut", task.ledger):
            outcome, seconds = Outcome(dense.network, kept["notes"], kept["trace"]), Seconds(**kept["seconds"])
            small, before = dense.at(kept["widths"]), kept["accuracy_before"]
            small.load_state_dict(kept["network"])
        else:
            outcome = checked(_timed_run(job, task, dense, ground, seconds, _phase(folder, "method")))
            small = check_rules(task, dense, outcome)
            recalibrate_batch_norm(
                small, (task.train.batch(index) for index in range(ground.protocol.recalibration_batches))
            )
            before = score(small, ground.dataset.test)
            cuts.save("cut", partial(_state_of_cut, outcome, seconds, small, before), task.ledger)
        seconds.fine_tune = fine_tune(small, task, fine_tuning, _phase(folder, "fine-tuning"))
        measures = describe.measures(small, before, score(small, ground.dataset.test), ground)
    except (KeyboardInterrupt, BadFile):  # a file that is mended must not leave a miss behind
        raise
    except BaseException as error:  # a method of someone else's, SystemExit too: the plan goes on, the record tells
        missed = reason(error)
    record = describe.record(
        job, key, ground, dense, outcome, missed, measures, small, task.ledger, fine_tuning, seconds, command
    )
    record.environment["resumed"] = resumed
    weights = None if measures is None or small is None else small.state_dict()
    return Result(record, None if weights is None else {k: v.cpu().contiguous() for k, v in weights.items()})


def _phase(folder: Path | None, name: str) -> Checkpoints:
    """A part of the run with states and a clock of its own."""
    return Checkpoints(None if folder is None else folder / name)


def _state_of_cut(outcome: Outcome, seconds: Seconds, small: nn.Module, accuracy_before: float) -> State:
    return {
        "notes": outcome.notes,
        "trace": outcome.trace,
        "seconds": vars(seconds),
        "widths": list(structure(small).upper_bounds),
        "network": dict(small.state_dict()),
        "accuracy_before": accuracy_before,
    }


def failed(job: Job, key: str, ground: Ground, dense: DenseWeights, why: str, command: str) -> Result:
    """The miss of a run that left nothing behind but the reason."""
    record = describe.record(
        job, key, ground, dense, Outcome(dense.network), why, None, None, Ledger(0), Ledger(0), Seconds(), command
    )
    return Result(record, None)


def make_task(
    job: Job, ground: Ground, dense: DenseWeights, teacher: Teacher, report: Report = lambda *_: None
) -> Task:
    """What the method of `job` gets to see: a copy of the dense network, no test split, no platform."""
    return Task(
        network=copy.deepcopy(dense.network),
        structure=ground.structure,
        energy_model=ground.fit.model,
        budget=math.inf if job.budget is None else job.budget.amount,
        protocol=ground.protocol,
        seed=job.seed,
        ledger=Ledger(ground.protocol.iterations, observer=_reporter("compress", report)),
        train=ground.dataset.train.stream(job.seed, ground.protocol.batch_size),
        search=ground.dataset.search,
        teacher=teacher,
        computing=ground.computing,
    )


def _reporter(step: str, report: Report) -> Callable[[Ledger], None]:
    return lambda ledger: report(step, ledger.training_iterations / max(1, ledger.limit))


def _timed_run(
    job: Job, task: Task, dense: DenseWeights, ground: Ground, seconds: Seconds, checkpoints: Checkpoints
) -> object:
    before = unit_costs(dense.network, task.train, task.teacher, ground)
    checkpoints.start()
    try:
        with forked(job.seed, job.method), steps_paid(dense.network):
            # a copy: whatever it sets there, ours stays
            return registry.get(job.method).run(replace(task, checkpoints=checkpoints))
    finally:
        ground.computing.wait()
        seconds.method = checkpoints.elapsed_s
        after = unit_costs(dense.network, task.train, task.teacher, ground)
        seconds.distillation_step, seconds.forward_per_image = ((b + a) / 2 for b, a in zip(before, after, strict=True))


def unit_costs(
    dense: nn.Module, stream: Batches, teacher: Teacher, ground: Ground, repeats: int = 5
) -> tuple[float, float]:
    """Median seconds of a plain distillation step of the dense network, and of its bare forward pass per search
    image.
    """
    ledger = Ledger(repeats + 2)
    computing = ground.computing
    trainer = Trainer(copy.deepcopy(dense), stream, teacher, ledger, ground.protocol, computing=computing)
    network = copy.deepcopy(dense).eval()
    search = ground.dataset.search
    images, _ = search.take(torch.arange(min(evaluation_batch(search), ground.protocol.search_images)))
    steps = [_seconds(trainer.step, computing) for _ in range(repeats + 2)]
    with torch.no_grad():
        passes = [_seconds(lambda: network(images), computing) for _ in range(4)]
    return sorted(steps[2:])[repeats // 2], sorted(passes[1:])[1] / len(images)


def _seconds(work: Callable[[], object], computing: Computing) -> float:
    computing.wait()
    started = time.perf_counter()
    work()
    computing.wait()
    return time.perf_counter() - started


def cosine(spent: float) -> float:
    """Factor on the learning rate: half a cosine from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * spent))


def fine_tune(small: nn.Module, task: Task, ledger: Ledger, checkpoints: Checkpoints | None = None) -> float:
    """Train the cut network for everyone alike: the run's next batches, the same loss, the protocol's rate, decayed to
    zero or constant; the protocol's closing iterations on the task's loss alone, with a fresh Adam.

    Returns the wall seconds, those before a stop included.
    """
    checkpoints = checkpoints or Checkpoints()
    checkpoints.start()
    with forked(task.seed, "fine-tuning"):
        state = checkpoints.load("training", ledger)
        for part in _parts(task.protocol, ledger.limit):
            trainer = Trainer(
                small,
                task.train,
                task.teacher,
                ledger,
                part.protocol,
                first_batch=task.protocol.iterations,
                schedule=partial(part.factor, ledger.limit),
                computing=task.computing,
            )
            if state and ledger.training_iterations <= part.end:  # the part that it was stopped in
                trainer.restore(state)
                state = None
            while ledger.training_iterations < part.end:
                trainer.step()
                checkpoints.save("training", trainer.state, ledger)
        task.computing.wait()
    return checkpoints.elapsed_s


class _Part(NamedTuple):
    """Iterations `start` to `end` of fine-tuning, with the settings that hold for them."""

    start: int
    end: int
    decays: bool
    protocol: Protocol

    def factor(self, limit: int, spent: float) -> float:
        """On the learning rate, when the share `spent` of all `limit` iterations is done."""
        return cosine((round(spent * limit) - self.start) / (self.end - self.start)) if self.decays else 1.0


def _parts(protocol: Protocol, limit: int) -> list[_Part]:
    closing = max(0, limit - protocol.closing_iterations)
    alone = replace(protocol, learning_rate=protocol.closing_learning_rate, distillation=0.0)
    parts = [_Part(0, closing, protocol.fine_tune_decays, protocol), _Part(closing, limit, True, alone)]
    return [part for part in parts if part.end > part.start]

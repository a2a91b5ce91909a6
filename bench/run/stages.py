"""The five stages of a run, each a function from files to one file in the run's folder.

    compress    a Task for the method          -> a cut network with Ê(φ) within the budget
    land        cut network, platform          -> the same network, cut further until its reading is within the budget
    tune        landed network                 -> the fine-tuned network
    read        fine-tuned network, platform   -> its final reading
    score       landed and tuned network       -> test scores before and after fine-tuning

A stage is done when its file exists, so a stopped run goes on with the first stage that has none. A miss ends a run and
leaves its reason in the file of its stage. Trouble of the machine is raised as MachineTrouble and leaves no file.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bench.run import landing, rules, trouble, zeros
from bench.run.fine_tuning import fine_tune
from bench.run.teacher import teacher
from bench.run.timing import unit_costs
from bench.setup.environment import environment
from bench.setup.plan import Job
from bench.setup.setup import Setup
from methods import registry
from methods.contract import Outcome, Task
from shared.checkpoints import Checkpoints, State
from shared.energy import ZeroSavings
from shared.ledger import Ledger
from shared.networks import structure
from shared.networks.masks import load_state
from shared.platforms import PlatformReading
from shared.rng import forked
from shared.training import Feed, Teacher, first_batches, keep_zeros, recalibrate_batch_norm, score

Report = Callable[[str, float], None]  # (stage, share of it that is done)
STAGES = ("compress", "land", "tune", "read", "score")


def _silent(_stage: str, _share: float) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Run:
    """A job on a setup, with the folder of its stages' files."""

    job: Job
    setup: Setup
    key: str  # content key of all that decides the outcome
    folder: Path  # for the files of this key alone
    report: Report = _silent  # called with the progress of a stage
    _ended: dict[str, bool] = field(default_factory=dict)  # stages whose files were read: whether it ended in a miss

    @cached_property
    def teacher(self) -> Teacher:
        """The dense network's logits by batch index."""
        return teacher(self.setup, self.job.seed)

    def task(self) -> Task:
        """The task that the method sees."""
        return make_task(self.job, self.setup, self.teacher, self.report)

    @property
    def zeros(self) -> ZeroSavings | None:
        """What zero weights save, for a method that removes weights."""
        return zeros.of_method(self.job.method, self.setup)

    def states(self, stage: str) -> Checkpoints:
        """The states from which a stopped stage goes on."""
        return Checkpoints(self.folder / stage)

    def write(self, stage: str, state: State, ledger: Ledger | None = None) -> None:
        """Write the stage's file in one rename; `ledger` is stored beside the state."""
        self._files.save(stage, lambda: state, ledger or Ledger(0))

    def read(self, stage: str, ledger: Ledger | None = None) -> State | None:
        """What the stage has written; None when it is not done, or its file is damaged."""
        return self._files.load(stage, ledger or Ledger(0))

    @property
    def _files(self) -> Checkpoints:
        return Checkpoints(self.folder, every_s=0.0)

    def missing(self) -> tuple[str, ...]:
        """The stages that are not done yet; none after a miss."""
        for stage in STAGES:
            if stage not in self._ended and (state := self.read(stage)) is not None:
                self._ended[stage] = "reason" in state
        return () if any(self._ended.values()) else tuple(stage for stage in STAGES if stage not in self._ended)

    def network(self, state: State) -> nn.Module:
        """The cut network that a stage has written, on the training device."""
        small = self.setup.dense.at(state["widths"])
        load_state(small, state["network"])
        return small


def make_task(job: Job, setup: Setup, teacher: Teacher, report: Report = _silent) -> Task:
    """The task of `job`: a copy of the dense network, but neither the test split nor the platform."""
    return Task(
        network=copy.deepcopy(setup.dense.network),
        structure=setup.structure,
        energy_model=setup.model(job.budget),
        budget=math.inf if job.budget is None else job.budget.amount,
        protocol=setup.protocol,
        seed=job.seed,
        ledger=_ledger("compress", setup.protocol.iterations, report),
        train=setup.dataset.train.stream(job.seed, setup.protocol.batch_size),
        search=setup.dataset.search,
        teacher=teacher,
        computing=setup.computing,
        zeros=zeros.of_method(job.method, setup) if job.method in registry.names() else None,
    )


def _ledger(stage: str, limit: int, report: Report) -> Ledger:
    """A ledger whose count is reported as the stage's progress."""
    return Ledger(limit, observer=lambda now: report(stage, now.training_iterations / max(1, now.limit)))


def compress(run: Run) -> None:
    """Run the method. An exception from it, and an outcome that breaks a rule, is a miss."""
    resumed = run.folder.exists()
    setup, task = run.setup, run.task()
    feed = Feed(task.train, task.teacher)
    state: State = {"environment": json.dumps(environment(setup.computing) | {"resumed": resumed})}
    state |= _described(Outcome(setup.dense.network))
    seconds = {"method": 0.0, "distillation_step": 0.0, "forward_per_image": 0.0}
    before = unit_costs(setup.dense.network, feed, setup)
    checkpoints = run.states("compress")
    checkpoints.start()
    try:
        # a copy of the task, so that the method can't change ours
        with rules.settings_kept(), forked(run.job.seed, run.job.method), rules.steps_paid(setup.dense.network):
            outcome = registry.get(run.job.method).run(replace(task, checkpoints=checkpoints))
        setup.computing.wait()
        seconds["method"] = checkpoints.elapsed_s
        outcome = rules.checked(outcome)
        state |= _described(outcome)
        state |= _of_network(rules.check_rules(task, setup.dense, outcome))
    except BaseException as error:  # SystemExit and KeyboardInterrupt from a third-party method are misses, too
        if trouble.is_of_input(error):
            raise
        if (machine := trouble.of(error)) is not None:
            raise trouble.MachineTrouble(machine) from error
        seconds["method"] = checkpoints.elapsed_s
        state["reason"] = rules.reason(error)
    else:
        after = unit_costs(setup.dense.network, feed, setup)
        seconds["distillation_step"], seconds["forward_per_image"] = (
            (b + a) / 2 for b, a in zip(before, after, strict=True)
        )
    run.write("compress", state | {"seconds": seconds}, task.ledger)


def land(run: Run) -> None:
    """Recalibrate batch norm, then cut the network further while the platform reads it above its budget.

    A job without a budget is not landed. A network that can't land is a miss.
    """
    setup, job = run.setup, run.job
    small = run.network(_state(run, "compress"))
    count = setup.protocol.recalibration_batches
    stream = setup.dataset.train.stream(job.seed, setup.protocol.batch_size)
    recalibrate_batch_norm(small, first_batches(stream, count))
    if job.budget is None:
        run.write("land", _of_network(small))
        return
    images = min(setup.protocol.search_images, len(setup.dataset.search))
    accuracy = score(small, setup.dataset.search, images)
    widths = structure(small).upper_bounds
    estimate = setup.estimate(widths, job.budget)
    removed_weights = 0
    try:
        if run.zeros is None:
            landed = landing.land(small, job.budget.amount, setup)
        else:
            estimate -= zeros.found(small, run.zeros).joules
            before, after, removed_weights = zeros.land(small, job.budget.amount, setup)
            landed = landing.Landed(widths, before, after, 1)
    except landing.CannotLand as error:
        run.write("land", {"reason": str(error)})
        return
    document: dict[str, Any] = {
        "widths": widths,
        "estimate": estimate,
        "before": asdict(landed.before),
        "after": asdict(landed.after),
        "removed_channels": sum(widths) - sum(landed.widths),
        "removed_weights": removed_weights,
        "search_accuracy_before": accuracy,
        "search_accuracy_after": accuracy,
    }
    if landed.widths != widths:
        landing.cut_to(small, landed.widths)
        small = rules.cut(small, stream)
    if landed.widths != widths or removed_weights:
        recalibrate_batch_norm(small, first_batches(stream, count))
        document["search_accuracy_after"] = score(small, setup.dataset.search, images)
    run.write("land", {"landing": json.dumps(document), "readings": landed.readings} | _of_network(small))


def tune(run: Run) -> None:
    """Fine-tune the landed network, with the same number of iterations after every method."""
    small = run.network(_state(run, "land"))
    if run.zeros is not None:
        keep_zeros(small, run.zeros.entries)
    ledger = _ledger("tune", run.setup.protocol.fine_tune_iterations, run.report)
    seconds = fine_tune(small, run.task(), ledger, run.states("tune"))
    run.write("tune", {"seconds": seconds} | _of_network(small), ledger)


def read(runs: Sequence[Run]) -> None:
    """Read the fine-tuned networks: on hardware in turns with the dense one, for drift correction."""
    setup = runs[0].setup
    rows = [tuple(_state(run, "tune")["widths"]) for run in runs]
    readings: list[PlatformReading] = setup.platform.read_beside(
        setup.subject,
        rows,
        setup.inference_batch,
        reference=setup.structure.upper_bounds,
        standard=setup.profile.dense_reading,
    )
    for run, reading in zip(runs, readings, strict=True):
        state: State = {"reading": json.dumps(asdict(reading))}
        if run.zeros is not None:
            of_network = zeros.found(run.network(_state(run, "tune")), run.zeros)
            state = {
                "reading": json.dumps(asdict(zeros.less(reading, of_network.joules))),
                "zeros": of_network._asdict(),
            }
        run.write("read", state)


def score_(run: Run) -> None:
    """Score the network on the test split before and after fine-tuning: its only two uses."""
    test = run.setup.dataset.test
    before, after = (score(run.network(_state(run, stage)), test) for stage in ("land", "tune"))
    run.write("score", {"accuracy_before": before, "accuracy_after": after})


def do(stage: str, runs: Sequence[Run]) -> None:
    """Do a stage of those runs for which it is still to be done."""
    runs = [run for run in runs if stage in run.missing()]
    if stage == "read" and runs:
        read(runs)
    elif stage != "read":
        for run in runs:
            {"compress": compress, "land": land, "tune": tune, "score": score_}[stage](run)


def _state(run: Run, stage: str) -> State:
    state = run.read(stage)
    assert state is not None, f"expected the file of {stage} in {run.folder}"
    return state


def _described(outcome: Outcome) -> State:
    return {"notes": json.dumps(outcome.notes), "trace": json.dumps(outcome.trace)}


def _of_network(small: nn.Module) -> State:
    tensors: dict[str, Tensor] = dict(small.state_dict())
    return {"widths": list(structure(small).upper_bounds), "network": tensors}

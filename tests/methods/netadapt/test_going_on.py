"""A stopped NetAdapt run goes on after the last candidate that was judged: nothing finished is done again."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from methods.contract import Outcome, Task
from methods.netadapt import NetAdapt, NetAdaptOriginal
from shared.checkpoints import Checkpoints

METHODS = pytest.mark.parametrize("method", [NetAdapt(), NetAdaptOriginal()], ids=lambda method: method.name)


class Stopped(Exception):
    """The process was killed."""


class Process:
    """One process on `folder`: notes the batches it trains on, counts judgements, dies at batch `until`."""

    def __init__(self, task: Task, folder: Path, until: int | None = None) -> None:
        self.trained: list[int] = []
        self.judged = 0
        teacher = task.teacher

        def taught(index: int, images: torch.Tensor) -> torch.Tensor:
            if index == until:
                raise Stopped
            self.trained.append(index)
            return teacher(index, images)

        def search_accuracy(model: nn.Module) -> float:
            self.judged += 1
            return self.accuracy(model)

        self.task = replace(task, teacher=taught, checkpoints=Checkpoints(folder, every_s=0.0))
        self.accuracy = self.task.search_accuracy
        vars(self.task).update(search_accuracy=search_accuracy)


def candidates(outcome: Outcome) -> list[int]:
    """The ledger's counts at which candidates were finished, 0 before the first."""
    counts = [0]
    for short_term, scores in zip(outcome.trace["short_term_iterations"], outcome.trace["accuracy"], strict=True):
        for score in scores:
            counts += [] if score is None else [counts[-1] + short_term]
    return counts


@METHODS
@pytest.mark.parametrize("wide", [False, True], ids=["toy", "wide"])
def test_no_finished_candidate_is_trained_or_judged_again(
    method: NetAdapt,
    wide: bool,
    tmp_path: Path,
    tiny_task: Callable[..., Task],
    wide_task: Callable[..., Task],
) -> None:
    """Stopped in the middle of every candidate in turn, each time going on from what the process before had kept."""

    def make() -> Task:
        return (wide_task if wide else tiny_task)(0.45, iterations=61, minimum_short_term_iterations=3)

    whole = Process(make(), tmp_path / "whole")
    expected = method.run(whole.task)
    finished = candidates(expected)
    assert len(finished) > 6 and len(expected.trace["unit"]) > 1

    judged = unfinished = 0
    for start, end in pairwise(finished):
        process = Process(make(), tmp_path / "stopped", until=end - 1)
        with pytest.raises(Stopped):
            method.run(process.task)
        # what the process before was in the middle of is trained anew, nothing before it
        assert process.trained == list(range(unfinished, end - 1))
        judged, unfinished = judged + process.judged, start
    last = Process(make(), tmp_path / "stopped")
    outcome = method.run(last.task)
    assert last.trained == list(range(finished[-2], 61))
    # every candidate once; the dense network, with which some compare, again where nothing was kept yet
    assert judged + last.judged == whole.judged + method.per_joule
    assert (outcome.notes, outcome.trace) == (expected.notes, expected.trace)
    assert last.task.ledger.as_record() == whole.task.ledger.as_record()
    same = expected.network.state_dict()
    assert all(torch.equal(tensor, same[key]) for key, tensor in outcome.network.state_dict().items())


@METHODS
def test_stopped_in_the_long_term_it_only_trains_on(
    method: NetAdapt, tmp_path: Path, tiny_task: Callable[..., Task]
) -> None:
    def make() -> Task:
        return tiny_task(0.98, iterations=63, minimum_short_term_iterations=3)

    expected = method.run(make())
    start = candidates(expected)[-1]
    assert start < 62  # else there is no place to stop at
    process = Process(make(), tmp_path, until=62)
    with pytest.raises(Stopped):
        method.run(process.task)
    last = Process(make(), tmp_path)
    outcome = method.run(last.task)
    assert last.trained == [62] and last.judged == 0
    assert (outcome.notes, outcome.trace) == (expected.notes, expected.trace)


@METHODS
def test_memory_formats_are_those_of_a_run_that_was_not_stopped(
    method: NetAdapt, tmp_path: Path, wide_task: Callable[..., Task]
) -> None:
    """Kernels are chosen by them, and with the kernels the last bits."""

    def make() -> Task:
        task = wide_task(0.45, iterations=61, minimum_short_term_iterations=3)
        return replace(task, network=task.network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    expected = method.run(make())
    for until in (10, 25, 45, 60):
        process = Process(make(), tmp_path, until=until)
        with pytest.raises(Stopped):
            method.run(process.task)
    outcome = method.run(Process(make(), tmp_path).task)
    strides = [
        {key: tensor.stride() for key, tensor in one.network.state_dict().items()} for one in (outcome, expected)
    ]
    assert strides[0] == strides[1]
    same = expected.network.state_dict()
    assert all(torch.equal(tensor, same[key]) for key, tensor in outcome.network.state_dict().items())

"""The rules that a method's outcome must keep, and the cut network of an outcome that keeps them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bench.setup.dense import DenseWeights
from methods.contract import Infeasible, Outcome, Task
from shared.data import Batches
from shared.errors import BadInput, printable
from shared.ledger import BudgetExhausted
from shared.networks import Structure, active_widths, compact, structure
from shared.networks.masks import load_state, masks_of
from shared.training import Trainer

BUDGET_TOLERANCE = 1e-9  # relative; a method may sum in another order
AGREEMENT = 1e-4  # largest difference of zeroed and cut network, relative to the largest output, float32
ANOTHER = "returned another network than the one that the energy model describes"


class Miss(Exception):
    """A run that ended without a network that keeps the rules; the message is the reason."""


def reason(error: BaseException) -> str:
    """Why a run ended, as one line: the message of a broken rule, else the error with its place in the code."""
    text = str(error)
    if not isinstance(error, Miss | Infeasible | BudgetExhausted):
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {text}" if text else type(error).__name__
        text = f"{what} ({Path(place.filename).name}:{place.lineno})"
    return printable(text)


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Restores the settings of the process that a method may have changed and that checks of its outcome rely on."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    precision, place = torch.get_float32_matmul_precision(), Path.cwd()
    with warnings.catch_warnings(), torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
            torch.set_flush_denormal(False)
            os.chdir(place)


@contextlib.contextmanager
def steps_paid(dense: nn.Module) -> Iterator[None]:
    """Raises Miss at an optimiser's step on a network like `dense` that no Trainer takes, and no ledger counts.

    A network is like `dense` if it has as many parameters, of the same dimensions, and as many outputs; cut networks
    are. Steps on other models, such as an agent, are free.
    """
    like = _signature(list(dense.parameters()))

    def check(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if Trainer.stepping is not None and Trainer.stepping.optimizer is optimizer:
            return
        if _signature([parameter for group in optimizer.param_groups for parameter in group["params"]]) == like:
            raise Miss("took an optimiser's step that the ledger does not count; train through task.trainer(network)")

    hook = register_optimizer_step_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _signature(parameters: list[nn.Parameter]) -> tuple[int, ...]:
    return (*(parameter.ndim for parameter in parameters), len(parameters[-1]) if parameters[-1].ndim else 0)


def checked(outcome: object) -> Outcome:
    """The outcome that a method returned, with notes and trace as plain JSON; NaN and infinity become null.

    Raises Miss when it is not an Outcome, or a record could not hold it.
    """
    if not isinstance(outcome, Outcome):
        raise Miss(f"returned {type(outcome).__name__}, not an Outcome")
    if not isinstance(outcome.network, nn.Module):
        raise Miss(f"returned {type(outcome.network).__name__} as the network, not a torch.nn.Module")
    try:
        texts = [json.dumps(_finite(value), ensure_ascii=False) for value in (outcome.notes, outcome.trace)]
        notes, trace = (json.loads(text.encode()) for text in texts)  # UnicodeEncodeError for lone surrogates
    except (TypeError, ValueError, RecursionError) as error:
        raise Miss(f"returned notes or trace that are not JSON values: {error}") from None
    if not (isinstance(notes, dict) and isinstance(trace, dict)):
        raise Miss("returned notes or trace that are not a dict")
    if columns := [name for name, column in trace.items() if not isinstance(column, list)]:
        raise Miss(f"returned a trace whose column {columns[0]!r} is not a list")
    return Outcome(outcome.network, notes, trace)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spends_the_ledger(task: Task, dense: DenseWeights, outcome: Outcome) -> None:
    if task.ledger.remaining:
        raise Miss(
            f"spent {task.ledger.training_iterations} of {task.ledger.limit} training iterations; "
            "every method spends all"
        )


def leaves_the_dense_network(task: Task, dense: DenseWeights, outcome: Outcome) -> None:
    tensors = zip(dense.network.state_dict().items(), task.network.state_dict().values(), strict=True)
    for (name, original), tensor in tensors:
        if not torch.equal(original, tensor):
            raise Miss(f"changed the dense network in place ({name}); work on task.copy_of_dense()")


def is_finite(task: Task, dense: DenseWeights, outcome: Outcome) -> None:
    for name, tensor in outcome.network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise Miss(f"returned a network with NaN or infinite values in {name}")


def keeps_the_budget(task: Task, dense: DenseWeights, outcome: Outcome) -> None:
    widths = active_widths(outcome.network)
    if len(widths) != len(task.structure.units):
        raise Miss(ANOTHER)
    if min(widths) < 1:
        raise Miss(f"removed all channels of unit {widths.index(0) + 1} of {len(widths)}")
    estimate = float(task.energy_model(task.structure.positions(torch.tensor(widths))))
    if task.zeros is not None:
        estimate -= task.zeros.of(outcome.network, structure(outcome.network))
    if estimate > task.budget * (1 + BUDGET_TOLERANCE):
        unit = task.energy_model.unit
        raise Miss(f"estimated {estimate:.6g} {unit} per image, above the budget of {task.budget:.6g} {unit}")


# In this order: a rule relies on those before it.
RULES = (spends_the_ledger, leaves_the_dense_network, is_finite, keeps_the_budget)


def check_rules(task: Task, dense: DenseWeights, outcome: Outcome) -> nn.Module:
    """The cut network of an outcome that keeps all rules. Raises Miss for the first broken rule."""
    try:
        for rule in RULES:
            rule(task, dense, outcome)
        return described(cut(outcome.network, task.train), task, dense)
    except BadInput as error:  # operations that can't be followed, more or fewer units, or wider ones
        raise Miss(f"{ANOTHER}: {error}") from None


def cut(network: nn.Module, stream: Batches) -> nn.Module:
    """The network without its zeroed channels. Raises Miss when its outputs on a training batch differ."""
    small = compact(network).to(memory_format=torch.channels_last)
    _check_same_outputs(network, small, stream, "zeroed and cut network differ")
    return small


def described(small: nn.Module, task: Task, dense: DenseWeights) -> nn.Module:
    """The suite's own network at the widths of `small`, with its tensors: the network that the energy model describes.

    Raises Miss when `small` has other operations or tensors, or other outputs on a training batch, as hooks or a
    forward pass of its own would cause.
    """
    small_structure = structure(small)
    fresh = dense.at(small_structure.upper_bounds)
    if small_structure.fingerprint != structure(fresh).fingerprint:
        raise Miss(ANOTHER)
    check_masks(small, small_structure, task)
    try:
        load_state(fresh, small.state_dict())
    except RuntimeError:  # other names or shapes
        raise Miss(ANOTHER) from None
    _check_same_outputs(small, fresh, task.train, ANOTHER + "; their outputs differ")
    return fresh


def check_masks(small: nn.Module, table: Structure, task: Task) -> None:
    """Raises Miss for masks of inputs that the energy model doesn't describe.

    Only convolutions of a network whose zeros save energy may have one: zeros and ones in the shape of their input.
    """
    convolutions = {operation.module: operation for operation in table.operations if operation.kind == "conv"}
    for name, mask in masks_of(small.state_dict()).items():
        if task.zeros is None or (operation := convolutions.get(name)) is None:
            raise Miss(f"returned a network with a mask of the inputs of {name}, which saves nothing")
        channels = int(operation.inputs.at(torch.tensor(table.position_bounds)))
        if mask.shape != (channels, *operation.input_size) or not bool(((mask == 0) | (mask == 1)).all()):
            raise Miss(f"returned a mask of the inputs of {name} that is not zeros and ones in their shape")


@torch.no_grad()
def _check_same_outputs(one: nn.Module, other: nn.Module, stream: Batches, what: str) -> None:
    images, _ = stream.batch(0)
    expected, got = one.eval()(images), other.eval()(images)
    worst = ((expected - got).abs().max() / expected.abs().max().clamp(min=1e-30)).item()
    if not worst <= AGREEMENT:
        raise Miss(f"{what} by {worst:.2g} of the largest output")

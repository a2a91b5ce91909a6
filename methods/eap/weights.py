"""EAP for single weights, as published, on a platform that saves energy by zeros, and to a budget."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from methods.contract import Granularity, Infeasible, Outcome, Task, train_stage
from methods.eap.eap import EAP, HALVINGS, LARGEST, SMALLEST, SWEEPS, Layer, batches, sampled_rows
from methods.eap.sparse import LayerInputs, fitted, largest, restored
from shared.energy.zeros import LayerZeros, ZeroSavings
from shared.networks import Structure, active_channels, zero_channels
from shared.protocol import Protocol
from shared.training import keep_zeros

SHARES = torch.logspace(-2.5, 0, 16).tolist()  # of a layer's weights, at which its error is computed
MOST_OUTPUTS = 128  # or up to twice as many, from which the error of a layer with more is estimated


class Curve(NamedTuple):
    """A layer's relative output error where its largest weights stay, at shares of the weights that it has left.

    Below the first share the number of weights falls as the tolerance grows beyond the error there.
    """

    left: int
    errors: list[float]  # at SHARES, falling

    def kept(self, tolerance: float) -> int:
        """How many weights stay where the error is within the tolerance, between two shares by interpolation."""
        if tolerance >= self.errors[0]:
            return max(1, int(self.left * SHARES[0] * self.errors[0] / tolerance))
        for (less, high), (more, low) in zip(
            zip(SHARES, self.errors, strict=True), list(zip(SHARES, self.errors, strict=True))[1:], strict=False
        ):
            if low <= tolerance:
                part = (high - tolerance) / (high - low) if high > low else 1.0
                return max(1, math.ceil(self.left * (less + part * (more - less))))
        return self.left


class EAPWeights(EAP):
    """In each sweep one tolerance gives every layer's number of weights; weights of the most joules are cut first.

    Weights with the smallest magnitudes go, those whose return lets the output's error fall most come back, and least
    squares fits what is left, on inputs from the network as it is cut so far. Then the network trains, its zeros kept.
    The tolerance is one of the errors before least squares, which would take a fit per filter at every number tried.
    Where the largest weights leave a channel unread, it goes with all its weights, and costs nothing. Depthwise layers
    and transposed convolutions keep their weights.
    """

    name: ClassVar[str] = "eap-weights"
    title: ClassVar[str] = "EAP, weights"
    paper: ClassVar[str] = EAP.paper.replace("; for channels, to a budget", "; to a budget")
    granularity: ClassVar[Granularity] = "weights"
    revision: ClassVar[int] = 3  # the second counted channels as if all stayed

    def run(self, task: Task) -> Outcome:
        """Sweep and train. Raises Infeasible when the feature maps alone are above the budget."""
        model = task.copy_of_dense()
        zeros, layers = _checked(task, model)
        facts: list[dict[str, Any]] = []
        if checkpoint := task.saved("sweeps"):  # the run was stopped in the training after the last of these
            facts = checkpoint["sweeps"]
            model.load_state_dict(checkpoint["trainer"]["model"])
            keep_zeros(model, layers)
            trainer = task.trainer(model)
            trainer.restore(checkpoint["trainer"])
            train_stage(task, trainer, "sweeps", facts, SWEEPS)
        for sweep in range(len(facts), SWEEPS):
            energy = task.dense_energy * (task.budget / task.dense_energy) ** ((sweep + 1) / SWEEPS)
            facts.append(_sweep_once(task, model, layers, zeros, energy, sweep))
            keep_zeros(model, layers)
            train_stage(task, task.trainer(model), "sweeps", facts, SWEEPS)
        notes = {
            "kept_weights": facts[-1]["kept"],
            "tolerances": [of_sweep["tolerance"] for of_sweep in facts],
            "first_layers": [of_sweep["order"][0] for of_sweep in facts],
            "not_sampled": sorted(set(zeros.entries) - set(layers)),
        }
        return Outcome(model, notes)

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """The sampled images, once per sweep and once per layer of a sweep."""
        layers = sum(operation.kind in ("conv", "linear") for operation in structure.operations)
        return SWEEPS * (1 + layers) * batches(protocol) * protocol.batch_size


def _checked(task: Task, model: nn.Module) -> tuple[ZeroSavings, dict[str, Layer]]:
    """What zeros save, and the layers that are cut by the names of their weights. Raises Infeasible."""
    zeros, unit = task.zeros, task.energy_model.unit
    if zeros is None:
        raise Infeasible("expected a platform on which zero weights save energy, got none; try --device eyeriss")
    modules = {name: model.get_submodule(name.removesuffix(".weight")) for name in zeros.entries}
    layers = {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }
    one = {name: LayerZeros(torch.tensor(1), zeros.entries[name], 1) for name in layers}
    floor = task.dense_energy - float(sum(zeros.saved(name, weight) for name, weight in one.items()))
    if floor > task.budget:
        raise Infeasible(
            f"expected a budget of at least {floor:.6g} {unit} (a weight per layer, all channels there), "
            f"got {task.budget:.6g} {unit}; try more"
        )
    return zeros, layers


@torch.no_grad()
def _sweep_once(
    task: Task, model: nn.Module, layers: dict[str, Layer], zeros: ZeroSavings, energy: float, sweep: int
) -> dict[str, Any]:
    """Cut all layers so that Ê with the zeros is at most `energy`; facts about the sweep."""
    rows = sampled_rows(task, model, layers, sweep)
    weights = {name: layer.weight.detach().flatten(1) for name, layer in layers.items()}
    outputs = {name: rows[name] @ weights[name].T for name in layers}
    curves = {name: _curve(weights[name], LayerInputs(rows[name])) for name in layers}
    tolerance, unread, kept = _numbers(task, model, layers, curves, energy)
    zero_channels(model, task.structure, unread)
    joules = {name: zeros.price(name) * curve.left for name, curve in curves.items()}
    order = sorted(layers, key=lambda name: -joules[name])
    for name in order:
        inputs = LayerInputs(sampled_rows(task, model, {name: layers[name]}, sweep)[name])
        cross = outputs[name].T @ inputs.rows
        mask = restored(weights[name], inputs, cross, kept[name])
        layers[name].weight.copy_(fitted(weights[name], mask, inputs, cross).view(layers[name].weight.shape))
    return {"tolerance": tolerance, "kept": kept, "order": [name.removesuffix(".weight") for name in order]}


def _curve(weight: Tensor, inputs: LayerInputs) -> Curve:
    """The layer's error over the shares; from some of its outputs where it has many."""
    left = int(torch.count_nonzero(weight))
    some = weight[:: max(1, len(weight) // MOST_OUTPUTS)]
    total = max(inputs.squared_norm(some), torch.finfo(torch.float32).tiny)
    count = int(torch.count_nonzero(some))
    errors = [
        inputs.squared_norm(torch.where(largest(some, max(1, round(share * count))), 0.0, some)) / total
        for share in SHARES
    ]
    return Curve(left, torch.tensor(errors).clamp(min=0).flip(0).cummax(0).values.flip(0).tolist())


def _numbers(
    task: Task, model: nn.Module, layers: dict[str, Layer], curves: dict[str, Curve], energy: float
) -> tuple[float, Tensor, dict[str, int]]:
    """The smallest tolerance, by bisection, at which Ê is at most `energy` where each layer has its largest weights.

    With it the channels that no weight reads then, bool (units, largest upper bound), and how many weights each layer
    has among the others.
    """
    model = deepcopy(model)
    weights = {name: model.get_parameter(name).detach() for name in layers}
    values = {name: weight.flatten().clone() for name, weight in weights.items()}
    order = {name: flat.abs().argsort(descending=True, stable=True) for name, flat in values.items()}

    def write(logarithm: float) -> None:
        for name, weight in weights.items():
            left = values[name].clone()
            left[order[name][curves[name].kept(math.exp(logarithm)) :]] = 0
            weight.copy_(left.view(weight.shape))

    low, high = math.log(SMALLEST), math.log(LARGEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        write(middle)
        fits = task.energy_with_zeros(model, task.structure) <= energy
        low, high = (low, middle) if fits else (middle, high)
    write(high)
    unread = ~active_channels(model, task.structure)
    zero_channels(model, task.structure, unread)
    # At least one: a layer without any weight would end the network.
    return math.exp(high), unread, {name: max(1, int(torch.count_nonzero(weights[name]))) for name in layers}

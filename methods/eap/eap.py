"""EAP: layers are pruned in the order of their energy, each so that its readers' outputs stay near what they were.

Yang, Chen, Sze, "Designing Energy-Efficient Convolutional Neural Networks using Energy-Aware Pruning", CVPR 2017 (arXiv
1611.05128). The paper prunes single weights until accuracy falls, then trains, again and again. Here the items are
channels, and each sweep over the network ends at an energy: Ê falls from dense to the budget by the same factor in each
sweep. With channels it is close to He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks" (ICCV
2017), but for the order, the joint impact, and that one tolerance sets all widths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from methods.contract import Method, Outcome, Properties, Task, train_stage
from methods.eap.support import RIDGE, Reader, Readers, refitted
from shared.networks import Structure, Unit, compact, resized, structure, zero_channels
from shared.networks.pruning import channel_entries, owned
from shared.protocol import Protocol
from shared.reconstruction import MAXIMUM_COLUMNS, POSITIONS_PER_BATCH, input_rows, inputs_seen, sole_reader

SWEEPS = 5
IMAGES = 512  # whose patches are the rows of the least squares
HALVINGS = 40  # of the tolerance
LARGEST, SMALLEST = 1e9, 1e-9  # tolerances; without least squares an error may exceed 1, where contributions cancel


Layer = nn.Conv2d | nn.Linear


class Sampled(NamedTuple):
    """A layer that reads a unit, with what its outputs are to be."""

    name: str  # of its weight
    layer: Layer
    target: Tensor  # (rows, outputs): its outputs without the bias before the sweep


class EAP(Method):
    """In each sweep one tolerance gives all widths; layers are then cut from the most to the least joules, and trained.

    A unit's width is the least at which least squares keeps the outputs of the layers that read it within the
    tolerance, by the network as it is before the sweep. The tolerance is bisected until Ê meets the sweep's energy.
    Then, unit by unit, the largest channels stay, others come back by their joint impact on the output, and least
    squares fits the weights that read them, on inputs from the network as it is cut so far. So the order decides whose
    errors least squares can make up for, not the widths. After a sweep Adam starts anew: moments of weights that least
    squares has replaced do not fit.
    """

    name: ClassVar[str] = "eap"
    title: ClassVar[str] = "EAP"
    paper: ClassVar[str] = (
        "Yang, Chen, Sze: Designing Energy-Efficient Convolutional Neural Networks using Energy-Aware Pruning. "
        "CVPR 2017; for channels, to a budget"
    )
    properties: ClassVar[Properties | None] = Properties(
        direct_metric=True, targets_energy=True, optimization_based=False, platform_free=False
    )

    revision: ClassVar[int] = 2  # the first chose widths by the errors before least squares

    def run(self, task: Task) -> Outcome:
        """Sweep and train. Raises Infeasible when one channel per unit is above the budget."""
        task.check_reachable()
        model = task.copy_of_dense()
        sweeps: list[dict[str, Any]] = []
        if checkpoint := task.saved("sweeps"):  # the run was stopped in the training after the last of these
            sweeps = checkpoint["sweeps"]
            model = resized(task.network, sweeps[-1]["widths"], task.structure)
            trainer = task.trainer(model)
            trainer.restore(checkpoint["trainer"])
            train_stage(task, trainer, "sweeps", sweeps, SWEEPS)
        for sweep in range(len(sweeps), SWEEPS):
            energy = task.dense_energy * (task.budget / task.dense_energy) ** ((sweep + 1) / SWEEPS)
            model, facts = sweep_once(task, model, energy, sweep)
            sweeps.append(facts)
            train_stage(task, task.trainer(model), "sweeps", sweeps, SWEEPS)
        notes = {
            "widths": sweeps[-1]["widths"],
            "tolerances": [facts["tolerance"] for facts in sweeps],
            "first_units": [facts["order"][0] for facts in sweeps],
            "not_sampled": sweeps[-1]["not_sampled"],
        }
        return Outcome(model, notes)

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """The sampled images, once per sweep and once per unit of a sweep."""
        images = batches(protocol) * protocol.batch_size
        return SWEEPS * (1 + len(structure.units)) * images


def sweep_once(task: Task, model: nn.Module, energy: float, sweep: int) -> tuple[nn.Module, dict[str, Any]]:
    """The network after a sweep that ends at Ê <= energy, cut, and facts about the sweep."""
    table = structure(model)
    readers, sampled = _before(task, model, table, sweep)
    order = _by_energy(task, table)
    tolerance, widths = _widths(task, readers, order, energy)
    for unit in order:
        kept = _cut(task, model, table.units[unit], sampled[unit], widths[unit], sweep)
        dead = torch.zeros(len(table.units), max(table.upper_bounds), dtype=torch.bool)
        dead[unit, : len(kept)] = ~kept
        zero_channels(model, table, dead)
    facts = {
        "widths": widths,
        "tolerance": tolerance,
        "order": [table.units[unit].name for unit in order],
        "not_sampled": sorted(_not_sampled(model, table)),
    }
    return compact(model, table), facts


def batches(protocol: Protocol) -> int:
    """Batches of sampled images."""
    return math.ceil(IMAGES / protocol.batch_size)


def _layers(model: nn.Module, unit: Unit) -> Iterator[tuple[str, Layer]]:
    """The layers that read the unit and whose inputs are sampled, each after the name of its weight."""
    for name in _consumers(unit):
        layer = sole_reader(model, unit, name)
        if layer is not None and layer.weight[0].numel() <= MAXIMUM_COLUMNS:
            yield name, layer


def _not_sampled(model: nn.Module, table: Structure) -> set[str]:
    consumers = {name for unit in table.units for name in _consumers(unit)}
    return consumers - {name for unit in table.units for name, _ in _layers(model, unit)}


@torch.no_grad()
def sampled_rows(task: Task, model: nn.Module, layers: Mapping[str, Layer], sweep: int) -> dict[str, Tensor]:
    """The layers' input rows, (rows, columns) each, at pixels that depend on the layer and the sweep alone."""
    if not layers:
        return {}
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    draws = {name: task.generator(f"pixels of {name}", sweep) for name in layers}

    def keep(name: str, inputs: Tensor) -> None:
        found[name].append(input_rows(layers[name], inputs, POSITIONS_PER_BATCH, draws[name]))

    with inputs_seen(layers, keep):
        model.eval()
        for images, _ in task.calibration_batches(batches(task.protocol)):
            model(images)
    return {name: torch.cat(rows) for name, rows in found.items()}


def _before(task: Task, model: nn.Module, table: Structure, sweep: int) -> tuple[list[Readers], list[list[Sampled]]]:
    """For every unit what its channels contribute to its readers, and these layers with their outputs."""
    layers = {name: layer for unit in table.units for name, layer in _layers(model, unit)}
    rows = {name: of_layer.double() for name, of_layer in sampled_rows(task, model, layers, sweep).items()}
    contributions, sampled = [], []
    for unit in table.units:
        of_unit, layers_of_unit = [], []
        for name, layer in _layers(model, unit):
            weight = layer.weight.detach().flatten(1).double()
            output = rows[name] @ weight.T
            gram = rows[name].T @ rows[name]
            of_unit.append(_reader(gram, gram @ weight.T, weight, output, unit))
            layers_of_unit.append(Sampled(name, layer, output.float()))
        of_unit += [_by_magnitude(model, unit, name) for name in _consumers(unit) if name not in layers]
        contributions.append(Readers(of_unit))
        sampled.append(layers_of_unit)
    return contributions, sampled


def _consumers(unit: Unit) -> list[str]:
    return list(dict.fromkeys(part.tensor for part in unit.slices if part.role == "consumer"))


def _reader(gram: Tensor, cross: Tensor, weight: Tensor, output: Tensor, unit: Unit) -> Reader:
    total = max(float(output.square().sum()), torch.finfo(torch.float64).tiny)
    return Reader.of(gram.cpu(), cross.cpu(), weight.cpu(), total, unit.upper_bound)


def _by_magnitude(model: nn.Module, unit: Unit, name: str) -> Reader:
    weight = dict(model.named_parameters())[name].detach().double().cpu()
    norms = [
        owned(weight, part, unit.upper_bound).movedim(part.dim, 0).reshape(unit.upper_bound, -1).square().sum(1)
        for part in unit.slices
        if part.tensor == name and part.role == "consumer"
    ]
    return Reader.by_magnitude(torch.stack(norms).sum(0))


def _widths(task: Task, readers: list[Readers], order: list[int], energy: float) -> tuple[float, list[int]]:
    """The smallest tolerance, by bisection of its logarithm, whose widths have Ê <= energy; and the widths.

    At that tolerance many units may fall at once. They do so in `order`, and the last of them only as far as it must.
    """

    def widths(logarithm: float) -> list[int]:
        return [unit.least_width(math.exp(logarithm)) for unit in readers]

    def within(counts: list[int]) -> bool:
        return float(task.energy(torch.tensor(counts))) <= energy

    low, high = math.log(SMALLEST), math.log(LARGEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if within(widths(middle)) else (middle, high)
    found, narrow = widths(low), widths(high)
    for unit in order:
        if within(found):
            break
        wide, found[unit] = found[unit], min(found[unit], narrow[unit])
        if within(found):
            least = found[unit]
            while wide - least > 1:
                middle_width = (wide + least) // 2
                found[unit] = middle_width
                least, wide = (middle_width, wide) if within(found) else (least, middle_width)
            found[unit] = least
    return math.exp(high), found


def _by_energy(task: Task, table: Structure) -> list[int]:
    """The units from the most to the least joules, by what Ê would fall without their channels."""
    widths = torch.tensor(table.upper_bounds)
    slope = task.energy_per_channel(widths)
    return (slope * widths).argsort(descending=True, stable=True).tolist()


def _cut(task: Task, model: nn.Module, unit: Unit, sampled: list[Sampled], width: int, sweep: int) -> Tensor:
    """Choose the unit's channels, mask (channels,), and fit the weights that read them."""
    found = sampled_rows(task, model, {name: layer for name, layer, _ in sampled}, sweep)
    of_unit, problems = [], []
    for name, layer, target in sampled:
        weight = layer.weight.detach().flatten(1).double()
        live = (weight != 0).any(1)  # outputs of channels that went in this sweep have no weights any more
        weight, wanted, rows = weight[live], target[:, live].double(), found[name].double()
        gram, cross = rows.T @ rows, rows.T @ wanted
        of_unit.append(_reader(gram, cross, weight, wanted, unit))
        problems.append((layer, live, weight, gram, cross))
    names = {name for name, _, _ in sampled}
    of_unit += [_by_magnitude(model, unit, name) for name in _consumers(unit) if name not in names]
    kept = Readers(of_unit).support(width)
    for layer, live, weight, gram, cross in problems:
        repeat = weight.shape[1] // unit.upper_bound
        columns = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
        columns[channel_entries(kept.nonzero().flatten(), repeat).to(weight.device)] = True
        with torch.no_grad():
            fitted = refitted(gram, cross, weight, columns, RIDGE)
            layer.weight[live] = fitted.view(-1, *layer.weight.shape[1:]).to(layer.weight.dtype)
    return kept

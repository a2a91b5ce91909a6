"""LcP and LeGR: one ranking of all filters, whose scale per layer an evolution searches.

Chin, Zhang, Marculescu, "Layer-compensated Pruning for Resource-constrained Convolutional Neural Networks", arXiv
1810.00518; Chin, Ding, Zhang, Marculescu, "Towards Efficient Model Compression via Learned Global Ranking", CVPR 2020,
with the search of its published code, github.com/cmu-enyac/LeGR. Both prune to multiply-adds or parameters; here it is
to energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from methods.contract import Method, Outcome, Properties, Task, spend_remaining
from shared.candidates import Candidates
from shared.networks import Structure
from shared.networks.pruning import per_channel
from shared.protocol import Protocol
from shared.reconstruction import calibration_batches
from shared.training import recalibrate_batch_norm
from shared.widths.ranked import lowest_scores

# The published search: 400 candidates, a population of 64, tournaments of 16, a mutation of a tenth of the layers whose
# size falls to a fifth. Fewer candidates keep these ratios.
POPULATION_SHARE, TOURNAMENT_SHARE, MUTATED_SHARE, LAST_STEP = 64 / 400, 16 / 64, 0.1, 0.2
LEAST_SHARE = 0.1  # of its channels that every unit keeps
RECALIBRATION_BATCHES = 3  # that batch norm's statistics of a candidate are taken from


class Layer(NamedTuple):
    """A layer that makes channels of a unit: the squared norm of each of its filters, over their mean in the layer.

    LcP leaves the metric open; in LeGR it is the squared norm itself. Batch norm undoes the scale of a layer's weights,
    so that their norms may differ by an order of magnitude from layer to layer. A constant per layer could not make up
    for that.
    """

    unit: int
    norms: Tensor


@dataclass(frozen=True)
class LcP(Method):
    """Searches one number per layer, which is added to the squared norms of its filters before all are ranked.

    A candidate's channels go from the lowest score on until Ê meets the budget. It is judged by its accuracy on search
    images, without training, after AMC's reconstruction and with batch norm's statistics taken anew; LeGR's published
    code judges by the loss, where asked after a short training. Where an addition ties layers, their scores are summed.
    The best candidate trains for all iterations.
    """

    name: ClassVar[str] = "lcp"
    title: ClassVar[str] = "LcP"
    paper: ClassVar[str] = (
        "Chin, Zhang, Marculescu: Layer-compensated Pruning for Resource-constrained Convolutional Neural Networks. "
        "arXiv 1810.00518; to energy"
    )
    properties: ClassVar[Properties | None] = Properties(
        direct_metric=True, targets_energy=False, optimization_based=False, platform_free=True
    )

    revision: ClassVar[int] = 2  # the first had raw norms, and judged with the dense network's statistics

    def run(self, task: Task) -> Outcome:
        """Search, cut and train. Raises Infeasible when a tenth of every dense width is above the budget."""
        layers = layers_of(task.network, task.structure)
        least = [max(1, int(LEAST_SHARE * bound)) for bound in task.structure.upper_bounds]
        identity = torch.zeros(2, len(layers))
        self.widths(task, layers, identity, least)  # raises Infeasible before anything is spent
        candidates = Candidates(
            task.copy_of_dense(),
            task.structure,
            task.calibration_batches(calibration_batches(task.protocol.batch_size)),
            task.generator("reconstruction"),
            by_unit(layers, torch.zeros(2, len(layers)), task.structure),
        )
        count = task.protocol.episodes
        population = min(count, max(2, round(POPULATION_SHARE * count)))
        checkpoint = task.saved("candidates")
        judged: list[tuple[float, Tensor]] = checkpoint["judged"] if checkpoint else []
        for index in range(len(judged), count):
            draw = task.generator("candidate", index)
            if index < population - 1:
                latents = self._random(layers, draw)
            elif index == population - 1:
                latents = identity
            else:
                step = 1 - (1 - LAST_STEP) * index / count
                latents = self.mutated(_winner(judged[-population:], draw), layers, step, draw)
            widths = self.widths(task, layers, latents, least)
            network = candidates.at(widths)
            recalibrate_batch_norm(network, task.calibration_batches(RECALIBRATION_BATCHES))
            judged.append((task.search_accuracy(network), latents))
            task.save("candidates", lambda: {"judged": judged})
        accuracy, best = max(judged, key=lambda entry: entry[0])  # the first among equals
        widths = self.widths(task, layers, best, least)
        model = candidates.cut(widths)
        spend_remaining(task, task.trainer(model))
        notes = {
            "candidates": count,
            "widths": list(widths),
            "identity_accuracy": judged[population - 1][0],
            "best_accuracy": accuracy,
            "latents": best.tolist(),
            "reconstruction_skipped": list(candidates.skipped),
        }
        return Outcome(model, notes, {"accuracy": [score for score, _ in judged]})

    def search_samples(self, protocol: Protocol, structure: Structure) -> int:
        """Search images and batch norm's images of all candidates, and the reconstruction's images."""
        images = protocol.search_images + RECALIBRATION_BATCHES * protocol.batch_size
        return protocol.episodes * images + calibration_batches(protocol.batch_size) * protocol.batch_size

    def widths(self, task: Task, layers: list[Layer], latents: Tensor, least: list[int]) -> tuple[int, ...]:
        """The widths that the ranking with these latents leaves within the budget."""
        scores, bounds = by_unit(layers, latents, task.structure), task.structure.upper_bounds
        dead = lowest_scores(scores, bounds, lambda widths: float(task.energy(widths)), task.budget, least)
        return tuple((torch.tensor(bounds) - dead.sum(1)).tolist())

    def _random(self, layers: list[Layer], draw: torch.Generator) -> Tensor:
        return self.mutated(torch.zeros(2, len(layers)), layers, 1.0, draw, share=1.0)

    def mutated(
        self, parent: Tensor, layers: list[Layer], step: float, draw: torch.Generator, share: float = MUTATED_SHARE
    ) -> Tensor:
        """The parent with normal changes in a share of the layers. step: size of those of the factors."""
        chosen = torch.randperm(len(layers), generator=draw)[: max(1, round(share * len(layers)))]
        changes = self.spread(layers) * torch.randn(2, len(layers), generator=draw)
        changes[0] *= step  # of the factors alone, as in the published code
        child = parent.clone()
        child[:, chosen] += changes[:, chosen]
        return child

    def spread(self, layers: list[Layer]) -> Tensor:
        """Standard deviations of the changes, (2, layers): none of the factors, that of all norms of the constants.

        The paper's range is not known. A constant has to lift a layer over another one whose norms are larger.
        """
        return torch.stack(
            [torch.zeros(len(layers)), torch.cat([layer.norms for layer in layers]).std().expand(len(layers))]
        )


@dataclass(frozen=True)
class LeGR(LcP):
    """LcP whose norms also have a learned factor per layer.

    The latents decide how many channels of a unit stay. Where an addition ties layers, which of them is decided by
    their summed norms, without the factors.
    """

    name: ClassVar[str] = "legr"
    title: ClassVar[str] = "LeGR"
    paper: ClassVar[str] = (
        "Chin, Ding, Zhang, Marculescu: Towards Efficient Model Compression via Learned Global Ranking. CVPR 2020; "
        "to energy"
    )

    def spread(self, layers: list[Layer]) -> Tensor:
        """As in the published code: 1 for a factor's logarithm, that of the layer's norms for its constant."""
        return torch.stack([torch.ones(len(layers)), torch.stack([layer.norms.std(correction=0) for layer in layers])])


def layers_of(network: nn.Module, structure: Structure) -> list[Layer]:
    """The layers that make a unit's channels, on the CPU."""
    squares = {name: parameter.detach().square() for name, parameter in network.named_parameters()}
    layers = []
    for unit in structure.units:
        for part in unit.slices:
            if part.role == "producer":
                norms = per_channel(torch.sum, squares[part.tensor], part, unit.upper_bound).cpu()
                layers.append(Layer(unit.index, norms / norms.mean().clamp(min=torch.finfo(norms.dtype).tiny)))
    return layers


def by_unit(layers: list[Layer], latents: Tensor, structure: Structure) -> Tensor:
    """Scores (units, largest upper bound): exp(latents[0]) * norm + latents[1], summed over a unit's layers."""
    rows = [torch.zeros(unit.upper_bound) for unit in structure.units]
    for layer, factor, constant in zip(layers, latents[0].exp(), latents[1], strict=True):
        rows[layer.unit] = rows[layer.unit] + factor * layer.norms + constant
    return pad_sequence(rows, batch_first=True)


def _winner(population: list[tuple[float, Tensor]], draw: torch.Generator) -> Tensor:
    """The best of a tournament; the population is the last candidates, so each birth replaces the oldest."""
    size = max(2, round(TOURNAMENT_SHARE * len(population)))
    places = torch.randperm(len(population), generator=draw)[:size].tolist()
    return max((population[place] for place in places), key=lambda entry: entry[0])[1]

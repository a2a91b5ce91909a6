"""LcP and LeGR: the ranking against a plain global one, the search, what it judges and trains, and its mutations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract import Infeasible, Task
from methods.lcp.lcp import LcP, LeGR, _winner, by_unit, layers_of
from shared.networks import active_widths, build, structure

METHODS = [LcP(), LeGR()]


class Judged(NamedTuple):
    """A candidate when it is judged."""

    widths: tuple[int, ...]
    state: dict[str, Tensor]
    search_samples: int  # spent until then


@pytest.fixture(autouse=True)
def few_calibration_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.reconstruction.CALIBRATION_IMAGES", 200)  # 13 batches of 16


def judging(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[Judged]:
    """Candidates get these scores, one after the other, and are in the list that comes back."""
    judged: list[Judged] = []

    def judge(task: Task, model: nn.Module) -> float:
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        judged.append(Judged(active_widths(model), state, task.ledger.search_samples))
        return scores[len(judged) - 1]

    monkeypatch.setattr(Task, "search_accuracy", judge)
    return judged


def bred(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, float]]:
    """The list that comes back gets (parent, child, step) of all mutations."""
    births: list[tuple[Tensor, Tensor, float]] = []
    mutated = LcP.mutated

    def watched(self: LcP, parent: Tensor, layers: Any, step: float, *others: Any, **named: Any) -> Tensor:
        child = mutated(self, parent, layers, step, *others, **named)
        births.append((parent, child, step))
        return child

    monkeypatch.setattr(LcP, "mutated", watched)
    return births


def least(task: Task) -> list[int]:
    return [max(1, bound // 10) for bound in task.structure.upper_bounds]


def over_their_mean(weight: Tensor) -> Tensor:
    """Squared norms of a layer's filters over their mean."""
    norms = torch.stack([(filters**2).sum() for filters in weight.detach()])
    return norms / (norms.sum() / len(norms))


@pytest.mark.parametrize("network", ["toy", "mobilenet"])
@pytest.mark.parametrize("method", METHODS)
def test_without_latents_it_is_the_global_ranking_of_filter_norms(tiny_task: Any, network: str, method: LcP) -> None:
    task: Task = tiny_task(network=network)
    layers = layers_of(task.network, task.structure)
    widths = method.widths(task, layers, torch.zeros(2, len(layers)), least(task))
    modules = dict(task.network.named_modules())
    filters = []
    for unit in task.structure.units:
        filters += [(norm, unit.index) for norm in over_their_mean(modules[unit.name].weight).tolist()]
    left, floors = list(task.structure.upper_bounds), least(task)
    for _, unit_index in sorted(filters):
        if float(task.energy_model(task.structure.positions(left))) <= task.budget:
            break
        if left[unit_index] > floors[unit_index]:
            left[unit_index] -= 1
    assert list(widths) == left


def test_scores_are_factors_times_norms_plus_constants(tiny_task: Any) -> None:
    task: Task = tiny_task()
    layers = layers_of(task.network, task.structure)
    latents = torch.tensor([[0.5, 0.0, -1.0, 0.2], [0.0, 2.0, 0.3, -0.1]])
    scores = by_unit(layers, latents, task.structure)
    expected = torch.exp(torch.tensor(-1.0)) * over_their_mean(task.network.get_parameter("conv.weight")) + 0.3
    torch.testing.assert_close(scores[2, :16], expected)


def test_where_an_addition_ties_layers_their_scores_are_summed() -> None:
    network = build("resnet18", input_size=32, in_channels=1, num_classes=4, width_multiplier=0.125)
    table = structure(network)
    layers = layers_of(network, table)
    trunk = [place for place, layer in enumerate(layers) if layer.unit == 0]
    latents = torch.randn(2, len(layers), generator=torch.Generator().manual_seed(0))
    names = ("conv1", "layer1.0.conv2", "layer1.1.conv2")
    expected = sum(
        latents[0, place].exp() * over_their_mean(network.get_parameter(f"{name}.weight")) + latents[1, place]
        for place, name in zip(trunk, names, strict=True)
    )
    torch.testing.assert_close(by_unit(layers, latents, table)[0, : table.upper_bounds[0]], expected)


def test_a_layer_of_zeros_has_zeros_for_norms(tiny_task: Any) -> None:
    task: Task = tiny_task()
    network = task.copy_of_dense()
    with torch.no_grad():
        network.get_parameter("conv.weight").zero_()
    assert not bool(layers_of(network, task.structure)[2].norms.any())


def test_a_constant_lifts_a_layer_over_the_others(tiny_task: Any) -> None:
    task: Task = tiny_task()
    layers = layers_of(task.network, task.structure)
    latents = torch.zeros(2, len(layers))
    latents[1, 0] = 1e6
    widths = LcP().widths(task, layers, latents, least(task))
    assert widths[0] == task.structure.upper_bounds[0]


@pytest.mark.parametrize("method", METHODS)
def test_it_judges_as_many_candidates_as_amc_has_episodes_and_trains_none(tiny_task: Any, method: LcP) -> None:
    task: Task = tiny_task(episodes=9)
    outcome = method.run(task)
    assert outcome.notes["candidates"] == len(outcome.trace["accuracy"]) == 9
    assert outcome.notes["best_accuracy"] == max(outcome.trace["accuracy"])
    assert task.ledger.search_samples == method.search_samples(task.protocol, task.structure)
    assert task.ledger.search_samples == 9 * (50 + 3 * 16) + 13 * 16  # judging, batch norm, reconstruction
    assert list(active_widths(outcome.network)) == outcome.notes["widths"]
    factors = outcome.notes["latents"][0]
    assert any(factors) == (
        outcome.trace["accuracy"].index(outcome.notes["best_accuracy"]) != 1 and method.name == "legr"
    )


def test_candidates_are_judged_with_batch_norms_statistics_of_three_training_batches(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Task = tiny_task(iterations=0, episodes=4)
    judged = judging(monkeypatch, [0.5] * 4)
    LcP().run(task)
    batches = [task.train.batch(index)[0] for index in range(3)]
    for candidate in judged:
        maps = [F.conv2d(images, candidate.state["stem.weight"], stride=2, padding=1) for images in batches]
        means, variances = (
            torch.stack([part.transpose(0, 1).flatten(1).mean(1) for part in maps]).mean(0),
            torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in maps]).mean(0),
        )
        torch.testing.assert_close(candidate.state["stem_norm.running_mean"], means)
        torch.testing.assert_close(candidate.state["stem_norm.running_var"], variances)
    assert [candidate.search_samples for candidate in judged] == [13 * 16 + 3 * 16 * count for count in (1, 2, 3, 4)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", [0, 5, 8])
def test_the_best_candidate_is_trained_whether_it_is_the_identity_or_not(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch, method: LcP, place: int
) -> None:
    task: Task = tiny_task(iterations=0, episodes=9)  # a population of two, of which the identity is the second
    scores = [0.9 if index == place else 0.4 + 0.01 * index for index in range(9)]
    judged, births = judging(monkeypatch, scores), bred(monkeypatch)
    outcome = method.run(task)
    identity, best = judged[1], judged[place]
    latents = births[place - (place > 1)][1]
    layers = layers_of(task.network, task.structure)
    assert identity.widths == method.widths(task, layers, torch.zeros(2, len(layers)), least(task)) != best.widths
    assert torch.equal(torch.tensor(outcome.notes["latents"]), latents)
    assert outcome.notes["widths"] == list(method.widths(task, layers, latents, least(task))) == list(best.widths)
    assert (outcome.notes["identity_accuracy"], outcome.notes["best_accuracy"]) == (scores[1], 0.9)
    assert outcome.trace["accuracy"] == scores
    for name, tensor in outcome.network.state_dict().items():
        assert "running" in name or "tracked" in name or torch.equal(tensor, best.state[name])


@pytest.mark.parametrize("method", METHODS)
def test_candidates_and_the_trained_network_keep_the_channels_with_the_largest_filters(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch, method: LcP
) -> None:
    task: Task = tiny_task(iterations=0, episodes=6)
    judged = judging(monkeypatch, [0.1 * index for index in range(6)])
    trained = method.run(task).network
    dense = task.network.state_dict()
    told = {
        "stem": "stem_norm.weight",
        "pointwise": "pointwise_norm.bias",
        "conv": "conv.bias",
        "hidden": "hidden.bias",
    }
    for state in [*(candidate.state for candidate in judged), trained.state_dict()]:
        for layer, entry in told.items():  # entry: tells one channel from another, and isn't reconstructed
            norms = over_their_mean(dense[f"{layer}.weight"]).tolist()
            largest = sorted(range(len(norms)), key=lambda channel: -norms[channel])[: len(state[entry])]
            assert torch.equal(state[entry], dense[entry][sorted(largest)])
            assert len(dense[entry].unique()) == len(norms)


def test_parents_are_good_ones_of_the_last_candidates_and_mutations_get_smaller(
    tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A population of three and tournaments of two. As each candidate is worse than the last one, it wins none yet."""
    judging(monkeypatch, [1 - 0.01 * index for index in range(20)])
    births = bred(monkeypatch)
    LeGR().run(tiny_task(iterations=0, episodes=20))
    (first, second), later = births[:2], births[2:]
    assert len(later) == 17 and not bool(first[0].any()) and not bool(second[0].any())
    candidates = [first[1], second[1], torch.zeros_like(first[1]), *(child for _, child, _ in later)]
    ages = [
        next(age for age in range(1, index + 1) if torch.equal(parent, candidates[index - age]))
        for index, (parent, _, _) in enumerate(later, start=3)
    ]
    assert set(ages) == {2, 3}
    assert [step for _, _, step in later] == pytest.approx([1 - 0.8 * index / 20 for index in range(3, 20)])
    assert all(int((child != parent).any(0).sum()) == 1 for parent, child, _ in later)


def test_the_winner_is_the_best_of_a_quarter_of_the_population() -> None:
    """A population of sixteen, so the best of four: what has v worse ones wins in (v over 3) of (16 over 4) draws."""
    scores = torch.randperm(16, generator=torch.Generator().manual_seed(3)).tolist()
    population = [(score / 16, torch.full((2, 1), float(score))) for score in scores]
    won = [int(_winner(population, torch.Generator().manual_seed(index))[0, 0]) for index in range(400)]
    shares = [won.count(score) / 400 for score in range(16)]
    assert shares[:3] == [0, 0, 0]
    assert shares == pytest.approx([math.comb(score, 3) / math.comb(16, 4) for score in range(16)], abs=0.05)
    for index in range(20):  # tournaments are of two at least
        assert _winner(population[:2], torch.Generator().manual_seed(index))[0, 0] == max(scores[:2])


def test_mutations_change_a_tenth_of_the_layers(tiny_task: Any) -> None:
    task: Task = tiny_task(network="mobilenet")
    layers = layers_of(task.network, task.structure)
    parent = torch.ones(2, len(layers))
    for method, factors in ((LcP(), False), (LeGR(), True)):
        child = method.mutated(parent, layers, 0.5, torch.Generator().manual_seed(1))
        changed = child != parent
        assert int(changed[1].sum()) == round(0.1 * len(layers)) == 1
        assert bool(changed[0].any()) == factors
        everywhere = method.mutated(parent, layers, 0.5, torch.Generator().manual_seed(1), share=1.0)
        assert bool((everywhere[1] != parent[1]).all())
    many = torch.stack([LeGR().mutated(parent, layers, 0.5, torch.Generator().manual_seed(k), 1.0) for k in range(400)])
    spreads = (many - parent).std(0)
    assert spreads[0].tolist() == pytest.approx([0.5] * len(layers), rel=0.2)
    norms = [float(layer.norms.std(correction=0)) for layer in layers]
    assert spreads[1].tolist() == pytest.approx(norms, rel=0.2)  # whatever the step
    many = torch.stack([LcP().mutated(parent, layers, 0.5, torch.Generator().manual_seed(k), 1.0) for k in range(400)])
    every = float(torch.cat([layer.norms for layer in layers]).std())
    assert (many - parent).std(0).tolist() == [[0.0] * len(layers), pytest.approx([every] * len(layers), rel=0.2)]


def test_a_budget_below_a_tenth_of_every_width(tiny_task: Any) -> None:
    with pytest.raises(Infeasible, match="least widths"):
        LcP().run(tiny_task(budget_fraction=0.05))

"""Protocols: where their rates come from, and that `paper` says what the paper says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.setup import protocols
from shared import networks
from shared.errors import BadInput

REPORTS = Path(__file__).parents[3] / "reports"
TUNED = ("smoke", "quick", "standard")
WITH_RATES = [("quick", "alexnet"), ("quick", "erfnet"), ("standard", "alexnet")]


def chosen_rate(name: str, network: str) -> float:
    """What the printed grid chose."""
    stem = f"learning-rate-{name}" if network == "mobilenet" else f"learning-rate-{name}-{network}"
    (chosen,) = re.findall(r"^Chosen: (\S+)\.$", (REPORTS / f"{stem}.md").read_text(), re.MULTILINE)
    return float(chosen)


@pytest.mark.parametrize(("name", "network"), [*((name, "mobilenet") for name in TUNED), *WITH_RATES])
def test_learning_rates_are_those_that_their_grids_chose(name: str, network: str) -> None:
    assert protocols.get(name, network).learning_rate == chosen_rate(name, network)
    assert protocols.get(name, network).name == name


@pytest.mark.parametrize("network", networks.names())
def test_standard_ranks(network: str) -> None:
    quick, standard = (protocols.get(name, network) for name in ("quick", "standard"))
    assert standard.iterations >= quick.iterations and len(standard.seeds) >= 3 and standard.ranks
    assert len(standard.budgets) >= 3 and standard.batch_size == quick.batch_size


def test_erfnet_takes_the_rate_and_the_counts_of_quick() -> None:
    quick, standard = (protocols.get(name, "erfnet") for name in ("quick", "standard"))
    for field in ("iterations", "fine_tune_iterations", "batch_size", "learning_rate"):
        assert getattr(standard, field) == getattr(quick, field)
    assert standard.learning_rate == chosen_rate("quick", "erfnet")


def test_every_protocol_is_tuned_or_says_whence_its_rate_is() -> None:
    assert set(protocols.names()) == {*TUNED, "long", "paper"}
    for network in networks.names():
        long, standard = (protocols.get(name, network) for name in ("long", "standard"))
        assert (long.iterations, long.fine_tune_iterations) == (
            10 * standard.iterations,
            10 * standard.fine_tune_iterations,
        )
        assert (long.learning_rate, long.batch_size) == (standard.learning_rate, standard.batch_size)
        assert set(long.budgets) < set(standard.budgets) and not long.ranks
    assert "`paper` takes the published rate" in " ".join(str(protocols.__doc__).split())


PUBLISHED = {  # ECC paper, section 4.1: iterations, fine-tuning, the closing part of it, batch, rho
    "alexnet": (300_000, 100_000, 0, 128, 10),
    "mobilenet": (300_000, 400_000, 300_000, 128, 10),
    "erfnet": (30_000, 10_000, 0, 4, 1),
}


@pytest.mark.parametrize("network", PUBLISHED)
def test_paper_has_the_published_numbers(network: str) -> None:
    paper = protocols.get("paper", network)
    counts = (paper.iterations, paper.fine_tune_iterations, paper.closing_iterations, paper.batch_size, paper.rho)
    assert counts == PUBLISHED[network]
    assert (paper.learning_rate, paper.weight_decay, paper.distillation) == (1e-5, 1e-4, 0.5)
    assert (paper.episodes, paper.stages) == (400, 4)
    assert (paper.profile_samples, paper.profile_test_samples) == (10_000, 2_000)
    assert not paper.fine_tune_decays and not paper.ranks
    assert paper.closing_learning_rate == (3e-5 if network == "mobilenet" else 0.0)


@pytest.mark.parametrize("name", ["smoke", "quick", "standard"])
@pytest.mark.parametrize("network", networks.names())
def test_other_protocols_fine_tune_in_one_part_that_decays(name: str, network: str) -> None:
    protocol = protocols.get(name, network)
    assert protocol.fine_tune_decays and protocol.closing_iterations == 0 and protocol.rho == 10.0


TABLE_2 = {
    "1080ti": ("1.6519J", "1.5238J", "1.4451J", "1.3843J"),
    "tx2": ("1.0724J", "0.9756J", "0.9051J", "0.8542J"),
}


@pytest.mark.parametrize("platform", TABLE_2)
def test_erfnet_has_the_budgets_of_table_2(platform: str) -> None:
    paper = protocols.get("paper", "erfnet")
    joules, shares = protocols.energy_budgets(paper, "erfnet", "cityscapes", platform)
    assert joules == TABLE_2[platform]
    dense = {"1080ti": 1.9708, "tx2": 1.3213}[platform]
    assert [float(share) for share in shares] == pytest.approx([float(j[:-1]) / dense for j in joules], abs=1e-4)
    # joules of Cityscapes' images mean nothing on others
    assert protocols.energy_budgets(paper, "erfnet", "garment-scenes", platform) == [shares]


def test_mobilenet_on_the_tx2_has_the_published_point() -> None:
    paper = protocols.get("paper", "mobilenet")
    points, shares = protocols.energy_budgets(paper, "mobilenet", "imagenet", "tx2")
    assert points == ("0.63", "0.0247J", "0.4", "0.3") and shares == ("0.63", "0.5072", "0.4", "0.3")


@pytest.mark.parametrize(
    ("name", "network", "platform"),
    [("quick", "erfnet", "tx2"), ("paper", "resnet18", "tx2"), ("paper", "erfnet", "cpu")],
)
def test_without_an_experiment_of_the_paper_the_protocol_s_fractions_hold(
    name: str, network: str, platform: str
) -> None:
    protocol = protocols.get(name, network)
    fractions = tuple(map(str, protocol.budgets))
    assert protocols.energy_budgets(protocol, network, "cityscapes", platform) == [fractions]


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(BadInput, match="smoke, quick, standard, paper, long, got 'nope'"):
        protocols.get("nope")

"""The page about the chip Eyeriss: its layers are those of the networks, and the committed page is what they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torchvision
from torch import nn

from bench.studies import eyeriss
from bench.studies.eyeriss import page

SQUEEZENETS = {"squeezenet-1.0": torchvision.models.squeezenet1_0, "squeezenet-1.1": torchvision.models.squeezenet1_1}


def weights(network: str) -> float:
    return sum(float(published.layer.weights) for published in eyeriss.published_layers(network))


def macs(network: str) -> float:
    return sum(float(published.layer.multiply_adds) for published in eyeriss.published_layers(network))


@pytest.mark.parametrize("network", SQUEEZENETS)
def test_squeezenets_layers_are_those_of_another_implementation(network: str) -> None:
    layers = [module for module in SQUEEZENETS[network]().modules() if isinstance(module, nn.Conv2d)]
    table = [published.layer for published in eyeriss.published_layers(network)]
    ours = [(int(layer.channels), int(layer.filters), layer.kernel, layer.stride) for layer in table]
    assert ours == [(module.in_channels, module.out_channels, module.kernel_size, module.stride) for module in layers]


def test_alexnet_has_its_published_sizes() -> None:
    assert weights("alexnet") == 60_954_656 and macs("alexnet") == 724_406_816


def test_googlenets_modules_read_what_the_modules_before_them_make() -> None:
    layers = {published.name: published.layer for published in eyeriss.published_layers("googlenet")}
    names = ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
    made = [
        sum(int(layers[f"{name} {part}"].filters) for part in ("1x1", "3x3", "5x5", "pool projection"))
        for name in names
    ]
    read = [int(layers[f"{name} 1x1"].channels) for name in names]
    assert made[:-1] == read[1:] and made[-1] == layers["fc"].channels
    assert weights("googlenet") == pytest.approx(6.99e6, rel=0.005)


def test_pruned_networks_keep_at_least_their_feature_maps() -> None:
    totals = [
        eyeriss.amounts("alexnet", "closed form", images=16, kept=eyeriss.Kept(weights=share)).to_numpy().sum()
        for share in (1.0, 0.5, 0.25, 0.0)
    ]
    assert totals == sorted(totals, reverse=True) and totals[-1] > 0.25 * totals[0]


def test_narrowed_networks_have_the_multiply_adds_and_weights_of_their_widths() -> None:
    layers = eyeriss.published_layers("alexnet")
    counts = eyeriss.amounts("alexnet", "closed form", images=1, dense=True, kept=eyeriss.Kept(channels=0.5))
    for index, (name, layer, _, _) in enumerate(layers):
        read = 1.0 if index == 0 else 0.5
        made = 1.0 if index == len(layers) - 1 else 0.5
        assert counts.loc[name, ("compute", "products")] == pytest.approx(read * made * float(layer.multiply_adds))  # type: ignore[index]
        moved = counts.loc[name, ("DRAM", "weights")]  # type: ignore[index]
        assert moved == pytest.approx(200 * read * made * float(layer.weights))
        assert counts.loc[name, ("DRAM", "inputs")] == pytest.approx(  # type: ignore[index]
            200 * np.ceil(read * float(layer.maps)) * layer.padded[0] ** 2
        )


def test_the_pages_shares_are_sums_over_the_figures_columns() -> None:
    counts = pd.DataFrame(
        [[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]],
        index=["conv1", "fc8"],
        columns=pd.Index(
            [("compute", "products"), ("DRAM", "weights"), ("DRAM", "inputs"), ("buffer", "inputs")],
            tupleize_cols=False,
        ),
    )
    assert page._share(counts, level="DRAM") == pytest.approx(55 / 110)
    assert page._share(counts, data=("inputs",)) == pytest.approx(77 / 110)
    assert page._convolutional(counts) == pytest.approx(10 / 110)
    assert page._by_level(counts).to_dict("list") == {
        "compute": [1, 10],
        "DRAM weights": [2, 20],
        "DRAM inputs": [3, 30],
        "buffer": [4, 40],
    }


def test_a_page_is_checked_against_its_code(tmp_path: Path) -> None:
    assert eyeriss.check(tmp_path) == []
    page = eyeriss.write(tmp_path)
    assert eyeriss.check(tmp_path) == [] and "simulated" in page.read_text()
    page.write_text(page.read_text().replace("9.1", "9.2"))
    (tmp_path / "eyeriss-alexnet.svg").unlink()
    assert [problem.partition(":")[0] for problem in eyeriss.check(tmp_path)] == ["eyeriss.md", "eyeriss-alexnet.svg"]

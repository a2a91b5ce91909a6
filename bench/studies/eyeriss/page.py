"""The page of the Eyeriss study. It is made from the published layers and the chip's constants alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.report.layers import plot
from bench.report.style import same_plot
from bench.report.text import Table, fill, percent
from bench.studies.eyeriss.networks import (
    NETWORKS,
    Kept,
    Model,
    Published,
    amounts,
    pointwise_of_mobilenet,
    published_layers,
)
from shared.cache import atomic_write
from shared.platforms.eyeriss.chip import LEVELS, chip

NAME = "eyeriss"
FULLY_CONNECTED = ("fc", "fc6", "fc7", "fc8")
SETTINGS: tuple[tuple[str, Model, int | None, bool], ...] = (
    ("passes, CNNergy's n", "passes", None, False),
    ("passes, n = 1", "passes", 1, False),
    ("passes, CNNergy's n, dense activations", "passes", None, True),
    ("closed form, n = 16", "closed form", 16, False),
    ("closed form, n = 1", "closed form", 1, False),
    ("closed form, n = 16, dense activations", "closed form", 16, True),
)
PRUNED = (
    ("weights, half of each layer", Kept(weights=0.5)),
    ("weights, a quarter", Kept(weights=0.25)),
    ("weights, a tenth", Kept(weights=0.1)),
    ("weights, none: the floor", Kept(weights=0.0)),
    ("channels, 0.7 of each inner layer", Kept(channels=0.7)),
    ("channels, a half", Kept(channels=0.5)),
)


def write(folder: Path) -> Path:
    """Write page and plots into `folder`; returns the page's path."""
    for name, content in page_files().items():
        atomic_write(folder / name, content)
    return folder / f"{NAME}.md"


def check(folder: Path) -> list[str]:
    """How page and plots in `folder` differ from what the code makes; empty where the page was never written."""
    if not (folder / f"{NAME}.md").is_file():
        return []
    problems = []
    for name, content in page_files().items():
        committed = (folder / name).read_bytes() if (folder / name).is_file() else b""
        if committed != content and not (name.endswith(".svg") and same_plot(committed, content)):
            problems.append(f"{name}: not what the layers and constants make")
    return problems


def page_files() -> dict[str, bytes]:
    """File name -> content of the page and its plots."""
    plots = {
        f"{NAME}-{network}.svg": plot(
            _by_level(amounts(network)) * chip().mac_j, "J", f"{network}  ·  eyeriss, simulated, pass model"
        )
        for network in ("alexnet", "googlenet")
    }
    text = fill(
        "eyeriss.md.jinja",
        name=NAME,
        chip=chip(),
        schedule=_schedule(),
        mobilenet=_mobilenet(),
        totals_table=_totals_table(),
        where_table=_where_table(),
        claims_table=_claims_table(),
        pruned_table=_pruned_table(),
        bits_table=_bits_table(),
    )
    return {f"{NAME}.md": text.encode()} | plots


def _by_level(counts: pd.DataFrame) -> pd.DataFrame:
    """A column per level; DRAM's by what it moves."""
    names = [f"DRAM {datum}" if level == "DRAM" else level for level, datum in counts.columns]
    return counts.T.groupby(names, sort=False).sum().T


def _total(counts: pd.DataFrame) -> float:
    return float(counts.to_numpy().sum())


def _share(counts: pd.DataFrame, *, level: str | None = None, data: tuple[str, ...] = ()) -> float:
    """Share of all that belongs to a level, or to data ("products", "weights", "inputs", "outputs")."""
    chosen = [cause for cause in counts.columns if cause[0] == level or cause[1] in data]
    return _total(counts[chosen]) / _total(counts)


def _convolutional(counts: pd.DataFrame) -> float:
    return _total(counts.drop(index=list(FULLY_CONNECTED), errors="ignore")) / _total(counts)


def _totals_table() -> Table:
    rows = []
    for title, model, images, dense in SETTINGS:
        totals = [_total(amounts(network, model, images=images, dense=dense)) for network in NETWORKS]
        rows.append([title, *(f"{total / 1e9:.3f}" for total in totals)])
    single = [_total(amounts(name, "closed form", images=1)) / _total(amounts(name, images=1)) for name in NETWORKS]
    rows.append(["closed form over passes, n = 1", *(f"{ratio:.3f}" for ratio in single)])
    return ["10⁹ multiply-adds' worth per image", *NETWORKS], rows


def _schedule() -> str:
    """CNNergy's n of the networks, layer by layer where there are few."""
    alexnet = ", ".join(str(published.images) for published in published_layers("alexnet"))
    ranges = []
    for network in NETWORKS[1:]:
        images = [published.images for published in published_layers(network)]
        ranges.append(f"{min(images)} to {max(images)} for {network}'s")
    return f"{alexnet} for AlexNet's layers, {', '.join(ranges)}"


def _mobilenet() -> dict[str, str]:
    """Shares of the passes' energy that the closed form has, in % : of all 1x1 convolutions, and at the two ends."""
    pairs = pointwise_of_mobilenet()
    least, most = (end(pairs, key=lambda name: pairs[name][0] / pairs[name][1]) for end in (min, max))
    closed, passes = (sum(pair[side] for pair in pairs.values()) for side in (0, 1))
    shares = {"all": closed / passes} | {
        key: pairs[name][0] / pairs[name][1] for key, name in (("least", least), ("most", most))
    }
    return {key: percent(share, 0) for key, share in shares.items()} | {"least_layer": least, "most_layer": most}


def _where_table() -> Table:
    rows = []
    for network in NETWORKS:
        for title, images in (("CNNergy's", None), ("1", 1)):
            counts = amounts(network, images=images)
            levels = [percent(_share(counts, level=level), 1) for level in LEVELS]
            data = [percent(_share(counts, data=(datum,)), 1) for datum in ("weights", "inputs", "outputs")]
            rows.append([network, title, *levels, *data, percent(_convolutional(counts), 1)])
    return ["% of all", "n", *LEVELS, "of weights", "of inputs", "of outputs", "in convolutions"], rows


def _claims_table() -> Table:
    alexnet, googlenet, squeezenet = (amounts(network) for network in ("alexnet", "googlenet", "squeezenet-1.0"))
    single, single_googlenet = amounts("alexnet", images=1), amounts("googlenet", images=1)
    convolutional = [
        f"{percent(_convolutional(counts), 0)} % {how}"
        for counts, how in (
            (alexnet, "in convolutions with CNNergy's n"),
            (amounts("alexnet", images=16), "where 16 images share a fetch of the weights"),
            (single, "for images one by one"),
        )
    ]
    ratios = _total(squeezenet) / _total(alexnet), _total(amounts("squeezenet-1.0", images=1)) / _total(single)
    few, many = published_layers("squeezenet-1.0"), published_layers("alexnet")
    depth = sum("expand 1x1" not in published.name for published in few)  # of two side by side one counts
    breakdown = [
        f"feature maps {percent(_share(counts, data=('inputs', 'outputs')), 0)} %, "
        f"computation {percent(_share(counts, level='compute'), 1)} % {how}"
        for counts, how in ((googlenet, "with CNNergy's n"), (single_googlenet, "one by one"))
    ]
    computation = [f"{percent(_share(amounts(network), level='compute'), 1)} % ({network})" for network in NETWORKS]
    convolutions = [name for name in alexnet.index if name not in FULLY_CONNECTED]
    on_chip = alexnet.loc[convolutions, [cause for cause in alexnet if cause[0] != "DRAM"]]
    rows = [
        [
            "Convolutional layers consume more energy than fully connected layers",
            "AlexNet: " + ", ".join(convolutional),
        ],
        [
            "Deeper CNNs with fewer weights do not necessarily consume less energy: AlexNet and SqueezeNet "
            "(one of the bar charts of layers, weights and energy is labelled 2.3X)",
            f"SqueezeNet 1.0 is {depth} layers deep, {depth / len(many):.2f} times AlexNet's {len(many)} ({len(few)} "
            f"convolutions, since some lie side by side). It has {_weights(few) / 1e6:.2f} M weights, AlexNet "
            f"{_weights(many) / 1e6:.1f} M. It takes {ratios[0]:.2f} times the energy, one by one {ratios[1]:.2f}",
        ],
        ["GoogLeNet: feature maps 68 %, computation 10 %", "; ".join(breakdown)],
        ["Data movement is more expensive than computation", "computation is " + ", ".join(computation)],
        [
            "The chip: 35 frames/s at 278 mW",
            f"{1e3 * _total(on_chip) * chip().mac_j:.1f} mJ for AlexNet's convolutions on the chip, without DRAM, "
            f"clock and control; if the claim is of these convolutions, it is {278 / 35:.1f} mJ per frame",
        ],
        [
            "Energy-aware pruning: AlexNet takes 3.7 times less energy, 1.7 times less than by the work before",
            "not run: it needs ImageNet, `python -m bench run --methods eap-weights --device eyeriss --network alexnet "
            "--dataset imagenet --data DIR`",
        ],
    ]
    return ["Claimed (slides)", "obtained (simulated, pass model)"], rows


def _weights(layers: tuple[Published, ...]) -> float:
    return sum(float(published.layer.weights) for published in layers)


def _pruned_table() -> Table:
    model: Model = "closed form"
    whole = _total(amounts("alexnet", model, images=16))
    layers = published_layers("alexnet")
    rows = []
    for title, kept in PRUNED:
        counts = amounts("alexnet", model, images=16, kept=kept)
        macs = counts["compute", "products"].sum() / amounts("alexnet", model, images=16)["compute", "products"].sum()
        weights = kept.weights if kept.channels == 1 else _narrowed_weights(layers, kept.channels)
        rows.append([title, percent(weights, 1), percent(macs, 1), percent(_total(counts) / whole, 1)])
    return ["AlexNet, what is left", "weights, %", "multiply-adds without zeros, %", "energy, %"], rows


def _narrowed_weights(layers: tuple[Published, ...], share: float) -> float:
    last = len(layers) - 1
    kept = [
        float(published.layer.weights) * (share if index in (0, last) else share**2)
        for index, published in enumerate(layers)
    ]
    return sum(kept) / _weights(layers)


def _bits_table() -> Table:
    rows = []
    for network in NETWORKS:
        totals = [_total(amounts(network, "closed form", images=16, bits=bits)) for bits in (16, 8, 4)]
        rows.append([network, *(percent(total / totals[0], 1) for total in totals)])
    return ["energy, % of that at 16 bits", "16 bits", "8 bits", "4 bits"], rows

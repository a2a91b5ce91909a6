"""The networks of the papers, layer by layer, and what they cost on the chip."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from shared import networks
from shared.platforms.eyeriss import closed_form, passes
from shared.platforms.eyeriss.chip import Accesses, Density, Layer, chip, layer

NETWORKS = ("alexnet", "googlenet", "squeezenet-1.1", "squeezenet-1.0")
Model = Literal["closed form", "passes"]


class Published(NamedTuple):
    """A layer of a paper's network with the density of its feature maps."""

    name: str
    layer: Layer
    density: Density
    images: int  # that share a fetch of the weights in the published schedule


class Kept(NamedTuple):
    """Shares of a network that pruning has left: of every layer's weights, and of its inner channels."""

    weights: float = 1.0
    channels: float = 1.0


ALL = Kept()


@cache
def published_layers(network: str) -> tuple[Published, ...]:
    """The layers in execution order, from layers.csv."""
    table = pd.read_csv(Path(__file__).with_name("layers.csv"))
    return tuple(
        Published(
            row["layer"],
            _layer(row),
            Density(inputs=row["nonzero_inputs"], outputs=row["nonzero_outputs"]),
            row["images"],
        )
        for row in table[table["network"] == network].to_dict("records")
    )


def _layer(row: dict[Any, Any]) -> Layer:
    """A layer whose filters, strides and maps are square."""
    kernel, output = row["kernel"], row["output"]
    weights = float(kernel**2 * row["channels"] * row["filters"])
    return Layer(
        np.asarray(float(row["channels"])),
        np.asarray(float(row["maps"])),
        np.asarray(float(row["filters"])),
        (kernel, kernel),
        (row["stride"], row["stride"]),
        (row["padded"], row["padded"]),
        (output, output),
        np.asarray(weights * output**2),
        np.asarray(weights),
    )


def amounts(
    network: str,
    model: Model = "passes",
    *,
    images: int | None = None,
    bits: int = 16,
    dense: bool = False,
    kept: Kept = ALL,
) -> pd.DataFrame:
    """Multiply-adds' worth per image: a row per layer, a column (level, datum) per cause.

    images: that share a fetch of the weights; None for the published schedule. dense: as if no activation were zero.
    """
    rows = {}
    layers = published_layers(network)
    for index, (name, full, density, published) in enumerate(layers):
        ends = index == 0, index == len(layers) - 1
        sizes = full if kept.channels == 1 else _narrow(full, kept.channels, *ends)
        counts = (closed_form if model == "closed form" else passes).accesses(
            sizes,
            Density(kept.weights, *((1.0, 1.0) if dense else density[1:])),
            chip(),
            images=images or published,
            bits=bits,
            first=index == 0,
        )
        rows[name] = _worth(counts, bits)
    return pd.DataFrame.from_dict(rows, orient="index")


def pointwise_of_mobilenet() -> dict[str, tuple[float, float]]:
    """Multiply-adds' worth per image of each 1x1 convolution of MobileNet x0.25 at 28x28: by closed form and passes."""
    network = networks.build("mobilenet", num_classes=10, in_channels=1, width_multiplier=0.25, input_size=28)
    structure = networks.structure(network)
    positions, found = np.array([structure.position_bounds], dtype=np.float64), {}
    for operation in structure.operations:
        if operation.kind == "conv" and operation.kernel == (1, 1):
            sizes = layer(operation, positions)
            counts = {name: size[0] for name, size in sizes._asdict().items() if isinstance(size, np.ndarray)}
            closed, cut = (
                model.accesses(sizes._replace(**counts), Density(), chip(), images=chip().images, bits=16, first=False)
                for model in (closed_form, passes)
            )
            found[operation.name] = (sum(_worth(closed).values()), sum(_worth(cut).values()))
    return found


def _worth(counts: Accesses, bits: int = 16) -> dict[tuple[str, str], float]:
    """Multiply-adds' worth of each cause."""
    return {cause: float(joules) / chip().mac_j for cause, joules in chip().joules(counts, bits).items()}


def _narrow(layer: Layer, share: float, first: bool, last: bool) -> Layer:
    """The layer with a share of its channels, but for the image's channels and the network's outputs."""
    read, made = 1.0 if first else share, 1.0 if last else share
    return layer._replace(
        channels=np.ceil(read * layer.channels),
        maps=np.ceil(read * layer.maps),
        filters=np.ceil(made * layer.filters),
        multiply_adds=layer.multiply_adds * read * made,
        weights=layer.weights * read * made,
    )

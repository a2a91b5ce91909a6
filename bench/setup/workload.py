"""A workload: a network for a data set, how both are built and loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared import data, networks
from shared.data import Dataset
from shared.errors import BadInput
from shared.networks import Structure, structure


@dataclass(frozen=True)
class Workload:
    """A network for a data set."""

    network: str
    dataset: str
    arguments: tuple[tuple[str, Any], ...]  # of shared.networks.build beside the name; sorted pairs, so hashable

    def build(self, widths: tuple[int, ...] | None = None) -> nn.Module:
        """The dense network with fresh weights, or its first channels at `widths`."""
        dense = networks.build(self.network, **dict(self.arguments))
        return dense if widths is None else networks.resized(dense, widths, self.structure)

    @cached_property
    def structure(self) -> Structure:
        """Units and operations of the dense network."""
        with torch.device("meta"):
            return structure(self.build())

    def load_data(self, folder: Path | None = None) -> Dataset:
        """The data set, its images sized and scaled as the network wants them; `folder` as in shared.data.load."""
        return self._fitted(data.load(self.dataset, folder))

    def stand_in_data(self) -> Dataset:
        """The data set, with blank images where its own lie in files, as in shared.data.stand_in."""
        return self._fitted(data.stand_in(self.dataset))

    def _fitted(self, images: Dataset) -> Dataset:
        size, scale = dict(self.arguments)["input_size"], networks.scaled_pixels(self.network, self.dataset)
        images = images.resized((size, size) if isinstance(size, int) else size)
        return images if scale is None else images.scaled(*scale)


def get(network: str, dataset: str) -> Workload:
    """The workload of `network` on `dataset`, with the width multiplier that the network's file names for it.

    Raises BadInput for unknown names, for a data set that the network's file does not name, and for a file
    that can't be used.
    """
    if network not in networks.names():
        raise BadInput(f"a network out of {', '.join(networks.names())}", repr(network), "python -m bench networks")
    if dataset not in data.names():
        raise BadInput(f"a data set out of {', '.join(data.names())}", repr(dataset), "python -m bench datasets")
    if dataset not in (arguments := networks.trained_on(network)):
        suitable = [name for name in networks.names() if _is_trained_on(name, dataset)]
        raise BadInput(
            f"a network that is made for {dataset} ({', '.join(suitable)})", repr(network), f"--network {suitable[0]}"
        )
    options = data.network_arguments(dataset) | arguments[dataset]
    return Workload(network, dataset, tuple(sorted(options.items())))


def _is_trained_on(network: str, dataset: str) -> bool:
    try:
        return dataset in networks.trained_on(network)
    except BadInput:  # a file of a user's that can't be used, and that is not asked for
        return False

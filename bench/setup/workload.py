"""Which network on which data: how it is built, and where its dense weights come from."""

from __future__ import annotations

from collections.abc import Callable
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
    """A network for a data set. `arguments` go to shared.networks.build beside the name."""

    network: str
    dataset: str
    arguments: tuple[tuple[str, Any], ...]

    def build(self, widths: tuple[int, ...] | None = None) -> nn.Module:
        """The network with fresh weights, dense or at `widths`."""
        return networks.build(self.network, widths=widths, **dict(self.arguments))

    @cached_property
    def structure(self) -> Structure:
        """Units and operations of the dense network."""
        with torch.device("meta"):
            return structure(self.build())

    def load_data(self, folder: Path | None = None) -> Dataset:
        """The data set, its images sized and scaled as the network wants them; `folder` as in shared.data.load."""
        return self._fitted(data.load(self.dataset, folder))

    def stand_in_data(self) -> Dataset:
        """The same without images where they lie in files, as in shared.data.stand_in."""
        return self._fitted(data.stand_in(self.dataset))

    def _fitted(self, images: Dataset) -> Dataset:
        size, scale = dict(self.arguments)["input_size"], networks.scaled_pixels(self.network, self.dataset)
        images = images.resized((size, size) if isinstance(size, int) else size)
        return images if scale is None else images.scaled(*scale)


def get(network: str, dataset: str) -> Workload:
    """The workload of `network` on `dataset`, with the width multiplier that the network's file names for it.

    Raises BadInput for unknown names and for pairs that no file names.
    """
    if network not in networks.names():
        raise BadInput(f"a network out of {', '.join(networks.names())}", repr(network), "python -m bench networks")
    if dataset not in data.names():
        raise BadInput(f"a data set out of {', '.join(data.names())}", repr(dataset), "python -m bench datasets")
    if dataset not in (own := networks.trained_on(network)):
        known = [name for name in networks.names() if dataset in networks.trained_on(name)]
        raise BadInput(
            f"a network that is made for {dataset} ({', '.join(known)})", repr(network), f"--network {known[0]}"
        )
    arguments = data.network_arguments(dataset) | own[dataset]
    return Workload(network, dataset, tuple(sorted(arguments.items())))


Progress = Callable[[str, int, int], None]  # (what, done, total)

"""Which network on which data: how it is built, and where its dense weights come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from shared import networks
from shared.errors import BadInput


@dataclass(frozen=True)
class Workload:
    """A network for a data set. `arguments` go to shared.networks.build beside the name."""

    network: str
    dataset: str
    arguments: tuple[tuple[str, Any], ...]

    def build(self, widths: tuple[int, ...] | None = None) -> nn.Module:
        """The network with fresh weights, dense or at `widths`."""
        return networks.build(self.network, widths=widths, **dict(self.arguments))


IMAGES = {"fashion-mnist": {"num_classes": 10, "in_channels": 1, "input_size": 28}}  # what a network is built for


def get(network: str, dataset: str) -> Workload:
    """The workload of `network` on `dataset`, at the width multiplier that the network's file names for it.

    Raises BadInput for unknown names and for pairs that no file names.
    """
    from shared import data

    if network not in networks.names():
        raise BadInput(f"a network out of {', '.join(networks.names())}", repr(network), "python -m bench networks")
    if dataset not in data.names():
        raise BadInput(f"a data set out of {', '.join(data.names())}", repr(dataset), "python -m bench datasets")
    if dataset not in (multipliers := networks.width_multipliers(network)):
        known = [name for name in networks.names() if dataset in networks.width_multipliers(name)]
        raise BadInput(
            f"a network that is made for {dataset} ({', '.join(known)})", repr(network), f"--network {known[0]}"
        )
    arguments = IMAGES[dataset] | {"width_multiplier": multipliers[dataset]}
    return Workload(network, dataset, tuple(sorted(arguments.items())))


Progress = Callable[[str, int, int], None]  # (what, done, total)

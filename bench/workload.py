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


# Width 0.25 reaches 92 % on Fashion-MNIST and trains in tens of milliseconds per batch on one CPU thread.
_WORKLOADS = {
    ("mobilenet", "fashion-mnist"): {"num_classes": 10, "in_channels": 1, "width_multiplier": 0.25, "input_size": 28},
}


def get(network: str, dataset: str) -> Workload:
    """The workload of `network` on `dataset`.

    Raises BadInput for unknown names and for pairs that no recipe exists for.
    """
    from shared import data

    if network not in networks.names():
        raise BadInput(f"a network out of {', '.join(networks.names())}", repr(network), "python -m bench networks")
    if dataset not in data.names():
        raise BadInput(f"a data set out of {', '.join(data.names())}", repr(dataset), "python -m bench datasets")
    if (network, dataset) not in _WORKLOADS:
        pairs = ", ".join(f"{n} on {d}" for n, d in _WORKLOADS)
        raise BadInput(
            f"a pair with a training recipe ({pairs})",
            f"{network} on {dataset}",
            "--network mobilenet --dataset fashion-mnist",
        )
    return Workload(network, dataset, tuple(sorted(_WORKLOADS[network, dataset].items())))


Progress = Callable[[str, int, int], None]  # (what, done, total)

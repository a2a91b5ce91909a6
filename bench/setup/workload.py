"""A workload: a network for a data set, how both are built and loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from bench.setup.request import Request
from shared import data, networks
from shared.cache import content_key
from shared.data import Dataset
from shared.errors import BadInput
from shared.networks import Structure, foreign, structure


@dataclass(frozen=True)
class Workload:
    """A network for a data set.

    label: the network's id. Where a user's own arguments or another image size change it, and for networks that are
    not of the zoo, it has a hash of those and of the network's source behind it, so that no two share a page.
    """

    network: str
    dataset: str
    arguments: tuple[tuple[str, Any], ...]  # of shared.networks.build beside the name, sorted
    label: str

    def build(self, widths: tuple[int, ...] | None = None) -> nn.Module:
        """The dense network with fresh weights, or its first channels at `widths`."""
        dense = networks.build(self.network, **dict(self.arguments))
        return dense if widths is None else networks.resized(dense, widths, self.structure)

    @cached_property
    def structure(self) -> Structure:
        """Units and operations of the dense network."""
        of_zoo = networks.source(self.network) is None  # others may look at their weights while they make them
        with torch.device("meta" if of_zoo else "cpu"):
            return structure(self.build())

    def load_data(self, folder: Path | None = None) -> Dataset:
        """The data set, its images sized and scaled as the network wants them; `folder` as in shared.data.load."""
        return self._fitted(data.load(self.dataset, folder))

    def stand_in_data(self) -> Dataset:
        """The data set, with blank images where its own lie in files, as in shared.data.stand_in."""
        return self._fitted(data.stand_in(self.dataset))

    def _fitted(self, images: Dataset) -> Dataset:
        size, scale = dict(self.arguments)["input_size"], networks.scaled_pixels(self.network, self.dataset)
        sides = (size, size) if isinstance(size, int) else size
        if images.label_shape and images.label_shape != sides:
            got = f"{sides[0]}x{sides[1]}"
            raise BadInput(f"--image-size of the label maps, {'x'.join(map(str, images.label_shape))}", got, "that one")
        images = images.resized(sides)
        return images if scale is None else images.scaled(*scale)

    def check(self) -> None:
        """Raise BadInput where a network of others does not fit the data, or can't be cut as it is traced."""
        if networks.source(self.network) is None:
            return
        classes, outputs = data.network_arguments(self.dataset)["num_classes"], self.structure.outputs
        if outputs != classes:
            hint = f"--network-arg NAME={classes}, NAME being what it calls their number"
            raise BadInput(f"{classes} outputs of {self.network} for {self.dataset}", outputs, hint)
        foreign.check(self.build())


def of(request: Request) -> Workload:
    """The workload that a request asks for. Raises BadInput as `get` does, and for arguments that are no NAME=VALUE."""
    options = {}
    for text in request.network_arg or ():
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise BadInput("--network-arg NAME=VALUE", repr(text), "--network-arg num_classes=10")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = {"True": True, "False": False, "None": None}.get(value, value)
    return get(request.network, request.dataset, options, _size(request.image_size))


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    if not (sides := re.fullmatch(r"(\d+)(?:x(\d+))?", text)):
        raise BadInput("--image-size of a height, or HEIGHTxWIDTH, in pixels", repr(text), "--image-size 64")
    height, width = sides.groups()
    return int(height) if width is None else (int(height), int(width))


def get(
    network: str,
    dataset: str,
    options: Mapping[str, Any] = MappingProxyType({}),
    size: int | tuple[int, int] | None = None,
) -> Workload:
    """The workload of `network` on `dataset`, with the arguments that the network's file names for it.

    options: arguments of the network's own, which replace those. size: of the images, in place of the data set's; they
    are resized to it. Raises BadInput for unknown names, and for a data set that a file of the zoo does not name.
    """
    if dataset not in data.names():
        raise BadInput(f"a data set out of {', '.join(data.names())}", repr(dataset), "python -m bench datasets")
    own = network in networks.names() or ":" in network
    if not own:
        known = ", ".join(networks.names())
        raise BadInput(f"a network out of {known}", repr(network), "one of them, FILE.py:NAME or package.module:NAME")
    source, made_for = networks.source(network), networks.trained_on(network)
    if source is None and dataset not in made_for:
        suitable = [name for name in networks.names() if _is_made_for(name, dataset)]
        raise BadInput(
            f"a network that is made for {dataset} ({', '.join(suitable)})", repr(network), f"--network {suitable[0]}"
        )
    arguments = data.network_arguments(dataset) | made_for.get(dataset, {}) | dict(options)
    if size is not None:
        arguments["input_size"] = size
    if source is not None:
        arguments["source"] = source
    label = network
    if source is not None or options or size is not None:
        name = re.sub(r"[^A-Za-z0-9._+]+", "-", network.rpartition(":")[2])
        label = f"{name}-{content_key(source, sorted(options.items()), size)[:8]}"
    return Workload(network, dataset, tuple(sorted(arguments.items())), label)


def _is_made_for(network: str, dataset: str) -> bool:
    try:
        return dataset in networks.trained_on(network)
    except BadInput:  # a file of a user's that can't be used, and that is not asked for
        return False

"""The networks, one file each. The file's name is the network's id; a new file needs no registration.

A file sets NETWORK to an nn.Module class with

    __init__(*, num_classes=…, in_channels=…, width_multiplier=…, input_size=(height, width))

__init__ builds the dense network and sets `input_shape`; its keyword defaults are the network's own, and it may have
further ones. Units are derived from the layers, and networks at other widths are cut from it.

Class attributes and a method, all optional; the dicts are by data set:

    trained_on              arguments of `build` beyond those that fit the data: width multiplier, and an `input_size`
                            if images are to be resized
    scaled_pixels           (mean, std) to normalise pixels in 0..1 with, if not the data set's own
    published_weights       which public file has trained weights, as text for the user
    keeps_residual_trunk    True: channels that an addition touches are not pruned
    from_published(tensors) those weights with the names and layout of this network, if they differ
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Any

from shared.errors import BadInput

if TYPE_CHECKING:
    from torch import nn


def names() -> tuple[str, ...]:
    """Ids of the networks, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> Any:
    """The class that the file of the network `name` sets NETWORK to.

    Raises BadInput, which names the file, where there is none, it can't be imported, or NETWORK is no network.
    """
    spec = importlib.util.find_spec(f"{__name__}.{name}")
    if spec is None:
        raise BadInput("a network", repr(name), "python -m bench networks")
    hint = "repairing or removing the file"
    try:
        network: type[nn.Module] | None = getattr(importlib.import_module(spec.name), "NETWORK", None)
    except (Exception, SystemExit) as error:
        raise BadInput(f"a network in {spec.origin}", f"{type(error).__name__}: {error}", hint) from error
    if not isinstance(network, type) or not callable(getattr(network, "forward", None)):
        got = "no NETWORK" if network is None else f"NETWORK = {network!r:.100}"
        raise BadInput(f"NETWORK = a class of torch modules in {spec.origin}", got, hint)
    for attribute, kind in (("trained_on", dict), ("scaled_pixels", tuple), ("published_weights", str)):
        given = getattr(network, attribute, {})
        if not (isinstance(given, dict) and all(isinstance(value, kind) for value in given.values())):
            expected = f"{attribute} = a dict from data sets to {kind.__name__} in {spec.origin}"
            raise BadInput(expected, f"{given!r:.100}", "as in mobilenet.py beside it")
    return network


def make(name: str, **arguments: Any) -> nn.Module:
    """The dense network of that name. Raises BadInput where its class can't be built with these arguments."""
    network = load(name)
    try:
        return network(**arguments)
    except TypeError as error:
        raise BadInput(f"arguments that {network.__name__} of {name}.py takes", error, "none that it lacks") from None


def scaled(channels: int, width_multiplier: float) -> int:
    """Channels times the multiplier, rounded to a multiple of 8 and at least 8; unchanged at 1."""
    return channels if width_multiplier == 1 else max(8, 8 * round(channels * width_multiplier / 8))

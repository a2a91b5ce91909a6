"""Networks as plain modules, their structure (which tensor slices each prunable unit owns), and pruning by it.

`names`, `build`: the zoo. `structure`: units and operations, derived from the module. `active_widths`, `importance`,
`zero_channels`, `compact`: pruning by the structure. Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from shared.errors import BadInput
from shared.networks import zoo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from shared.networks.operations import Channels, Operation
    from shared.networks.pruning import active_channels, active_widths, compact, importance, resized, zero_channels
    from shared.networks.trace import structure
    from shared.networks.units import Slice, Structure, Unit

__all__ = [
    "Channels",
    "Operation",
    "Slice",
    "Structure",
    "Unit",
    "active_channels",
    "active_widths",
    "build",
    "compact",
    "importance",
    "names",
    "published_weights",
    "resized",
    "scaled_pixels",
    "structure",
    "trained_on",
    "zero_channels",
]


def names() -> tuple[str, ...]:
    """Ids of the networks that `build` knows, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(zoo.__path__)))


def trained_on(name: str) -> dict[str, dict[str, Any]]:
    """Data set -> arguments of `build`, for each data set that the zoo trains the dense network `name` on."""
    network = zoo.load(name)
    return dict(getattr(network, "trained_on", {}))


def scaled_pixels(name: str, dataset: str) -> tuple[float, float] | None:
    """(mean, std) that network `name` normalises pixels in 0..1 with on that data set; None: the data set's own."""
    network = zoo.load(name)
    return getattr(network, "scaled_pixels", {}).get(dataset)


def published_weights(name: str, dataset: str) -> str | None:
    """Which public file has weights of network `name` trained on that data set, as text for the user; else None."""
    network = zoo.load(name)
    return getattr(network, "published_weights", {}).get(dataset)


def build(
    name: str,
    *,
    widths: Sequence[int] | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    width_multiplier: float = 1.0,
    input_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """A network with random weights from torch's global generator; dense unless `widths` are given.

    None stands for the network's own default. width_multiplier scales the upper bounds of the widths. input_size is the
    height of a square image or (height, width). options: further arguments of this network, as JSON types. The module
    has two attributes more: `input_shape` = (channels, height, width), and `config`, the arguments as JSON types.
    `build(**config)` gives the same shapes.

    Raises BadInput for an unknown name, widths that are too many, too few or outside 1..upper bound, and sizes that the
    network can't take.
    """
    if name not in names():
        raise BadInput("a network", repr(name), " or ".join(names()))
    for what, number in (("classes", num_classes), ("input channels", in_channels)):
        if number is not None and not _is_count(number):
            raise BadInput(f"at least 1 of {what}", number, "a positive integer")
    if not (isinstance(width_multiplier, Real) and math.isfinite(width_multiplier) and width_multiplier > 0):
        raise BadInput("a width multiplier above 0", width_multiplier, "0.25, 0.5 or 1.0")
    size = (input_size, input_size) if isinstance(input_size, Integral) else input_size
    if size is not None and not (isinstance(size, tuple | list) and len(size) == 2 and all(map(_is_count, size))):
        raise BadInput("an input size in pixels", input_size, "a height or (height, width)")

    from shared.networks.pruning import resized  # needs torch

    sizes = {"num_classes": num_classes, "in_channels": in_channels, "input_size": size}
    arguments = {name: value for name, value in sizes.items() if value is not None}
    model = zoo.make(name, width_multiplier=float(width_multiplier), **arguments, **options)
    model.config = {
        "name": name,
        "widths": None,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "width_multiplier": width_multiplier,
        "input_size": None if size is None else list(size),
        **options,
    }
    return model if widths is None else _fresh(resized(model, widths))


def _fresh(model: nn.Module) -> nn.Module:
    """The model with weights that its layers draw anew, since their scale depends on their sizes."""
    for module in model.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return model


def _is_count(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool) and int(number) >= 1


def __getattr__(attribute: str) -> Any:
    """Import the modules that need numpy or torch on first use."""
    if attribute in __all__:
        for name in ("operations", "units", "trace", "pruning"):
            module = importlib.import_module(f"{__name__}.{name}")
            if hasattr(module, attribute):
                return getattr(module, attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")

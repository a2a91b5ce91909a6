"""Networks as plain modules, their structure (which tensor slices each prunable unit owns), and pruning by it.

`names`, `build`: the zoo. `structure`: units and operations, derived from the module. `active_widths`, `importance`,
`zero_channels`, `compact`: pruning by the structure. Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
import math
from importlib.metadata import entry_points
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from shared.errors import BadInput
from shared.networks import zoo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from shared.networks.operations import Channels, Operation
    from shared.networks.pruning import active_channels, active_widths, compact, importance, resized, zero_channels
    from shared.networks.trace import structure
    from shared.networks.units import Slice, Structure, Unit

GROUP = "bench.networks"  # of entry points: the name is a network's id

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
    "source",
    "structure",
    "trained_on",
    "zero_channels",
]


def names() -> tuple[str, ...]:
    """Ids of the networks of the zoo and of installed packages, sorted."""
    return tuple(sorted({*zoo.names(), *(entry.name for entry in entry_points(group=GROUP))}))


def source(name: str) -> str | None:
    """Hash of the file that defines a network; None for one of the zoo, whose code is the suite's."""
    return None if name in zoo.names() else _foreign().find(name).source


def trained_on(name: str) -> dict[str, dict[str, Any]]:
    """Data set -> arguments of `build`, for each data set that the dense network `name` is made for."""
    return dict(_facts(name, "trained_on"))


def scaled_pixels(name: str, dataset: str) -> tuple[float, float] | None:
    """(mean, std) that network `name` normalises pixels in 0..1 with on that data set; None: the data set's own."""
    return _facts(name, "scaled_pixels").get(dataset)


def published_weights(name: str, dataset: str) -> str | None:
    """Which public file has weights of network `name` trained on that data set, as text for the user; else None."""
    return _facts(name, "published_weights").get(dataset)


def _facts(name: str, attribute: str) -> Mapping[str, Any]:
    if name not in zoo.names():
        return _foreign().find(name).facts(attribute)
    return getattr(zoo.load(name), attribute, {})


def _foreign() -> Any:
    return importlib.import_module(f"{__name__}.foreign")  # needs torch


def build(
    name: str,
    *,
    widths: Sequence[int] | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    width_multiplier: float = 1.0,
    input_size: int | tuple[int, int] | None = None,
    **own: Any,
) -> nn.Module:
    """A network with random weights from torch's global generator; dense unless `widths` are given.

    None stands for the network's own default. width_multiplier scales the upper bounds of the widths. input_size is the
    height of a square image or (height, width). own: further arguments of the network, as JSON types. The module
    has two attributes more: `input_shape` = (channels, height, width), and `config`, the arguments as JSON types.
    `build(**config)` gives the same shapes.

    name: an id out of `names()`, FILE.py:NAME or package.module:NAME, see shared.networks.foreign. Those take what
    their signature names of the sizes, and need `in_channels` and `input_size`. Their config has the hash `source` of
    their file; where it is given, another file of that name is refused.

    Raises BadInput for an unknown name, widths that are too many, too few or outside 1..upper bound, and sizes that the
    network can't take.
    """
    if name not in names() and ":" not in name:
        raise BadInput("a network", repr(name), f"{' or '.join(names())}, FILE.py:NAME or package.module:NAME")
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
    given = {option: value for option, value in sizes.items() if value is not None}
    given["width_multiplier"] = float(width_multiplier)
    config: dict[str, Any] = {
        "name": name,
        "widths": None,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "width_multiplier": width_multiplier,
        "input_size": None if size is None else list(size),
        **own,
    }
    if name in zoo.names():
        model = zoo.make(name, **given, **own)
    else:
        missing = [option for option in ("in_channels", "input_size") if option not in given]
        if missing:
            raise BadInput(f"sizes for {name}", f"no {' and no '.join(missing)}", "in_channels=3, input_size=224")
        foreign = _foreign().find(name)
        if (source := own.pop("source", foreign.source)) != foreign.source:
            raise BadInput(f"{name} of source {source}", foreign.source, "the file that it was made from")
        model = _foreign().build(foreign, given, own)
        config |= {"name": foreign.name, "source": foreign.source}
    model.config = config
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

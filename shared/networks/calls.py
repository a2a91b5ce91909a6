"""A node of a traced forward pass as rules see it: what is called, with which arguments, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, TypeVar

from torch import Tensor, fx, nn

from shared.errors import BadInput
from shared.networks.groups import Activation, Segment

Kind = TypeVar("Kind")


class Extent(int):
    """A number of features that was read from an activation, `origin`, so that it follows the widths."""

    origin: Activation

    def __new__(cls, value: int, origin: Activation) -> Extent:
        extent = super().__new__(cls, value)
        extent.origin = origin
        return extent


def among(kind: type[Kind], *values: Any) -> list[Kind]:
    """All of a kind in nested arguments, in order."""
    found: list[Kind] = []

    def collect(value: Any) -> Any:
        if isinstance(value, kind):
            found.append(value)
        return value

    fx.node.map_aggregate(values, collect)
    return found


@dataclass(frozen=True)  # no tuple: torch.fx would look for tensors in it
class Constant:
    """A tensor that no image decides: a parameter or buffer of this name, or None where it is computed from some.

    sources: names of those that it is computed from.
    """

    name: str | None
    tensor: Tensor
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """An operation whose channels are not final yet."""

    name: str
    source: Activation
    output: Activation
    details: dict[str, Any]  # further fields of Operation
    module: str | None = None
    scales: tuple[Segment, ...] | None = None


@dataclass(frozen=True)
class Call:
    """A node of the graph.

    Its arguments hold `Activation`s and `Constant`s in place of tensors. `run` returns what the node gives for plain
    tensors on the meta device.
    """

    name: str  # of the module, or of the node
    module: Any  # the module that is called; None for functions and methods of tensors
    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    run: Callable[[fx.Node, tuple[Any, ...], dict[str, Any]], Any]

    @cached_property
    def output(self) -> Any:
        """The tensor, or tuple of tensors, that the node returns."""
        return self.run(self.node, self.args, self.kwargs)

    @cached_property
    def operands(self) -> list[Activation]:
        """The activations among the arguments, in order."""
        return among(Activation, self.args, tuple(self.kwargs.values()))

    @cached_property
    def constants(self) -> list[Constant]:
        """The constants among the arguments, in order."""
        return among(Constant, self.args, tuple(self.kwargs.values()))

    @property
    def source(self) -> Activation:
        """The first activation among the arguments."""
        return self.operands[0]

    @property
    def place(self) -> str:
        """The module that is called, or inside of which a function is."""
        modules = [name.partition(".")[2] for name in self.node.meta.get("nn_module_stack", {})]
        return self.name if self.module is not None or not modules or not modules[-1] else modules[-1]

    def named(self, *names: str) -> dict[str, Any]:
        """The arguments by name, positional ones named in this order; missing ones are left out."""
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}

    def option(self, name: str, index: int, default: Any = None) -> Any:
        """The argument of that name, or else at that index."""
        return self.kwargs.get(name, self.args[index] if index < len(self.args) else default)

    def layer(self, *names: str, **defaults: Any) -> Any:
        """What a layer would be that does the same: the module that is called, or the function's arguments by name.

        Tensors are (name, tensor), None where there is none. Raises BadInput for one that is computed in the pass.
        """
        if self.module is not None:
            return self.module
        arguments = {**defaults, **self.named("input", *names)}
        for name in ("weight", "bias"):
            value = arguments.get(name)
            if isinstance(value, Activation) or (isinstance(value, Constant) and not _is_own(value)):
                got = f"computed ones, or buffers, at '{self.place}'"
                raise BadInput("weights that are parameters", got, "a layer with weights of its own")
        return SimpleNamespace(**arguments)

    def tensor(self, layer: Any, name: str) -> Constant | None:
        """The layer's parameter or buffer of that name."""
        value = getattr(layer, name, None)
        if value is None or isinstance(value, Constant):
            return value
        if name in ("weight", "bias") and not isinstance(value, nn.Parameter):
            raise BadInput("weights that are parameters", f"a buffer '{self.name}.{name}'", "a parameter")
        return Constant(f"{self.name}.{name}", value)

    def expect(self, holds: bool, what: str) -> None:
        """Raise BadInput unless the node has a form that can be followed."""
        if not holds:
            shapes = ", ".join(str(tuple(operand.tensor.shape[1:])) for operand in self.operands)
            raise BadInput(what, f"'{self.name}' of {shapes}", "a form that structure() can follow")


def _is_own(constant: Constant) -> bool:
    return constant.name is not None and isinstance(constant.tensor, nn.Parameter)

"""What rules share: what they may change, and how they note operations and tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor, fx

from shared.networks.calls import Call, Constant, Draft
from shared.networks.groups import Activation, Group, Part, Segment
from shared.networks.operations import Kind
from shared.networks.units import Role


class Walk(Protocol):
    """What rules change while a graph is walked."""

    keeps_trunk: bool

    def start(self, name: str, count: int, fixed: bool = False) -> Group:
        """A new group."""

    def log(self, draft: Draft) -> Activation:
        """Note an operation; returns its output."""

    def claim(self, tensor: Constant) -> str:
        """The tensor's name. Raises BadInput where another layer has used it."""

    def uncounted(self, computed: Constant) -> tuple[Segment, ...] | None:
        """The parameters that a value is computed from and that no layer has counted so far."""


Rule = Callable[[Walk, Call], Any]


def log(walk: Walk, kind: Kind, call: Call, source: Activation, output: Activation, **details: Any) -> Activation:
    """Note an operation; `scales` among the details are the segments that have further parameters."""
    owner = call.name if call.module is not None and any(True for _ in call.module.parameters()) else None
    scales = details.pop("scales", None)
    return walk.log(Draft(call.name, source, output, {"kind": kind, **details}, owner, scales))


def log_alike(walk: Walk, kind: Kind, call: Call, **details: Any) -> Activation:
    """Note an operation that leaves shape and channels alone; `vanishes` among the details replaces the source's."""
    source = call.source
    output = replace(source, vanishes=details.pop("vanishes", source.vanishes))
    return log(walk, kind, call, source, output, **details)


def give(name: str | None, dim: int, role: Role, activation: Activation) -> None:
    """Give the groups of an activation their entries of a tensor along `dim`."""
    if name is not None:
        for offset, segment in activation.placed():
            segment.group.root().parts.append(Part(name, dim, offset, segment.features, role))


def claimed(walk: Walk, call: Call, layer: Any, *names: str) -> list[str | None]:
    """Names in the state dict of the layer's tensors, None for those that it lacks."""
    tensors = [call.tensor(layer, name) for name in names]
    return [None if tensor is None else walk.claim(tensor) for tensor in tensors]


def opaque(walk: Walk, call: Call) -> Any:
    """Keeps the operands' channels as they are, and so those of what comes out."""
    for operand in call.operands:
        operand.fix()

    def fixed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        call.expect(value.ndim >= 2, "a result of a channel at least")
        segment = Segment(walk.start(call.name, value.shape[1], fixed=True), value.shape[1])
        return Activation(value, (segment,), vanishes=False)

    return fx.node.map_aggregate(call.output, fixed)

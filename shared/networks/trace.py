"""Derives a network's `Structure` from one traced forward pass without data.

The model is copied to the meta device and traced by torch.fx. A walk over the graph propagates shapes and, with each
activation, the groups of channels that it carries (shared.networks.groups). A rule for each operation
(shared.networks.rules) says what becomes of them. A group is prunable if a layer reads it, and unless something fixes
it: the network's input or output, or an operation behind which its channels can't be followed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NoReturn, cast

import torch
from torch import fx, nn

from shared.errors import BadInput
from shared.networks import rules
from shared.networks.calls import Call, Constant, Draft, Extent, among
from shared.networks.forward import WRAPPED, complaint, traced
from shared.networks.groups import Activation, Group, Segment, fixed_entries
from shared.networks.operations import Channels, Operation
from shared.networks.rules.rule import opaque
from shared.networks.units import Structure, Unit

BATCH = 2  # images that are traced: with a single one, a squeeze would take the batch for a side


def structure(model: nn.Module) -> Structure:
    """The units and operations of a module with the attribute `input_shape` = (channels, height, width).

    shared.networks.rules has the operations that its forward pass may consist of. It returns one tensor, or a dict
    whose entry "out" counts. Where the class attribute `keeps_residual_trunk` is true, groups with an addition can't be
    pruned. The model is not changed.

    Raises BadInput for other operations and names all of them, for a forward pass that depends on values or sizes, and
    for tensors that are not parameters and buffers of one layer alone.
    """
    shape: Any = getattr(model, "input_shape", None)
    if shape is None:
        raise BadInput("a module with input_shape", type(model).__name__, "setting it to (channels, height, width)")
    if not (isinstance(shape, tuple | list) and len(shape) == 3 and all(isinstance(side, int) for side in shape)):
        raise BadInput("an input_shape of (channels, height, width)", shape, "three whole numbers")
    root, graph = traced(model, rules.is_known)
    return _Walk(root, graph, getattr(model, "keeps_residual_trunk", False)).derive(tuple(shape))


class _Walk(fx.Interpreter):
    """Interprets the graph on meta tensors wrapped in `Activation`s and collects groups and operations."""

    def __init__(self, root: nn.Module, graph: fx.Graph, keeps_trunk: bool) -> None:
        super().__init__(root, graph=graph)
        self.extra_traceback = False  # keep error messages on one line
        self.keeps_trunk = keeps_trunk
        self.groups: list[Group] = []
        self.drafts: list[Draft] = []
        self.owned: set[str] = set()  # tensors of layers that were called
        self.read: set[str] = set()  # tensors that values are computed from
        self.unknown: dict[str, None] = {}  # operations without a rule, as text

    def derive(self, input_shape: tuple[int, int, int]) -> Structure:
        self.input_shape = input_shape
        result = self.run(torch.empty((BATCH, *input_shape), device="meta"))
        if self.unknown:
            self._refuse()
        if isinstance(result, dict):
            if "out" not in result:
                raise BadInput("a dict with the entry 'out'", ", ".join(map(repr, result)), "naming the logits 'out'")
            result = result["out"]
        if not isinstance(result, Activation):
            raise BadInput("a network with one output tensor", type(result).__name__, "returning the logits alone")
        result.fix()
        for group in self.groups:  # channels of tensors that a value is computed from
            group.root().fixed |= any(part.tensor in self.read for part in group.root().parts)

        prunable = [
            group
            for group in self.groups
            if group.parent is None and not group.fixed and any(part.role == "consumer" for part in group.parts)
        ]
        units = tuple(Unit(index, group.name, group.count, group.slices()) for index, group in enumerate(prunable))
        outputs = sum(segment.features for segment in result.segments)
        position = {id(group): index for index, group in enumerate(prunable, start=1)}
        ends = [(segment.group.root(), len(units) + 1, outputs) for segment in result.segments]
        for end, place, features in [*ends, (self.groups[0], 0, input_shape[0])]:
            if end.count == features:  # else they are counted in bundles, and a position counts features
                position[id(end)] = place

        def channels(segments: tuple[Segment, ...]) -> Channels:
            roots = [segment.group.root() for segment in segments]
            # beside other channels, the image's are as constant as any that are fixed
            places = [None if len(roots) > 1 and root.fixed else position.get(id(root)) for root in roots]
            return Channels.of(
                Channels(place, root.count, segment.features // root.count)
                if segment.features % root.count == 0
                else Channels(None, segment.features)
                for place, root, segment in zip(places, roots, segments, strict=True)
            )

        operations = tuple(
            Operation(
                name=draft.name,
                inputs=channels(draft.source.segments),
                outputs=channels(draft.output.segments),
                input_size=draft.source.size,
                output_size=draft.output.size,
                module=draft.module,
                scales=channels(draft.scales) if draft.scales else None,
                **draft.details,
            )
            for draft in self.drafts
        )
        return Structure(units, operations, input_shape[0], outputs)

    def _refuse(self) -> NoReturn:
        raise BadInput("operations that structure() knows", ", ".join(self.unknown), "a network without them") from None

    # --- called by fx.Interpreter for each node

    def run_node(self, n: fx.Node) -> Any:
        try:
            return self._run(n)
        except BadInput:
            raise
        except Exception as error:  # torch's own complaint, for example about shapes
            if self.unknown:  # what comes behind an unknown operation may have no sense
                self._refuse()
            what = f"a forward pass that runs on {self.input_shape}, at '{self._name(n)}'"
            raise BadInput(what, complaint(error), "another input size, or another operation") from None

    def _run(self, node: fx.Node) -> Any:
        if node.op == "output":
            return super().run_node(node)
        if node.op == "placeholder":
            image = super().run_node(node)
            return Activation(image, (Segment(self.start(node.name, image.shape[1], fixed=True), image.shape[1]),))
        if node.op == "get_attr":
            name = str(node.target)
            tensor = self.fetch_attr(name).to("meta")  # one that the pass makes is not there yet
            return Constant(name.removeprefix(WRAPPED) if name.startswith(WRAPPED) else None, tensor)
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        module = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        key = node.target if module is None else rules.kind_of(module)
        call = Call(self._name(node), module, node, args, kwargs, self._tensor_of)
        if not call.operands:
            if call.constants:
                names = {name for constant in call.constants for name in (*constant.sources, constant.name) if name}
                return Constant(None, call.output, tuple(sorted(names)))
            return self._numbers(node, args, kwargs)
        for constant in call.constants:
            self.read |= set(constant.sources)
        if not node.users and rules.is_in_place(node, module):
            raise BadInput(
                f"an operation whose result is used, at '{call.place}'", "one that works in place", "x = f(x)"
            )
        rule = cast("Callable[[_Walk, Call], Any] | None", rules.RULES.get(key))
        if rule is None:
            self.unknown[f"{rules.readable(node.target if module is None else type(module))} at '{call.place}'"] = None
            rule = opaque
        if rule is not rules.RULES["view"]:  # which asks where numbers come from
            for extent in among(Extent, args, kwargs):
                extent.origin.fix()
        return rule(self, call)

    def _name(self, node: fx.Node) -> str:
        return str(node.target).removeprefix(WRAPPED) if node.op == "call_module" else node.name

    def _numbers(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Arithmetic with sizes that were read from activations. What is made of numbers of channels follows them."""
        if node.target is torch._assert:  # of a shape, which is what it is
            return None
        if node.op == "call_function" and str(getattr(node.target, "__module__", "")).partition(".")[0] == "torch":
            self.unknown[f"{rules.readable(node.target)} at '{self._name(node)}'"] = None
            return None
        of_sizes = node.target == "numel" and isinstance(args[0], tuple)
        result = math.prod(args[0]) if of_sizes else getattr(super(), node.op)(node.target, args, kwargs)
        found = among(Extent, args, kwargs)
        if found and (of_sizes or node.target in (operator.mul, operator.floordiv)) and isinstance(result, int):
            for other in found[1:]:
                if other.origin is not found[0].origin:
                    other.origin.fix()
            return Extent(result, found[0].origin)
        if node.target is not operator.getitem:
            for extent in found:  # what becomes of the number is not known
                extent.origin.fix()
        return result

    def _tensor_of(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the node returns for plain tensors."""

        def plain(value: Any) -> Any:
            return value.tensor if isinstance(value, Activation | Constant) else value

        args, kwargs = fx.node.map_aggregate(cast("Any", (args, kwargs)), plain)
        return getattr(super(), node.op)(node.target, args, kwargs)

    # --- used by rules

    def start(self, name: str, count: int, fixed: bool = False) -> Group:
        """A new group."""
        group = Group(len(self.groups), name, count, fixed)
        self.groups.append(group)
        return group

    def log(self, draft: Draft) -> Activation:
        """Note an operation; returns its output."""
        self.drafts.append(draft)
        return draft.output

    def uncounted(self, computed: Constant) -> tuple[Segment, ...] | None:
        """The parameters that a value is computed from and that no layer has counted so far."""
        parameters = dict(self.module.named_parameters())
        names = [name for name in computed.sources if f"{WRAPPED}{name}" in parameters and name not in self.owned]
        self.owned |= set(names)
        entries = sum(parameters[f"{WRAPPED}{name}"].numel() for name in names)
        return fixed_entries(entries)

    def claim(self, tensor: Constant) -> str:
        """The tensor's name. Raises BadInput where another layer has used it: a slice has one group."""
        name = str(tensor.name)
        if name in self.owned:
            layer = name.rpartition(".")[0] or name
            raise BadInput("layers with weights called once", f"'{layer}' called twice", "a layer per call")
        self.owned.add(name)
        return name

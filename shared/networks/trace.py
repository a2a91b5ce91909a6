"""Derives a network's `Structure` from one traced forward pass without data.

The model is copied to the meta device and traced by torch.fx. A walk over the graph propagates shapes and, with each
activation, the group of channels that it carries. A convolution or linear layer consumes one group and starts another.
Elementwise operations and depthwise convolutions pass their group on. An addition merges two groups into one. A group
is prunable unless it contains the network's input, its output or an operand of a concatenation.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shared.errors import BadInput
from shared.networks import forms
from shared.networks.operations import Channels, Kind, Operation
from shared.networks.units import Role, Slice, Structure, Unit


def structure(model: nn.Module) -> Structure:
    """The units and operations of a plain module with the attribute `input_shape` = (channels, height, width).

    Its layers may be Conv2d (ordinary or depthwise), ConvTranspose2d, Linear, BatchNorm2d, ReLU, ReLU6, pooling,
    flatten, mean over the map, dropout, addition, concatenation of channels, upsampling and flips of the image. Where
    the class attribute `keeps_residual_trunk` is true, groups with an addition can't be pruned. The model is not
    changed.

    Raises BadInput for any other operation, and names it.
    """
    shape: Any = getattr(model, "input_shape", None)
    if shape is None:
        raise BadInput("a module with input_shape", type(model).__name__, "setting it to (channels, height, width)")
    return _Walk(_meta_copy(model)).derive(shape)


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether each channel has its own filter. Shapes can't tell with one channel, so networks mark such layers."""
    return conv.groups > 1 or getattr(conv, "depthwise", False)


def _meta_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with float32 tensors on the meta device, whatever the model's are; copies no data."""
    meta: dict[int, Any] = {}  # deepcopy takes these in place of the originals
    for parameter in model.parameters():
        meta[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in model.buffers():
        meta[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, meta).eval().float()


@dataclass(eq=False)
class _Group:
    """Channels that must be kept or removed together; a disjoint-set forest, since additions merge groups."""

    order: int
    name: str
    count: int
    fixed: bool = False  # can't be pruned
    slices: list[Slice] = field(default_factory=list)
    parent: _Group | None = None  # the group that this one was merged into

    def root(self) -> _Group:
        """The group that now stands for this one."""
        return self if self.parent is None else self.parent.root()


@dataclass(frozen=True)
class _Activation:
    """A tensor of the forward pass, (1, channels, h, w) or (1, features), with the group of its channels."""

    tensor: Tensor
    group: _Group

    @property
    def repeat(self) -> int:
        return self.tensor.shape[1] // self.group.count

    @property
    def size(self) -> tuple[int, int]:
        return (self.tensor.shape[2], self.tensor.shape[3]) if self.tensor.ndim == 4 else (1, 1)


@dataclass(frozen=True)
class _Call:
    """A node of the graph: the module or function called, its operands, and the tensor that it returns."""

    name: str
    module: Any  # the module called, None for functions and tensor methods
    operands: list[_Activation]
    options: dict[str, Any]  # other arguments: keywords by name, positional ones by index
    output: Tensor


class _Walk(fx.Interpreter):
    """Interprets the graph on meta tensors wrapped in `_Activation`s and collects groups, slices and operations."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, graph=fx.Tracer().trace(model))
        self.extra_traceback = False  # keep error messages on one line
        self.keeps_trunk = getattr(model, "keeps_residual_trunk", False)
        self.groups: list[_Group] = []
        self.drafts: list[tuple[_Call, _Activation, dict[str, Any]]] = []
        self.owners: set[str] = set()  # modules with parameters that were called

    def derive(self, input_shape: tuple[int, int, int]) -> Structure:
        result = self.run(torch.empty((1, *input_shape), device="meta"))
        if not isinstance(result, _Activation):
            raise BadInput("a network with one output tensor", type(result).__name__, "returning the logits alone")
        outputs = result.group.root()
        outputs.fixed = True

        prunable = [
            group
            for group in self.groups
            if group.parent is None and not group.fixed and any(part.role == "consumer" for part in group.slices)
        ]
        units = tuple(Unit(index, group.name, group.count, tuple(group.slices)) for index, group in enumerate(prunable))
        position = {id(group): index for index, group in enumerate(prunable, start=1)}
        position[id(outputs)] = len(units) + 1
        position[id(self.groups[0])] = 0

        def channels(activation: _Activation) -> Channels:
            return Channels(position.get(id(activation.group.root())), activation.group.count, activation.repeat)

        operations = tuple(
            Operation(
                name=call.name,
                inputs=channels(output if details["kind"] == "cat" else call.operands[0]),
                outputs=channels(output),
                input_size=call.operands[0].size,
                output_size=output.size,
                module=call.name if call.name in self.owners else None,
                **details,
            )
            for call, output, details in self.drafts
        )
        return Structure(units, operations, image_channels=input_shape[0], outputs=outputs.count)

    def run_node(self, node: fx.Node) -> Any:
        if node.op == "output":
            return super().run_node(node)
        if node.op == "placeholder":
            image = super().run_node(node)
            return _Activation(image, self._start(node.name, image.shape[1], fixed=True))
        module: Any = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        key: Any = node.target if module is None else type(module)
        rule = _RULES.get(key) if node.op != "get_attr" else None
        if rule is None:
            supported = ", ".join(sorted({_readable(key) for key in _RULES}))
            raise BadInput(f"operations that structure() knows at '{node.name}'", _readable(key), f"one of {supported}")

        operands: list[_Activation] = []

        def unwrap(value: Any) -> Any:
            if isinstance(value, _Activation):
                operands.append(value)
                return value.tensor
            return value

        args, kwargs = fx.node.map_aggregate(self.fetch_args_kwargs_from_env(node), unwrap)
        keeps_shape = rule in _KEEPING_SHAPE  # then it needs no run; meta kernels are slow
        output = operands[0].tensor if keeps_shape else getattr(self, node.op)(node.target, args, kwargs)
        name = str(node.target) if module is not None else node.name
        options = {**{str(index): value for index, value in enumerate(args)}, **kwargs}
        return rule(self, _Call(name, module, operands, options, output))

    def _start(self, name: str, count: int, fixed: bool = False) -> _Group:
        group = _Group(len(self.groups), name, count, fixed)
        self.groups.append(group)
        return group

    def _own(self, call: _Call, group: _Group, dim: int, repeat: int, **roles: Role) -> None:
        """Add to `group` the slices along `dim` of the module's tensors, named by keyword; a missing bias has none."""
        slices = group.root().slices
        slices += [
            Slice(f"{call.name}.{tensor}", dim, repeat, role)
            for tensor, role in roles.items()
            if getattr(call.module, tensor, None) is not None
        ]

    def _log(self, kind: Kind, call: _Call, group: _Group, **details: Any) -> _Activation:
        output = _Activation(call.output, group)
        self.drafts.append((call, output, {"kind": kind, **details}))
        return output

    def _claim(self, call: _Call) -> _Activation:
        """The operand of a module with parameters. Raises BadInput at its second call: a slice has one group."""
        if call.name in self.owners:
            raise BadInput("layers with weights called once", f"'{call.name}' called twice", "a layer per call")
        self.owners.add(call.name)
        return call.operands[0]

    def weighted(self, call: _Call) -> _Activation:
        """A convolution, transposed convolution or linear layer: consumes a group and starts another."""
        if isinstance(call.module, nn.Conv2d) and is_depthwise(call.module):
            return self.depthwise(call)
        source, layer = self._claim(call), call.module
        if getattr(layer, "groups", 1) != 1:
            raise BadInput("one group or depthwise", f"groups={layer.groups} at '{call.name}'", "groups=1")
        self._expect(not isinstance(layer, nn.Linear) or source.tensor.ndim == 2, call, "flat input of a linear layer")
        kinds: dict[type, Kind] = {nn.Conv2d: "conv", nn.ConvTranspose2d: "transposed_conv", nn.Linear: "linear"}
        kind = kinds[type(layer)]
        input_dim = 0 if kind == "transposed_conv" else 1  # its weight is (inputs, outputs, h, w)
        group = self._start(call.name, call.output.shape[1])
        self._own(call, source.group, input_dim, source.repeat, weight="consumer")
        self._own(call, source.group, 0, 1, input_mask="mask")
        self._own(call, group, 1 - input_dim, 1, weight="producer")
        self._own(call, group, 0, 1, bias="bias")
        details = {} if kind == "linear" else forms.of_convolution(layer)
        return self._log(kind, call, group, bias=layer.bias is not None, **details)

    def depthwise(self, call: _Call) -> _Activation:
        source, layer = self._claim(call), call.module
        if not layer.groups == layer.in_channels == layer.out_channels:
            raise BadInput("one group or depthwise", f"groups={layer.groups} at '{call.name}'", "a group per channel")
        self._own(call, source.group, 0, 1, weight="depthwise", bias="bias")
        return self._log("depthwise", call, source.group, bias=layer.bias is not None, **forms.of_convolution(layer))

    def batch_norm(self, call: _Call) -> _Activation:
        source = self._claim(call)
        # Without weight and bias to zero, a dead channel would output -mean / std.
        self._expect(call.module.affine, call, "batch norm with weight and bias")
        self._own(call, source.group, 0, 1, weight="norm", bias="norm", running_mean="norm", running_var="norm")
        return self._log("batch_norm", call, source.group, bias=True)

    def silent(self, call: _Call) -> _Activation:
        """Passes the group on and launches nothing in inference."""
        return _Activation(call.output, call.operands[0].group)

    def flip(self, call: _Call) -> _Activation:
        """A flip of the image's rows and columns: silent, since preparing an image is not the network's cost."""
        dims = call.options.get("dims", call.options.get("1"))
        sides = {dim % 4 for dim in dims} if isinstance(dims, list | tuple) else set()
        of_image = call.operands[0].group is self.groups[0]
        self._expect(of_image and bool(sides) and sides <= {2, 3}, call, "a flip of the image's [2, 3] alone")
        return self.silent(call)

    def flatten(self, call: _Call) -> _Activation:
        self._expect(call.output.shape == (1, call.operands[0].tensor.numel()), call, "flatten from dimension 1")
        return self.silent(call)

    def relu(self, call: _Call) -> _Activation:
        return self._log("relu", call, call.operands[0].group)

    def relu6(self, call: _Call) -> _Activation:
        return self._log("relu", call, call.operands[0].group, variant="relu6")

    def max_pool(self, call: _Call) -> _Activation:
        return self._pool("max_pool", call)

    def avg_pool(self, call: _Call) -> _Activation:
        return self._pool("avg_pool", call)

    def mean(self, call: _Call) -> _Activation:
        dims = call.options.get("dim", call.options.get("1"))
        self._expect(isinstance(dims, list | tuple) and {dim % 4 for dim in dims} == {2, 3}, call, "mean over [2, 3]")
        return self._pool("avg_pool", call)

    def _pool(self, kind: Kind, call: _Call) -> _Activation:
        source = call.operands[0]
        output_size = _Activation(call.output, source.group).size
        return self._log(kind, call, source.group, **forms.of_pooling(call.module, source.size, output_size))

    def upsample(self, call: _Call) -> _Activation:
        source = call.operands[0]
        output_size = _Activation(call.output, source.group).size
        form = forms.of_upsampling(call.module, call.options, source.size, output_size)
        return self._log("upsample", call, source.group, **form)

    def add(self, call: _Call) -> _Activation:
        shapes = {tuple(operand.tensor.shape) for operand in call.operands}
        counts = {operand.group.count for operand in call.operands}
        self._expect(len(call.operands) == 2 and len(shapes) == len(counts) == 1, call, "two operands of one shape")
        first, second = sorted((operand.group.root() for operand in call.operands), key=lambda group: group.order)
        if first is not second:
            second.parent = first
            first.slices += second.slices
        first.fixed |= second.fixed or self.keeps_trunk
        return self._log("add", call, first)

    def cat(self, call: _Call) -> _Activation:
        joined = sum(operand.tensor.shape[1] for operand in call.operands)
        self._expect(call.output.shape[1] == joined, call, "concatenation along the channels")
        for operand in call.operands:
            operand.group.root().fixed = True
        return self._log("cat", call, self._start(call.name, joined, fixed=True))

    @staticmethod
    def _expect(holds: bool, call: _Call, what: str) -> None:
        if not holds:
            shapes = ", ".join(str(tuple(operand.tensor.shape)) for operand in call.operands)
            got = f"'{call.name}' from {shapes} to {tuple(call.output.shape)}"
            raise BadInput(what, got, "a form that structure() can follow")


_RULES: dict[Any, Callable[[_Walk, _Call], _Activation]] = {
    key: rule
    for rule, keys in (
        (_Walk.weighted, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)),
        (_Walk.batch_norm, (nn.BatchNorm2d,)),
        (_Walk.relu, (nn.ReLU, F.relu, torch.relu, "relu", "relu_")),
        (_Walk.relu6, (nn.ReLU6, F.relu6)),
        (_Walk.max_pool, (nn.MaxPool2d, nn.AdaptiveMaxPool2d)),
        (_Walk.avg_pool, (nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d)),
        (_Walk.mean, (torch.mean, "mean")),
        (_Walk.flatten, (nn.Flatten, torch.flatten, "flatten")),
        (_Walk.flip, (torch.flip,)),
        (_Walk.silent, (nn.Identity, nn.Dropout, nn.Dropout2d, F.dropout, F.dropout2d)),
        (_Walk.add, (operator.add, operator.iadd, torch.add, "add", "add_")),
        (_Walk.cat, (torch.cat,)),
        (_Walk.upsample, (nn.Upsample, F.interpolate)),
    )
    for key in keys
}


_KEEPING_SHAPE = (_Walk.batch_norm, _Walk.relu, _Walk.relu6, _Walk.flip, _Walk.silent, _Walk.add)


def _readable(key: Any) -> str:
    return key if isinstance(key, str) else getattr(key, "__name__", str(key))

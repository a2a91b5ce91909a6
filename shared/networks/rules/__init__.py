"""What each operation does to the channels of its operands: a rule per operation, and the table of all.

Layers with weights read channels and make new ones. Functions of single values, pooling and whatever else treats each
channel alone pass them on. A rule that can't follow channels fixes them. Where a removed channel would leave a constant
instead of zero (a sigmoid gives 0.5), layers that read it fix it: gradients would bring its weights back.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torchvision.ops import StochasticDepth, stochastic_depth

from shared.networks.rules import layers, maps, rule, values


def kind_of(module: nn.Module) -> type[nn.Module] | None:
    """The class in `RULES` whose forward pass the module runs; None where it has one of its own."""
    own = type(module)
    for kind in own.__mro__:
        if kind in RULES:
            passes = ("forward", "_conv_forward")
            same = all(getattr(own, name, None) is getattr(kind, name, None) for name in passes)
            return kind if same else None
    return None


def is_known(module: nn.Module) -> bool:
    """Whether the module has a rule as a whole."""
    return kind_of(module) is not None


def is_in_place(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether the node changes its operand, so that its result need not be used."""
    if module is not None:
        return bool(getattr(module, "inplace", False))
    name = readable(node.target)
    return bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


def readable(key: Any) -> str:
    """An operation's name for a message."""
    return key if isinstance(key, str) else getattr(key, "__name__", str(key))


RULES: dict[Any, rule.Rule] = {
    key: follow
    for follow, keys in (
        (layers.convolution, (nn.Conv2d, F.conv2d)),
        (layers.transposed_convolution, (nn.ConvTranspose2d, F.conv_transpose2d)),
        (layers.linear, (nn.Linear, F.linear)),
        (layers.batch_norm, (nn.BatchNorm2d, nn.BatchNorm1d, nn.SyncBatchNorm, F.batch_norm)),
        (layers.instance_norm, (nn.InstanceNorm2d, F.instance_norm)),
        (layers.group_norm, (nn.GroupNorm, F.group_norm)),
        (layers.layer_norm, (nn.LayerNorm, F.layer_norm)),
        (values.relu, (nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")),
        (values.relu6, (nn.ReLU6, F.relu6)),
        (
            values.keeping_zero,
            (
                *(nn.LeakyReLU, F.leaky_relu, nn.SiLU, F.silu, nn.Hardswish, F.hardswish, nn.GELU, F.gelu),
                *(nn.ELU, F.elu, nn.CELU, F.celu, nn.SELU, F.selu, nn.Mish, F.mish, nn.Softsign, F.softsign),
                *(nn.Tanh, F.tanh, torch.tanh, "tanh", "tanh_", torch.abs, "abs", torch.neg, operator.neg, "neg"),
                *(torch.square, "square"),
            ),
        ),
        (
            values.moving_zero,
            (
                *(nn.Sigmoid, F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_", nn.Hardsigmoid, F.hardsigmoid),
                *(nn.Softplus, F.softplus, nn.LogSigmoid, F.logsigmoid),
            ),
        ),
        (values.clamp, (nn.Hardtanh, F.hardtanh, torch.clamp, "clamp", "clamp_")),
        (values.prelu, (nn.PReLU, F.prelu, torch.prelu)),
        (
            values.softmax,
            (
                *(nn.Softmax, nn.Softmax2d, F.softmax, torch.softmax, "softmax"),
                *(nn.LogSoftmax, F.log_softmax, torch.log_softmax, "log_softmax"),
            ),
        ),
        (maps.max_pool, (nn.MaxPool2d, F.max_pool2d, torch.max_pool2d)),
        (maps.avg_pool, (nn.AvgPool2d, F.avg_pool2d)),
        (maps.adaptive_max_pool, (nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d)),
        (maps.adaptive_avg_pool, (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d)),
        (maps.mean, (torch.mean, "mean")),
        (maps.amax, (torch.amax, "amax")),
        (maps.upsample, (nn.Upsample, F.interpolate, F.upsample)),
        (maps.pad, (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, F.pad)),
        (maps.flip, (torch.flip, "flip")),
        (
            maps.reshape,
            (
                *(nn.Flatten, torch.flatten, "flatten", "view", torch.reshape, "reshape"),
                *(torch.squeeze, "squeeze", torch.unsqueeze, "unsqueeze"),
            ),
        ),
        (maps.permute, (torch.permute, "permute", torch.transpose, "transpose")),
        (maps.contiguous, ("contiguous",)),
        (maps.expand, ("expand", "expand_as")),
        (maps.pixel_shuffle, (nn.PixelShuffle, F.pixel_shuffle, torch.pixel_shuffle)),
        (maps.getitem, (operator.getitem,)),
        (maps.attribute, (getattr,)),
        (maps.size, ("size",)),
        (maps.numel, ("numel", torch.numel, "nelement")),
        (maps.number, ("dim", "ndimension", "get_device", "is_contiguous")),
        (
            values.passed,
            (
                *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, F.dropout, F.dropout2d),
                *(StochasticDepth, stochastic_depth, "float", "to", "type_as", "clone", "detach"),
            ),
        ),
        (maps.cat, (torch.cat, torch.concat, torch.concatenate)),
        (values.add, (operator.add, operator.iadd, torch.add, "add", "add_")),
        (values.subtract, (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_")),
        (values.multiply, (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")),
        (values.divide, (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_")),
        (rule.opaque, (torch.chunk, "chunk", torch.split, "split", nn.ChannelShuffle, F.channel_shuffle, "repeat")),
    )
    for key in keys
}

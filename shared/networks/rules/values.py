"""Rules of functions of single values, and of sums and products."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import nn

from shared.networks.calls import Call
from shared.networks.groups import Activation, Segment, fixed_entries, unite
from shared.networks.rules.rule import Walk, claimed, give, log, log_alike, opaque


def passed(walk: Walk, call: Call) -> Activation:
    """Passes the channels on and launches nothing in inference."""
    return call.source


def relu(walk: Walk, call: Call) -> Activation:
    """ReLU."""
    return log_alike(walk, "relu", call)


def relu6(walk: Walk, call: Call) -> Activation:
    """ReLU6."""
    return log_alike(walk, "relu", call, variant="relu6")


def keeping_zero(walk: Walk, call: Call) -> Activation:
    """A function with f(0) = 0."""
    return log_alike(walk, "activation", call)


def moving_zero(walk: Walk, call: Call) -> Activation:
    """A function with f(0) != 0."""
    return log_alike(walk, "activation", call, vanishes=False)


def clamp(walk: Walk, call: Call) -> Activation:
    """Cuts values off at bounds."""
    if call.module is not None:
        low, high = call.module.min_val, call.module.max_val
    elif call.node.target is F.hardtanh:
        low, high = call.option("min_val", 1, -1.0), call.option("max_val", 2, 1.0)
    else:
        low, high = call.option("min", 1), call.option("max", 2)
    call.expect(all(isinstance(bound, int | float | None) for bound in (low, high)), "bounds that are numbers")
    holds_zero = (low is None or low <= 0) and (high is None or high >= 0)
    return keeping_zero(walk, call) if holds_zero else moving_zero(walk, call)


def prelu(walk: Walk, call: Call) -> Activation:
    """ReLU with a learned slope, of each channel or of all."""
    source, layer = call.source, call.layer("weight")
    slope = call.tensor(layer, "weight")
    (name,) = claimed(walk, call, layer, "weight")
    own = slope is not None and slope.tensor.numel() == source.tensor.shape[1]
    if own:
        give(name, 0, "scale", source)
    scales = source.segments if own else fixed_entries(1)
    return log_alike(walk, "activation", call, scales=scales)


def softmax(walk: Walk, call: Call) -> Activation:
    """Divides by a sum that may run over the channels, so these stay."""
    call.source.fix()
    return moving_zero(walk, call)


def add(walk: Walk, call: Call) -> Activation:
    """A sum: of two maps, of a map and one value per channel, or of a map and a constant."""
    exact = call.option("alpha", 2, 1) == 1
    return _combined(walk, call, product=False, variant="plain" if exact else "other")


def subtract(walk: Walk, call: Call) -> Activation:
    """A difference, as a sum; no list of operations can say which it is."""
    return _combined(walk, call, product=False, variant="other")


def multiply(walk: Walk, call: Call) -> Activation:
    """A product: of two maps, of a map and one factor per channel, or of a map and a constant."""
    return _combined(walk, call, product=True, variant="other")


def divide(walk: Walk, call: Call) -> Activation:
    """A quotient by a constant, as a product with one."""
    if not isinstance(call.args[0], Activation) or len(call.operands) > 1:
        return opaque(walk, call)
    if call.constants:  # a divisor that went to zero with its channel would give no number
        call.source.fix()
    return _combined(walk, call, product=True, variant="other")


def _combined(walk: Walk, call: Call, product: bool, variant: str) -> Activation:
    if len(call.operands) < 2:
        return _with_constant(walk, call, product)
    large, small = sorted(call.operands[:2], key=lambda operand: -operand.tensor.numel())
    vanishes = [operand.vanishes for operand in (large, small)]
    vanishing = any(vanishes) if product else all(vanishes)
    if large.tensor.ndim != small.tensor.ndim or large.tensor.shape[0] != small.tensor.shape[0]:
        return opaque(walk, call)
    if small.tensor.shape[1] == 1 < large.tensor.shape[1]:  # a map for all channels
        vanishing = large.vanishes and product
        return log(walk, "broadcast", call, large, replace(large, vanishes=vanishing))
    if small.tensor.shape[1] != large.tensor.shape[1] or call.output.shape != large.tensor.shape:
        return opaque(walk, call)
    unite(call.operands[:2])
    if walk.keeps_trunk and not product:
        large.fix()
    whole = small.tensor.shape == large.tensor.shape
    first = call.operands[0] if whole else large
    details: dict[str, Any] = {"variant": variant} if whole else {}
    return log(walk, "add" if whole else "broadcast", call, first, replace(first, vanishes=vanishing), **details)


def _with_constant(walk: Walk, call: Call, product: bool) -> Activation:
    source = call.source
    constant = next(iter(call.constants), None)
    if constant is None:
        numbers = [arg for arg in (*call.args[:2], *call.kwargs.values()) if isinstance(arg, int | float)]
        vanishes = source.vanishes and (product or not any(numbers[:1]))
        return log_alike(walk, "activation", call, vanishes=vanishes)
    if call.output.shape != source.tensor.shape:
        return opaque(walk, call)
    dim = 1 - source.tensor.ndim + constant.tensor.ndim
    per_channel = dim >= 0 and constant.tensor.shape[dim] == source.tensor.shape[1]
    if per_channel and constant.name is None:
        source.fix()
    trained = isinstance(constant.tensor, nn.Parameter)
    scales: tuple[Segment, ...] | None = None
    if constant.sources:
        scales = walk.uncounted(constant)
    elif trained or per_channel:
        name = walk.claim(constant) if constant.name is not None else None
        give(name if per_channel else None, dim, "scale", source)
    if trained and per_channel:
        scales = source.scaled(constant.tensor.numel() // source.tensor.shape[1])
    elif trained:
        scales = fixed_entries(constant.tensor.numel())
    vanishes = source.vanishes and (product or (per_channel and trained))
    return log_alike(walk, "activation", call, vanishes=vanishes, scales=scales)

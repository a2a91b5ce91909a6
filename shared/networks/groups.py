"""Groups of channels while a network is traced: what starts, joins and fixes them.

An activation carries its channels in segments, each a run of neighbouring features of one group. A convolution starts
a group, a concatenation lines segments up, an addition unites the groups of its operands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from shared.networks.units import Role, Slice


class Part(NamedTuple):
    """What will be a `Slice`: `features` entries of a tensor along `dim`, from `offset` on."""

    tensor: str
    dim: int
    offset: int
    features: int
    role: Role


@dataclass(eq=False)
class Group:
    """Channels that must be kept or removed together; a disjoint-set forest, since additions unite groups."""

    order: int
    name: str
    count: int  # channels; each stands for neighbouring features, as many everywhere as there are for each
    fixed: bool = False  # can't be pruned
    parts: list[Part] = field(default_factory=list)
    parent: Group | None = None  # the group that this one was united with

    def root(self) -> Group:
        """The group that now stands for this one."""
        return self if self.parent is None else self.parent.root()

    def slices(self) -> tuple[Slice, ...]:
        """The parts with the final number of channels."""
        return tuple(
            Slice(part.tensor, part.dim, part.features // self.count, part.role, part.offset) for part in self.parts
        )

    def reduce(self, count: int) -> None:
        """Let neighbouring channels go together, so that `count` are left."""
        if not self.fixed:
            self.count = count


@dataclass(frozen=True)
class Segment:
    """Neighbouring features of an activation that belong to one group."""

    group: Group
    features: int

    @property
    def repeat(self) -> int:
        """Features per channel."""
        return self.features // self.group.root().count


@dataclass(frozen=True)
class Activation:
    """A tensor of the forward pass, (batch, features, …) on the meta device, and whose its features are."""

    tensor: Tensor
    segments: tuple[Segment, ...]
    vanishes: bool = True  # whether a channel whose tensors are all zero is zero here, whatever the image

    @property
    def size(self) -> tuple[int, int]:
        """Height and width; what has more dimensions counts as one row of pixels."""
        sides = tuple(self.tensor.shape[2:])
        return (sides[0], sides[1]) if len(sides) == 2 else (math.prod(sides), 1)

    def placed(self) -> Iterator[tuple[int, Segment]]:
        """The segments, each after its offset in features."""
        offset = 0
        for segment in self.segments:
            yield offset, segment
            offset += segment.features

    def fix(self) -> None:
        """Keep all channels as they are."""
        for segment in self.segments:
            segment.group.root().fixed = True

    def scaled(self, numerator: int, denominator: int = 1) -> tuple[Segment, ...]:
        """The segments with that many times as many features."""
        return tuple(Segment(segment.group, segment.features * numerator // denominator) for segment in self.segments)


def fixed_entries(entries: int) -> tuple[Segment, ...]:
    """Segments for a number of entries that no width changes; none where it is 0."""
    return (Segment(Group(-1, "", entries, fixed=True), entries),) if entries else ()


def unite(activations: Sequence[Activation]) -> None:
    """Let the channels of activations with equal numbers of features go together, feature by feature.

    Where their segments end at different features, all of these channels are fixed.
    """
    first, *others = activations
    for other in others:
        if [segment.features for segment in first.segments] != [segment.features for segment in other.segments]:
            first.fix()
            other.fix()
            continue
        for one, another in zip(first.segments, other.segments, strict=True):
            _unite(one.group.root(), another.group.root())


def _unite(one: Group, other: Group) -> None:
    if one is other:
        return
    first, second = sorted((one, other), key=lambda group: group.order)
    count = math.gcd(first.count, second.count)
    for group in (first, second):
        group.reduce(count)
    second.parent = first
    first.parts += second.parts
    first.fixed |= second.fixed
    first.count = count


def bundle(activation: Activation, features: int) -> bool:
    """Let runs of that many neighbouring features go together. False, and all fixed, where a segment ends in a run."""
    if any(segment.features % features for segment in activation.segments):
        activation.fix()
        return False
    for segment in activation.segments:
        segment.group.root().reduce(segment.features // math.lcm(segment.repeat, features))
    return True

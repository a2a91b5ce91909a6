"""Landing: a network that the platform reads above its budget loses further channels until its reading is within it.

A method sees a fitted energy model, whose estimate may be within the budget where the platform's reading is not. The
harness then cuts further, by one rule for every method. It does so before fine-tuning, which recovers accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.setup.setup import Setup
from shared.networks import importance, structure, zero_channels
from shared.networks.ranking import weakest_channels
from shared.platforms import PlatformReading
from shared.widths.greedy import cumulative_norms, removals

Widths = tuple[int, ...]

# Bisection ends within a fiftieth of the removals: readings of hardware do not tell closer networks apart.
PRECISION = 50


class CannotLand(Exception):
    """The network's reading is above its budget however far it is cut."""


class Landed(NamedTuple):
    """A landed network."""

    widths: Widths
    before: PlatformReading  # the first reading
    after: PlatformReading  # the reading at `widths`, within the budget
    readings: int  # how many networks were read


def land(small: nn.Module, budget: float, setup: Setup) -> Landed:
    """The widths at which the network's reading is within the budget with its whole interval.

    A network that is already within stays as it is. Else channels are removed in the order of `removals`, the least
    important per joule first. A simulation is read after each removal. Hardware, where a reading takes seconds, is read
    at widths chosen by bisection. Raises CannotLand.
    """
    table = structure(small)
    widths = table.upper_bounds
    (before,) = read_at(setup, [widths])
    if before.interval[1] <= budget:
        return Landed(widths, before, before, 1)
    path = removal_path(importance(small, table), widths, setup)
    next(path)  # the path starts at `widths`, which have been read
    search = _bisection if setup.platform.readings_need_quiet else _sweep
    end = search(path, lambda rows: read_at(setup, rows), budget, setup.platform.at_once)
    if end.widths is None or end.reading is None:
        least = before if end.reading is None else end.reading
        raise CannotLand(
            f"read at {before.amount:.6g} {setup.unit} per image, above the budget of {budget:.6g} {setup.unit}, "
            f"and at {least.amount:.6g} {setup.unit} with one channel left in every unit that saves anything"
        )
    return Landed(end.widths, before, end.reading, 1 + end.readings)


def cut_to(small: nn.Module, widths: Widths) -> None:
    """Zero the least important channels beyond `widths`, in place."""
    table = structure(small)
    zero_channels(small, table, weakest_channels(importance(small, table), widths, table.upper_bounds))


def removal_path(norms: Tensor, widths: Widths, setup: Setup) -> Iterator[Widths]:
    """The widths after each removal, `widths` first.

    norms: squared norm of each channel, (units, largest width), zero-padded. The energy that a channel saves is the
    slope of the energy model. On hardware that works on eight channels at once, a removal goes down to the next
    multiple of eight.
    """

    def savings(at: Tensor) -> Tensor:
        return setup.fit.model.gradient(setup.structure.positions(at))[1:-1]

    return removals(log_shares(norms), widths, savings, setup.platform.channel_group)


def log_shares(norms: Tensor) -> Tensor:
    """Logarithm of the sum of every unit's k largest norms, for k = 0, 1, …: (units, largest width + 1).

    Differences of these are logarithms of the share of the unit's squared norm that stays. Bare norms can't be compared
    between units: the first ones, with few weights and many joules per channel, would be cut to one channel first.
    """
    return cumulative_norms(norms).clamp(min=torch.finfo(torch.float64).tiny).log()


Read = Callable[[Sequence[Widths]], list[PlatformReading]]


class _End(NamedTuple):
    """Where a search along the removal path ended."""

    widths: Widths | None  # within the budget; None where none are
    reading: PlatformReading | None  # at `widths`, else the last one; None for an empty path
    readings: int  # how many networks were read


def _sweep(path: Iterator[Widths], read: Read, budget: float, at_once: int) -> _End:
    """The first widths of the path that are within the budget."""
    reading, count = None, 0
    while rows := list(islice(path, at_once)):
        for widths, reading in zip(rows, read(rows), strict=True):
            count += 1
            if reading.interval[1] <= budget:
                return _End(widths, reading, count)
    return _End(None, reading, count)


def _bisection(path: Iterator[Widths], read: Read, budget: float, at_once: int) -> _End:
    """Widths within the budget, while those at most a fiftieth of their removals earlier are above it.

    Example with 100 removals, of which 30 are needed: read after 100, 50, 25 (above), 37, 31, 28 (above), 29 (above),
    30. Where a person carries files to a board, `at_once` is above 1: then each round reads that many evenly spaced
    widths, and fewer rounds are needed.
    """
    rows = list(path)
    above, within = -1, len(rows) - 1  # row -1 is the uncut network, which is above the budget
    if not rows:
        return _End(None, None, 0)
    (last,), count = read(rows[within:]), 1
    if last.interval[1] > budget:
        return _End(None, last, count)
    while (gap := within - above) > max(1, (within + 1) // PRECISION):
        parts = min(at_once + 1, gap)
        places = [above + gap * part // parts for part in range(1, parts)]
        readings = read([rows[place] for place in places])
        count += len(places)
        for place, reading in zip(places, readings, strict=True):
            if reading.interval[1] <= budget:
                within, last = place, reading
                break
            above = place
    return _End(rows[within], last, count)


def read_at(setup: Setup, rows: Sequence[Widths]) -> list[PlatformReading]:
    """Readings of the network at each of `rows`, as landing takes them."""
    return setup.platform.read_beside(
        setup.subject,
        rows,
        setup.inference_batch,
        reference=setup.structure.upper_bounds,
        standard=setup.profile.dense_reading,
        effort="landing",
    )

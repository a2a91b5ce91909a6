"""Hardware that is played: networks whose forward pass takes a known time on a clock that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from shared.meters import ClockMeter, Meter, Reading
from shared.networks import Structure, structure
from shared.platforms import MeasuredPlatform, Subject
from tests.shared.meters.simulated import SimulatedClock

Seconds = Callable[[Sequence[int], int], float]  # (widths, batch) -> of one inference


class Played(nn.Module):
    """A network that takes time and nothing else."""

    def __init__(self, widths: Sequence[int], seconds: Seconds, clock: SimulatedClock, log: list[tuple[int, ...]]):
        super().__init__()
        self.input_shape, self.widths = (1, 4, 4), tuple(widths)
        self.seconds, self.clock, self.log = seconds, clock, log

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training and torch.is_inference_mode_enabled()
        self.log.append(self.widths)
        self.clock.sleep(self.seconds(self.widths, len(images)))
        return images


class Bench:
    """A played platform with its subject, the clock, and the log of all inferences by their widths."""

    def __init__(self, network: nn.Module, seconds: Seconds, meter: Callable[[SimulatedClock], Meter] = ClockMeter):
        self.clock, self.log = SimulatedClock(), list[tuple[int, ...]]()
        table: Structure = structure(network)
        self.subject = Subject(table, lambda widths: Played(widths, seconds, self.clock, self.log))
        self.platform = MeasuredPlatform("cpu", meter(self.clock), clock=self.clock)


def reading_of(seconds: float) -> Reading:
    """An exact reading of the clock."""
    return Reading(
        amount=seconds,
        idle_subtracted=None,
        unit="s",
        interval=(seconds, seconds),
        spread=0.0,
        quantum=0.0,
        seconds=0.0,
        repeats=1,
        amounts=(seconds, seconds),
        samples=0,
        ended="target",
        settings="played",
        meter="clock",
        scope="wall time",
        method="clock",
        simulated=False,
        idle_watts=None,
        flags=(),
        sensor={},
    )

"""How long, how often and how precisely a piece of work is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The measuring protocol. A visit to a piece of work is a cool-down, a warm-up and one measured window.

    Example: FULL visits each work 8 times or more. A visit rests 5 s, warms up for 2 s and measures a window of at
    least 5 s and at least 32 runs. Visits end when the confidence interval is within ±1 % of the mean; they also end
    after 300 s per work.

    Attributes:
        name: The name that readings record.
        visits: Least number of visits to each work; even, since works are visited there and back. Visits start at
            this many different phases of the sensor's update period.
        window_s: Least duration of a window.
        runs: Least number of runs in a window.
        warmup_s: Seconds of the same work just before the window, not measured.
        cool_down_s: Seconds of rest before the warm-up.
        idle_s: Duration of each of the two windows that measure idle power, before the first and after the last visit.
        target: Visits end when half the width of the confidence interval, relative to the mean, is at most this.
        limit_s: Visits end after this many seconds per work even if the target is missed, but not below `visits`.
    """

    name: str
    visits: int
    window_s: float
    runs: int
    warmup_s: float
    cool_down_s: float
    idle_s: float
    target: float
    limit_s: float

    def __post_init__(self) -> None:
        if self.visits < 2 or self.visits % 2:
            raise ValueError(f"expected an even number of visits, 2 or more, got {self.visits}; try 8")


FULL = Settings("full", 8, window_s=5.0, runs=32, warmup_s=2.0, cool_down_s=5.0, idle_s=5.0, target=0.01, limit_s=300.0)
SHORT = Settings("short", 4, window_s=1.0, runs=8, warmup_s=0.5, cool_down_s=1.0, idle_s=1.0, target=0.03, limit_s=30.0)

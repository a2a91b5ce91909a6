"""How long and how often a piece of work is read, and until when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How long, how often, until when.

    visits: to each piece of work at least, an even number; they start at as many phases of the sensor's period.
    A visit: cool_down_s of rest, warmup_s of the work unread, then at least window_s and `runs` of it read.
    idle_s: of rest read before the first and after the last visit. target: relative half width of the bootstrap
    interval at which visits end; limit_s: for each piece of work, after which they end too, but not below `visits`.
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

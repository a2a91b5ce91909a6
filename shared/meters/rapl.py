"""Joules of a processor's packages or of their memory, from Linux' RAPL counters in /sys/class/powercap."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

from shared.host import HERE
from shared.meters.meter import Meter, MeterError, Window
from shared.meters.timing import Clock
from shared.meters.zones import Zone, find_zones

ROOT = Path("/sys/class/powercap")
# What can be read: the scope, and the names of the zones.
DOMAINS = {"package": ("processor package", r"package-\d+(-die-\d+)?"), "dram": ("memory", "dram")}
POLL_S = 1.0  # a counter wraps around after 65 kJ or more, which takes minutes
MOST_WATTS = 1000  # of a package or its memory: twice the largest rated power, 500 W (EPYC 9965, Xeon 6980P)
LEAST_WATTS = 1  # of a package that is on
UPDATE_S = 0.01  # ten times the time from one update of a counter to the next


class RaplMeter(Meter):
    """Joules of all processor packages, or of the memory of all packages.

    domain: one of `DOMAINS`. They are never added. The zone of the whole platform ("psys") and the memory-mapped
    copies of the packages ("intel-rapl-mmio") are ignored, since they count the same joules again. So are zones that
    mirror an earlier one: AMD's Zen 1 and 2 show the counter of the socket once per die, while on Intel's processors
    each die has a counter of its own. root: the folder with the zones. machine: the root of the file system that tells
    whether this is a container. Raises MeterError when there is no such zone or it may not be read.

    Zones of a package are one counter where all reads of a window say so, its start and end included.
    """

    name = "rapl"
    method = "counter"

    def __init__(
        self, domain: str = "package", *, root: Path = ROOT, machine: Path = HERE, clock: Clock | None = None
    ) -> None:
        self.scope, pattern = DOMAINS[domain]
        self.zones = find_zones(pattern, root, machine)
        self.clock = clock or Clock()
        self._stop: Callable[[], None] | None = None
        self._alike = [  # places in `zones` of two that may be one counter
            (first, second)
            for first, second in combinations(range(len(self.zones)), 2)
            if self.zones[first].package is not None
            and self.zones[first].package == self.zones[second].package
            and self.zones[first].range_uj == self.zones[second].range_uj
        ]
        self._different: set[tuple[int, int]] = set()  # those of them that once differed
        self._mirrors: dict[int, int] = {}  # of the last window: zone -> the earlier one that is the same counter
        self._read_uj()  # trial read: a missing permission shows now and not in a run

    def start(self) -> None:
        """See Meter."""
        self._last_s, self._last_uj = self.clock.now_s(), self._read_uj()
        self._totals_uj = [0] * len(self.zones)
        self._apart_uj = dict.fromkeys(self._alike, 0)
        self._stop = self.clock.every(POLL_S, self._count)
        self._start_s = self.clock.now_s()

    def stop(self) -> Window:
        """See Meter. Raises MeterError when the counters have not moved, or as no wrap can move them."""
        assert self._stop is not None, "start() first"
        end_s = self.clock.now_s()
        self._stop()
        self._count()
        self._compare(end_s - self._start_s)
        total_uj = sum(total for place, total in enumerate(self._totals_uj) if place not in self._mirrors)
        if not total_uj:
            raise MeterError("counters that move", f"none in {end_s - self._start_s:.3g} s", "a longer window")
        return Window(total_uj * 1e-6, self._start_s, end_s)

    def identity(self) -> str:
        """See Meter. Where dies may mirror a counter, sums from before that was known are of another meter."""
        return "mirrors count once" if self._alike else ""

    def facts(self) -> dict[str, object]:
        """See Meter. mirrors: zones that the last window left out, and the zone that shows the same counter."""
        folders = [zone.folder.name for zone in self.zones]
        return {
            "zones": {zone.folder.name: zone.name for zone in self.zones},
            "mirrors": {folders[mirror]: folders[first] for mirror, first in self._mirrors.items()},
        }

    def _count(self) -> None:
        before_s, now_uj = self.clock.now_s(), self._read_uj()
        passed_s = self.clock.now_s() - self._last_s
        for place, zone in enumerate(self.zones):
            self._totals_uj[place] += spent_uj(zone, self._last_uj[place], now_uj[place], passed_s)
        self._last_s, self._last_uj = before_s, now_uj
        if not self._alike:
            return
        # Reads take time, so that one counter says more to the second read than to the first. Read in turns, it shows
        # as two spans that overlap, however long the reads take.
        spans = list(zip(now_uj, self._read_uj(), strict=True))
        for pair in self._alike:
            first, second = pair
            apart = apart_uj(spans[first], spans[second], self.zones[first].range_uj)
            self._apart_uj[pair] = max(self._apart_uj[pair], apart)

    def _compare(self, seconds: float) -> None:
        """Tell mirrors from zones that differ by more than is spent between two updates of one counter."""
        for pair, apart in self._apart_uj.items():
            watts = max(self._totals_uj[place] for place in pair) * 1e-6 / max(seconds, UPDATE_S)
            if apart > max(watts, LEAST_WATTS) * UPDATE_S * 1e6:
                self._different.add(pair)
        self._mirrors = {}
        for first, second in self._alike:
            if (first, second) not in self._different:
                self._mirrors.setdefault(second, first)

    def _read_uj(self) -> list[int]:
        return [zone.energy_uj() for zone in self.zones]


def counted_uj(before_uj: int, after_uj: int, range_uj: int) -> int:
    """Microjoules between two reads of a counter that wraps around at `range_uj`, at most once in between."""
    return after_uj - before_uj if after_uj >= before_uj else after_uj + range_uj - before_uj


def spent_uj(zone: Zone, before_uj: int, after_uj: int, passed_s: float) -> int:
    """Microjoules between two reads of a zone that are at most `passed_s` seconds apart.

    Raises MeterError where that takes more than MOST_WATTS, since then the counter did not wrap around but began anew,
    and where it may have wrapped around twice.
    """
    counter = f"{zone.folder}/energy_uj"
    longest_s = max(2 * POLL_S, zone.range_uj * 1e-6 / MOST_WATTS)
    if passed_s > longest_s:
        hint = "again, without stopping the process"
        raise MeterError(f"reads of {counter} every {longest_s:.3g} s", f"none in {passed_s:.3g} s", hint)
    spent = counted_uj(before_uj, after_uj, zone.range_uj)
    if not 0 <= spent <= MOST_WATTS * (passed_s + UPDATE_S) * 1e6:
        raise MeterError(
            f"{counter} to rise by at most {MOST_WATTS} W, up to {zone.range_uj} and on from 0",
            f"{before_uj}, then {after_uj} uJ in {passed_s:.3g} s",
            "again, without suspending the machine or loading the module intel_rapl anew",
        )
    return spent


def apart_uj(one: tuple[int, int], other: tuple[int, int], range_uj: int) -> int:
    """Microjoules between two spans (from, to) of counters that wrap around at `range_uj`; 0 where they overlap."""

    def ahead(start: int, end: int) -> int:
        return (end - start) % range_uj

    (low, high), (other_low, other_high) = one, other
    if ahead(low, other_low) <= ahead(low, high) or ahead(other_low, low) <= ahead(other_low, other_high):
        return 0
    return min(ahead(high, other_low), ahead(other_high, low))

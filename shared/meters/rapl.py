"""Joules of a processor's packages or of their memory, from Linux' RAPL counters in /sys/class/powercap."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.meters.meter import Meter, MeterError, Window
from shared.meters.timing import Clock

ROOT = Path("/sys/class/powercap")
# What can be read: the scope, and the names of the zones.
DOMAINS = {"package": ("processor package", r"package-\d+(-die-\d+)?"), "dram": ("memory", "dram")}
POLL_S = 1.0  # a counter wraps around after 65 kJ or more, which takes minutes


@dataclass(frozen=True)
class Zone:
    """One counter. name: the text of its file `name`. range_uj: microjoules after which it wraps around to 0."""

    folder: Path
    name: str
    range_uj: int


class RaplMeter(Meter):
    """Joules of all processor packages, or of the memory of all packages.

    domain: one of `DOMAINS`. They are never added. The zone of the whole platform ("psys") and the memory-mapped
    copies of the packages ("intel-rapl-mmio") are ignored, since they count the same joules again. root: the folder
    with the zones. Raises MeterError when there is no such zone or it may not be read.
    """

    name = "rapl"
    method = "counter"

    def __init__(self, domain: str = "package", *, root: Path = ROOT, clock: Clock | None = None) -> None:
        self.scope, pattern = DOMAINS[domain]
        self.zones = find_zones(pattern, root)
        self.clock = clock or Clock()
        self._stop: Callable[[], None] | None = None
        self._read_uj()  # trial read: a missing permission shows now and not in a run

    def start(self) -> None:
        """See Meter."""
        self._last_uj, self._total_uj = self._read_uj(), 0
        self._stop = self.clock.every(POLL_S, self._count)
        self._start_s = self.clock.now_s()

    def stop(self) -> Window:
        """See Meter. Raises MeterError when the counters have not moved."""
        assert self._stop is not None, "start() first"
        end_s = self.clock.now_s()
        self._stop()
        self._count()
        if not self._total_uj:
            raise MeterError("counters that move", f"none in {end_s - self._start_s:.3g} s", "a longer window")
        return Window(self._total_uj * 1e-6, self._start_s, end_s)

    def facts(self) -> dict[str, object]:
        """See Meter."""
        return {"zones": {zone.folder.name: zone.name for zone in self.zones}}

    def _count(self) -> None:
        now_uj = self._read_uj()
        self._total_uj += sum(
            counted_uj(last, now, zone.range_uj)
            for last, now, zone in zip(self._last_uj, now_uj, self.zones, strict=True)
        )
        self._last_uj = now_uj

    def _read_uj(self) -> list[int]:
        return [_number(zone.folder / "energy_uj") for zone in self.zones]


def counted_uj(before_uj: int, after_uj: int, range_uj: int) -> int:
    """Microjoules between two reads of a counter that wraps around at `range_uj`, at most once in between."""
    return after_uj - before_uj if after_uj >= before_uj else after_uj + range_uj - before_uj


def find_zones(pattern: str, root: Path) -> list[Zone]:
    """The zones in `root` whose file `name` matches the pattern. Raises MeterError when there are none."""
    names = {folder: _text(folder / "name") for folder in sorted(root.glob("intel-rapl:*"))}
    zones = [
        Zone(folder, name, _number(folder / "max_energy_range_uj"))
        for folder, name in names.items()
        if re.fullmatch(pattern, name)
    ]
    if not zones:
        raise MeterError(
            f"a zone named {pattern} in {root}/intel-rapl:*",
            f"zones named {', '.join(sorted(set(names.values())))}" if names else "no zones",
            "`modprobe intel_rapl_msr` on the machine itself (virtual ones and containers hide it), or another meter",
        )
    return zones


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except PermissionError:
        raise MeterError(
            f"to read {path}", "no permission", "`sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`, or root"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise MeterError(f"to read {path}", error, "another meter") from error


def _number(path: Path) -> int:
    text = _text(path)
    if not text.isdecimal():
        raise MeterError(f"microjoules in {path}", repr(text), "another meter")
    return int(text)

"""The zones of Linux' powercap: energy counters in files, and what to try where they can't be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shared.host import in_container
from shared.meters.meter import MeterError

LOAD = "`modprobe intel_rapl_msr`"
ALLOW = "`sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`"
UNMASK = "`docker run --security-opt systempaths=unconfined`"


@dataclass(frozen=True)
class Zone:
    """One counter. name: the text of its file `name`. range_uj: microjoules after which it wraps around to 0.

    machine: the root of the file system that tells whether this is a container.
    """

    folder: Path
    name: str
    range_uj: int
    machine: Path

    @property
    def package(self) -> str | None:
        """The name of the package that this zone counts as a whole or by its dies; None for other zones."""
        match = re.fullmatch(r"(package-\d+)(-die-\d+)?", self.name)
        return match[1] if match else None

    def energy_uj(self) -> int:
        """What the counter says now. Raises MeterError where it can't be read."""
        return _number(self.folder / "energy_uj", self.machine)


def find_zones(pattern: str, root: Path, machine: Path) -> list[Zone]:
    """The zones in `root` whose file `name` matches the pattern; `machine` as in Zone.

    Raises MeterError when there are none, and for one without a range, as no wrap of it can be told.
    """
    names = {folder: _text(folder / "name", machine) for folder in sorted(root.glob("intel-rapl:*"))}
    zones = [
        Zone(folder, name, _number(folder / "max_energy_range_uj", machine), machine)
        for folder, name in names.items()
        if re.fullmatch(pattern, name)
    ]
    expected = f"a zone named {pattern} in {root}/intel-rapl:*"
    if not names:
        raise _refusal(expected, "no zones", LOAD, " on the machine itself (virtual ones hide it)", machine)
    if not zones:
        raise MeterError(expected, f"zones named {', '.join(sorted(set(names.values())))}", "another meter")
    for zone in zones:
        if not zone.range_uj:
            raise MeterError(f"a range above 0 uJ in {zone.folder}/max_energy_range_uj", 0, "another meter")
    return zones


def _refusal(expected: str, got: object, step: str, otherwise: str, machine: Path) -> MeterError:
    """An error that says where to take the step: `otherwise`, unless this is a container, which may hide powercap."""
    place = f" on the host of this container, and for the container {UNMASK}" if in_container(machine) else otherwise
    return MeterError(expected, got, f"{step}{place}, or another meter")


def _text(path: Path, machine: Path) -> str:
    try:
        return path.read_text().strip()
    except PermissionError:
        raise _refusal(f"to read {path}", "no permission", ALLOW, ", or root", machine) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _refusal(f"to read {path}", error, LOAD, "", machine) from error


def _number(path: Path, machine: Path) -> int:
    text = _text(path, machine)
    if not text.isdecimal():
        raise _refusal(f"microjoules in {path}", repr(text), LOAD, "", machine)
    return int(text)

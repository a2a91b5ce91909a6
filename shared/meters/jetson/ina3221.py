"""Power rails of a Jetson, measured by its INA3221 chips through sysfs.

Rails are listed side by side and never added: on a TX2, VDD_IN contains the other rails of the module. The code that
finds a rail's files in sysfs is in shared/board/runner.py, a single file that must run on a board without this package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from shared.board.runner import find_rails, select_rail
from shared.meters.jetson import rails as jetson_rails
from shared.meters.meter import DroppedSample, Window
from shared.meters.sampling import SampledMeter
from shared.meters.timing import Clock

PERIOD_S = 0.05  # between samples; the mainline driver takes up to two conversion cycles of 13 ms for one


class Rail(ABC):
    """The rail that a meter reads. label: the driver's name for it. shunt_ohms: None where it is unknown."""

    label: str
    shunt_ohms: float | None

    @abstractmethod
    def watts(self) -> float:
        """The present power. Raises MeterError when the sensor does not answer."""

    @abstractmethod
    def volts(self) -> float:
        """The present voltage. Raises MeterError when the sensor does not answer."""

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """How the rail is read, for the record; JSON values."""


class SysfsRail(Rail):
    """A rail read through the kernel driver, L4T's (iio) or mainline's (hwmon), in the sysfs at `root`.

    Raises MeterError, listing all rails, when none has this label.
    """

    def __init__(self, label: str, root: str = "/sys") -> None:
        self.label, self.channel = label, select_rail(find_rails(root), label)
        driver_ohms = self.channel.shunt_ohms()
        self.shunt_ohms = jetson_rails.shunt_ohms(label) if driver_ohms is None else driver_ohms

    def watts(self) -> float:
        """See Rail."""
        return self.channel.watts()

    def volts(self) -> float:
        """See Rail."""
        return self.channel.volts()

    def facts(self) -> dict[str, object]:
        """See Rail."""
        return {"access": f"sysfs ({self.channel.generation})", "path": self.channel.folder}


class INA3221Meter(SampledMeter):
    """Joules of one rail; idle power is not subtracted.

    A window's quantum is one step of the sensor's power times the duration: an upper bound of the error by resolution.
    Where the shunt is unknown, the window gets the flag "resolution unknown" instead.
    """

    name = "ina3221"

    def __init__(self, rail: Rail, *, period_s: float = PERIOD_S, clock: Clock | None = None) -> None:
        super().__init__(period_s, clock=clock)
        self.rail, self.scope = rail, jetson_rails.scope(rail.label)
        self._volts = 0.0

    def start(self) -> None:
        """See Meter."""
        try:
            self._volts = self.rail.volts()
        except DroppedSample:  # the bus is busy; the voltage of the last window is close enough
            if not self._volts:
                raise
        super().start()

    def stop(self) -> Window:
        """See Meter."""
        window = super().stop()
        if self.rail.shunt_ohms is None:
            return replace(window, flags=(*window.flags, "resolution unknown"))
        return replace(window, quantum=self._quantum_watts(window.amount / window.seconds) * window.seconds)

    def read_watts(self) -> float:
        """See SampledMeter. An unloaded rail may read a step or two below zero; that counts as 0 W."""
        watts = self.rail.watts()
        return watts if self.rail.shunt_ohms is None else jetson_rails.settled_watts(watts, self._quantum_watts(0.0))

    def facts(self) -> dict[str, object]:
        """See Meter."""
        return {
            "rail": self.rail.label,
            "shunt_ohms": self.rail.shunt_ohms,
            "period_s": self.period_s,
            "volts": self._volts,
            **self.rail.facts(),
        }

    def _quantum_watts(self, watts: float) -> float:
        assert self.rail.shunt_ohms is not None
        return jetson_rails.quantum_watts(self._volts, watts, self.rail.shunt_ohms)

"""Test doubles for measuring: a clock that nobody waits for, and a power sensor with the faults of real ones."""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import floor, inf

import numpy as np
from numpy.typing import NDArray

from shared.meters import Clock, DroppedSample, Meter, MeterError, Reading, SampledMeter, Settings, measure_all
from shared.meters.measuring import Work
from shared.rng import numpy_generator

RISE_PER_LAG = np.log(9.0)  # a first-order lag goes from 10 % to 90 % in ln 9 of its time constants
NODES = 20  # moments of the true power behind one reading


class SimulatedClock(Clock):
    """Time that passes in `sleep` alone, where repeating work happens at its exact moments."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s
        self._order = itertools.count()
        self._due: list[tuple[float, int, float, Callable[[], None], list[bool]]] = []  # a heap

    def now_s(self) -> float:
        """See Clock."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """See Clock."""
        end_s = self._now_s + seconds
        while self._due and self._due[0][0] <= end_s:
            due_s, order, period_s, work, active = heapq.heappop(self._due)
            if active:
                self._now_s = max(self._now_s, due_s)
                work()
                next_s = max(due_s + period_s, self._now_s)  # `work` may have slept
                heapq.heappush(self._due, (next_s, order, period_s, work, active))
        self._now_s = max(self._now_s, end_s)

    def every(self, period_s: float, work: Callable[[], None]) -> Callable[[], None]:
        """See Clock. What a later `work` raises is raised by `sleep`."""
        active = [True]
        work()
        heapq.heappush(self._due, (self._now_s + period_s, next(self._order), period_s, work, active))
        return active.clear


@dataclass(frozen=True)
class Sensor:
    """What stands between the true power and a reading, in this order.

    delay_s, rise_s: a dead time, and a first-order lag by its 10-90 % time. averaged_s: a reading is the mean of this
    long. slope, offset_watts: its error of calibration. noise_watts: standard deviation, before the quantiser, as in an
    analogue circuit. quantum_watts: readings are whole multiples of it; 0 for none. update_s: a new reading each, held
    until the next. drop_rate: share of updates that can't be read. supported: else no reading ever succeeds.
    lost_after_s: on the meter's clock, from when on none does.
    """

    update_s: float
    averaged_s: float
    delay_s: float = 0.0
    rise_s: float = 0.0
    slope: float = 1.0
    offset_watts: float = 0.0
    noise_watts: float = 0.0
    quantum_watts: float = 0.0
    drop_rate: float = 0.0
    supported: bool = True
    lost_after_s: float = inf


# Z. Yang, K. Adamek, W. Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention", SC 2024: the card on
# driver 535 against an external meter. Noise is not published.
GTX_1080_TI = Sensor(
    update_s=0.020,
    averaged_s=0.010,
    delay_s=0.012,
    rise_s=0.039,
    slope=0.999,
    offset_watts=-0.35,
    quantum_watts=0.001,  # NVML speaks in whole milliwatts
)


def ina3221(shunt_ohms: float, supply_volts: float) -> Sensor:
    """One of the three channels of TI's INA3221 as it comes out of reset, on a supply of constant voltage.

    The shunt voltage has steps of 40 uV, the bus voltage steps of 8 mV (data sheet SBOS576). Each of its six
    conversions takes 1.1 ms, and only one of them sees this channel's current.
    """
    bus_volts = round(supply_volts / 8e-3) * 8e-3
    return Sensor(update_s=6.6e-3, averaged_s=1.1e-3, quantum_watts=40e-6 / shunt_ohms * bus_volts)


TX2_VDD_IN = ina3221(shunt_ohms=5e-3, supply_volts=19.0)  # the rail that feeds the whole module


class SteppedPower:
    """True power that the work at hand sets as it goes; a function of time for SimulatedMeter.

    watts: from the start on.
    """

    def __init__(self, clock: Clock, watts: float) -> None:
        self.clock = clock
        self._times_s, self._watts = [clock.now_s()], [watts]

    def draw(self, watts: float) -> None:
        """From now on this much."""
        self._times_s.append(self.clock.now_s())
        self._watts.append(watts)

    def __call__(self, moment_s: float) -> float:
        """Watts at a moment, the first ones before the start."""
        return self._watts[max(bisect_right(self._times_s, moment_s) - 1, 0)]

    def joules(self, start_s: float, end_s: float) -> float:
        """The true energy from start_s to end_s."""
        edges = np.clip([*self._times_s, inf], start_s, end_s)
        return float(np.diff(edges) @ self._watts) + self._watts[0] * max(0.0, min(end_s, self._times_s[0]) - start_s)


class SimulatedMeter(SampledMeter):
    """Plays a Sensor on a true power, and samples and integrates its readings like those of any other.

    watts: the true power at a moment of `clock`. period_s: of polling, the sensor's update when None.
    seed: of noise and drop-outs, which depend on nothing but it and the number of the update.
    """

    name = "sim"
    simulated = True

    def __init__(
        self,
        sensor: Sensor,
        watts: Callable[[float], float],
        clock: Clock,
        *,
        seed: int = 0,
        period_s: float | None = None,
        scope: str = "simulated board",
    ) -> None:
        super().__init__(period_s or sensor.update_s, clock=clock)
        self.sensor, self.watts, self.seed, self.scope = sensor, watts, seed, scope
        self.quantum_watts = sensor.quantum_watts
        self._ages_s = ages_s(sensor)
        self._held: tuple[int, float | None] | None = None  # number of the update, its reading

    def read_watts(self) -> float:
        """See SampledMeter."""
        now_s, sensor = self.clock.now_s(), self.sensor
        if not sensor.supported:
            raise MeterError("a sensor that reads power", "NOT_SUPPORTED", "another meter")
        if now_s >= sensor.lost_after_s:
            raise MeterError("a sensor that answers", "GPU_IS_LOST", "a restart")
        update = floor(now_s / sensor.update_s + 1e-9)
        if self._held is None or self._held[0] != update:
            self._held = update, self._reading(update)
        if self._held[1] is None:
            raise DroppedSample("a reading", "a drop-out", "again")
        return self._held[1]

    def facts(self) -> dict[str, object]:
        """See Meter."""
        return {key: value for key, value in asdict(self.sensor).items() if value != inf} | {"seed": self.seed}

    def _reading(self, update: int) -> float | None:
        sensor, draw = self.sensor, numpy_generator(self.seed, "sensor", update)
        if draw.random() < sensor.drop_rate:
            return None
        moment_s = update * sensor.update_s
        mean = sum(self.watts(moment_s - age_s) for age_s in self._ages_s) / NODES
        watts = sensor.slope * mean + sensor.offset_watts + sensor.noise_watts * draw.standard_normal()
        if sensor.quantum_watts:
            watts = round(watts / sensor.quantum_watts) * sensor.quantum_watts
        return max(0.0, watts)


def ages_s(sensor: Sensor) -> NDArray[np.float64]:
    """How old the power is that a reading is the mean of: NODES equally likely ages, (NODES,) seconds.

    They are quantiles of delay + averaging window + lag, whose distribution is that of a uniform and an exponential
    number added.
    """
    tau_s = sensor.rise_s / RISE_PER_LAG
    age_s = np.linspace(0.0, sensor.averaged_s + 12 * tau_s, 4001)
    if tau_s:

        def integral_of_lag(until_s: NDArray[np.float64]) -> NDArray[np.float64]:
            positive_s = np.maximum(until_s, 0.0)
            return positive_s + tau_s * np.expm1(-positive_s / tau_s)

        share = (integral_of_lag(age_s) - integral_of_lag(age_s - sensor.averaged_s)) / sensor.averaged_s
    else:
        share = age_s / sensor.averaged_s
    return sensor.delay_s + np.interp((np.arange(NODES) + 0.5) / NODES, share, age_s)


def measure(work: Work, meter: Meter, settings: Settings, clock: Clock) -> Reading:
    """The reading of a single piece of work, see measure_all."""
    return measure_all({"work": work}, meter, settings, clock)["work"]

"""A made-up NVIDIA board, and an object that plays NVML's bindings on it; stub.c plays the same board from a file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ALWAYS = (-1e9, 1e9)
COUNTER, SAMPLES = "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetSamples"
INSTANT, USAGE = "field186", "nvmlDeviceGetPowerUsage"
WALL_S = 1.7e9
BUFFERED = 120


@dataclass
class Board:
    """True power and the sensor before it.

    knots: (s, W), straight in between, two at one moment for a step, held beyond the ends. Each update_s, beginning at
    phase_s, the sensor shows the mean of the last average_s; not within dropouts. faults: (function, code, from, to).
    reasons: (bits, from, to). gain: what the power sensors read of 1 W, while the counter is right.
    """

    knots: list[tuple[float, float]]
    update_s: float = 0.020
    average_s: float = 0.010
    phase_s: float = 0.0
    gain: float = 1.0
    gpus: list[tuple[str, str, int]] = field(default_factory=lambda: [("GPU-1080aaaa-0000", "GTX 1080 Ti", 0)])
    dropouts: list[tuple[float, float]] = field(default_factory=list)
    faults: list[tuple[str, int, float, float]] = field(default_factory=list)
    reasons: list[tuple[int, float, float]] = field(default_factory=list)

    def lacking(self, *functions: str, code: int = 3) -> Board:
        """The same board, where these functions always fail."""
        self.faults += [(function, code, *ALWAYS) for function in functions]
        return self

    def __post_init__(self) -> None:
        self._until = [0.0]  # joules at each knot
        for (t0, w0), (t1, w1) in zip(self.knots, self.knots[1:], strict=False):
            self._until.append(self._until[-1] + (t1 - t0) * (w0 + w1) / 2)

    def joules(self, moment_s: float) -> float:
        """True energy since the first knot, in closed form."""
        at = bisect_right(self.knots, moment_s, key=lambda knot: knot[0]) - 1
        t0, w0 = self.knots[max(at, 0)]
        slope = 0.0
        if 0 <= at < len(self.knots) - 1:
            t1, w1 = self.knots[at + 1]
            slope = (w1 - w0) / (t1 - t0)
        length = moment_s - t0
        return self._until[max(at, 0)] + length * (w0 + slope * length / 2)

    def dropped(self, moment_s: float) -> bool:
        return any(begin <= moment_s < end for begin, end in self.dropouts)

    def update(self, moment_s: float) -> float:
        """When the sensor was last updated."""
        count = floor((moment_s - self.phase_s) / self.update_s)
        while self.dropped(self.phase_s + count * self.update_s):
            count -= 1
        return self.phase_s + count * self.update_s

    def milliwatts(self, update_s: float) -> int:
        mean = (self.joules(update_s) - self.joules(update_s - self.average_s)) / self.average_s
        return int(self.gain * mean * 1e3 + 0.5)

    def write(self, path: Path) -> None:
        """The board as stub.c reads it."""
        lines = [f"sensor {self.update_s!r} {self.average_s!r} {self.phase_s!r} {self.gain!r} {WALL_S!r}"]
        for word, rows in (
            ("knot", self.knots),
            ("gpu", [(uuid, mig, name) for uuid, name, mig in self.gpus]),
            ("dropout", self.dropouts),
            ("fault", self.faults),
            ("reasons", self.reasons),
        ):
            lines += [" ".join([word, *map(str, row)]) for row in rows]
        path.write_text("\n".join(lines) + "\n")


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


class FakeNvml:
    """NVML's bindings, as far as the meter asks; now_s is the board's time. calls: names asked so far."""

    NVMLError = NVMLError

    def __init__(self, board: Board, now_s: Callable[[], float]) -> None:
        self.board, self.now_s, self.calls = board, now_s, list[str]()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answer = getattr(type(self), "_" + name)  # AttributeError as for old bindings

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            self._fail(name)
            return answer(self, *arguments)

        return call

    def _code(self, name: str) -> int:
        return next((code for what, code, a, b in self.board.faults if what == name and a <= self.now_s() < b), 0)

    def _fail(self, name: str) -> None:
        if code := self._code(name):
            raise NVMLError(code)

    def _nvmlInit(self) -> None: ...

    def _nvmlShutdown(self) -> None: ...

    def _nvmlSystemGetDriverVersion(self) -> str:
        return "580.95"

    def _nvmlDeviceGetCount(self) -> int:
        return len(self.board.gpus)

    def _nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def _nvmlDeviceGetUUID(self, handle: int) -> str:
        return self.board.gpus[handle][0]

    def _nvmlDeviceGetName(self, handle: int) -> str:
        return self.board.gpus[handle][1]

    def _nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        if self.board.gpus[handle][2] < 0:
            raise NVMLError(3)
        return [self.board.gpus[handle][2]] * 2

    def _nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return int(1e6 + self.board.joules(self.board.update(self.now_s())) * 1e3)

    def _nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return self.board.milliwatts(self.board.update(self.now_s()))

    def _nvmlDeviceGetFieldValues(self, handle: int, fields: list[int]) -> list[SimpleNamespace]:
        watts = SimpleNamespace(uiVal=self._nvmlDeviceGetPowerUsage(handle))
        return [SimpleNamespace(nvmlReturn=self._code(f"field{n}"), valueType=1, value=watts) for n in fields]

    def _nvmlDeviceGetSamples(self, handle: int, kind: int, last_us: int) -> tuple[int, list[SimpleNamespace]]:
        newest = floor((self.now_s() - self.board.phase_s) / self.board.update_s)
        moments = [self.board.phase_s + k * self.board.update_s for k in range(newest - BUFFERED + 1, newest + 1)]
        moments = [moment for moment in moments if not self.board.dropped(moment)]
        stamps = [int((WALL_S + moment) * 1e6 + 0.5) for moment in moments]
        start = bisect_right(stamps, last_us)
        if start == len(stamps):
            raise NVMLError(6)
        return 1, [
            SimpleNamespace(timeStamp=stamp, sampleValue=SimpleNamespace(uiVal=self.board.milliwatts(moment)))
            for stamp, moment in zip(stamps[start:], moments[start:], strict=True)
        ]

    def _nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:
        return sum(bits for bits, begin, end in self.board.reasons if begin <= self.now_s() < end)

    def _nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return self._nvmlDeviceGetCurrentClocksEventReasons(handle)

    def _nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:
        return {1: 1582, 2: 5505}[kind]

    def _nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 61

    def _nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return 250_000

"""Hardware that is there: networks run on it while a meter reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from shared.cache import content_key
from shared.host import processor
from shared.memory import keep_freed_memory
from shared.meters import Clock, Meter, Reading, Settings, device_lock, measure_all
from shared.meters.clock import ClockMeter
from shared.meters.settings import FULL, SHORT
from shared.platforms.hardware import Hardware
from shared.platforms.platform import Subject

# A clock needs no windows of seconds: it resolves every run, and medians are safe from interruptions.
CLOCK_FULL = Settings(
    "clock", 8, window_s=0.25, runs=32, warmup_s=0.1, cool_down_s=0.02, idle_s=0.0, target=0.01, limit_s=20.0
)
CLOCK_SHORT = Settings(
    "clock, short", 4, window_s=0.03, runs=8, warmup_s=0.01, cool_down_s=0.0, idle_s=0.0, target=0.02, limit_s=1.0
)
LARGEST_BATCH = 256
LAUNCHES = 0.05  # of a dense inference, at most
WAIT_S = 7 * 24 * 3600.0  # for trainings of ours on the device; they tell their own time to go


class MeasuredPlatform(Hardware):
    """A processor or a GPU of this machine, and the meter that reads it.

    device: where torch runs networks, "cpu" or "cuda:0". A processor runs them on one thread that stays on one core.
    calibration: of host class, device, torch, meter, scope, which sensor.
    """

    def __init__(
        self,
        name: str,
        meter: Meter,
        *,
        device: str = "cpu",
        clock: Clock | None = None,
    ) -> None:
        self.name, self.sensor, self.device = name, meter, torch.device(device)
        self.source = "simulated" if meter.simulated else "measured"
        self.meter, self.unit = f"{meter.name} ({meter.scope})", meter.unit
        self.clock = clock or Clock()
        chip = processor() if device == "cpu" else torch.cuda.get_device_name(self.device)
        cores = os.cpu_count()
        self.host = f"{chip}, one thread of {cores} cores" if device == "cpu" else chip
        self.calibration = content_key(self.host, torch.__version__, meter.name, meter.scope, meter.identity())[:12]
        clocked = meter.method == "clock"
        self.full, self.short = (CLOCK_FULL, CLOCK_SHORT) if clocked else (FULL, SHORT)

    def read(self, subject: Subject, widths: Sequence[Sequence[int]], batch: int, settings: Settings) -> list[Reading]:
        """One reading per image for each row of `widths`, taken in turns so that a drift meets all alike.

        Waits until nothing of ours computes on the device. Raises MeterError when the sensor fails.
        """
        with contextlib.ExitStack() as held:
            for device in sorted({"cpu", str(self.device)}):  # a GPU waits for launches from the processor
                held.enter_context(device_lock(device, f"reading {self.name}", wait_s=WAIT_S, say=self.say))
            held.enter_context(self._pinned())
            networks = [subject.build(tuple(map(int, kept))) for kept in widths]
            images = self._images(networks[0], batch)
            works = {str(row): self._work(network, images) for row, network in enumerate(networks)}
            readings = measure_all(works, self.sensor, settings, self.clock)
        return [readings[name].per(batch) for name in works]

    def inference_batch(self, subject: Subject) -> int:
        """The first power of two at which launches are at most LAUNCHES of a dense inference.

        At most LARGEST_BATCH, and what memory holds.
        Launches: one image with one channel everywhere, which is hardly anything else. Where they count for more, a
        small network costs little but them, and small budgets can't be reached. Found by the clock, whatever the meter.
        Near that batch their share falls by almost half from one power to the next, so that noise rarely decides.
        (Simulated platforms look at what the all-ones share does from batch to batch; on processors such networks run
        on slow paths of their own when batches are large.)
        """
        timed = MeasuredPlatform(self.name, ClockMeter(self.clock), device=str(self.device), clock=self.clock)
        timed.say = self.say

        def inference_s(widths: Sequence[int], batch: int) -> float:
            return batch * timed.read(subject, [widths], batch, CLOCK_SHORT)[0].amount

        dense = subject.structure.upper_bounds
        launches_s, held = inference_s([1] * len(dense), 1), 1
        for batch in (2**k for k in range(LARGEST_BATCH.bit_length())):
            try:
                enough = launches_s <= LAUNCHES * inference_s(dense, batch)
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, MemoryError) or "memory" in str(error):  # torch's own words for a processor's
                    break
                raise
            held = batch
            if enough:
                break
        return held

    def _images(self, network: nn.Module, batch: int) -> torch.Tensor:
        shape: tuple[int, ...] = network.input_shape  # type: ignore[assignment]
        images = torch.randn((batch, *shape), generator=torch.Generator().manual_seed(0))
        return images.to(self.device).contiguous(memory_format=torch.channels_last)

    def _work(self, network: nn.Module, images: torch.Tensor) -> Callable[[], object]:
        network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        on_gpu = self.device.type == "cuda"

        @torch.inference_mode()
        def run() -> None:
            network(images)
            if on_gpu:
                torch.cuda.synchronize(self.device)

        return run

    @contextlib.contextmanager
    def _pinned(self) -> Iterator[None]:
        """One thread on one core for a processor, the last that this process may use; as before on leaving."""
        if self.device.type != "cpu":
            yield
            return
        keep_freed_memory()
        threads = torch.get_num_threads()
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        torch.set_num_threads(1)
        try:
            if cores:
                os.sched_setaffinity(0, {max(cores)})
            yield
        finally:
            if cores:
                os.sched_setaffinity(0, cores)
            torch.set_num_threads(threads)

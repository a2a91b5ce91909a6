"""Progress of a plan with the time left: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

LINE_EVERY_S = 30.0


def minutes(seconds: float) -> str:
    """Seconds as text: "40 s", "12 min", "3.5 h", "4.2 days", "41 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    if hours < 48:
        return f"{hours:.1f} h"
    return f"{hours / 24:.1f} days" if hours < 240 else f"{hours / 24:,.0f} days"


class PlanProgress:
    """The share of a plan's work that is done, and the step of every running job.

    work: estimated seconds by job name; only their ratios matter.
    """

    def __init__(self, work: dict[str, float], console: Console) -> None:
        self._work, self._console = work, console
        self._share = dict.fromkeys(work, 0.0)
        self._rows: dict[str, TaskID] = {}
        self._steps: dict[str, tuple[str, float, float]] = {}  # step, time and share of its first message
        self._started = self._last_line = time.monotonic()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._total = self._bars.add_task("plan", total=1.0, note="")

    def __enter__(self) -> PlanProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def step(self, job: str, step: str, share: float) -> None:
        """Show that a job has done `share`, 0..1, of its step."""
        first, last = (0.0, 0.85) if step == "compress" else (0.85, 1.0)
        self._share[job] = max(self._share[job], first + (last - first) * share)
        if job not in self._rows:
            self._rows[job] = self._bars.add_task(job, total=1.0, note="")
        if job not in self._steps or self._steps[job][0] != step:
            self._steps[job] = (step, time.monotonic(), share)
        _, since, first_share = self._steps[job]
        note = f"{step}, {_to_go(share - first_share, 1.0 - share, since)}"
        self._bars.update(self._rows[job], completed=share, note=note)
        self._refresh()

    def finish(self, job: str, message: str) -> None:
        """Show that a job is done, with its result as `message`."""
        self._share[job] = 1.0
        if job in self._rows:
            self._bars.remove_task(self._rows.pop(job))
        self._console.print(f"{message} ({self._to_go()})", highlight=False)
        self._refresh()

    def _done(self) -> float:
        return sum(self._work[job] * share for job, share in self._share.items()) / sum(self._work.values())

    def _to_go(self) -> str:
        return _to_go(done := self._done(), 1.0 - done, self._started)

    def _refresh(self) -> None:
        self._bars.update(self._total, completed=self._done(), note=self._to_go())
        if not self._console.is_terminal and time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._console.print(f"{100 * self._done():.0f} % done, {self._to_go()}", highlight=False)


def _to_go(done: float, left: float, since: float) -> str:
    """Time for the share `left`, if it passes at the rate of `done` since `since` (time.monotonic), as text."""
    if left <= 0.0:
        return "all done"
    return f"{minutes((time.monotonic() - since) * left / done)} to go" if done > 0.0 else "just started"

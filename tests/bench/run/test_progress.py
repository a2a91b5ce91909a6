"""Time to go, of the plan and of every running step."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.run import progress
from bench.run.progress import PlanProgress, minutes


class Clock:
    """Stands in for time.monotonic."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def notes(bars: PlanProgress) -> dict[str, str]:
    return {task.description: task.fields["note"] for task in bars._bars.tasks}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (47.9 * 3600, "47.9 h"),
        (48 * 3600, "2.0 days"),
        (9.9 * 86400, "9.9 days"),
        (41.2 * 86400, "41 days"),
        (4_100 * 86400, "4,100 days"),
    ],
)
def test_seconds_as_people_say_them(seconds: float, words: str) -> None:
    assert minutes(seconds) == words


def test_the_plan_and_the_running_steps_say_how_long_they_take(clock: Clock) -> None:
    """Two jobs of the same work. Compressing counts for 0.85 of a job."""
    bars = PlanProgress({"a": 1.0, "b": 1.0}, Console(file=io.StringIO(), force_terminal=True))
    bars.step("a", "compress", 0.0)
    assert notes(bars) == {"plan": "just started", "a": "compress, just started"}
    clock.now += 10
    bars.step("a", "compress", 0.25)
    assert notes(bars)["a"] == "compress, 30 s to go"
    assert notes(bars)["plan"] == minutes(10 * (2 - 0.85 / 4) / (0.85 / 4)) + " to go"
    clock.now += 10
    bars.step("a", "tune", 0.1)  # its own clock, from its first word
    assert notes(bars)["a"] == "tune, just started"
    clock.now += 8
    bars.step("a", "tune", 0.5)
    assert notes(bars)["a"] == "tune, 10 s to go"
    bars.step("a", "tune", 1.0)
    assert notes(bars)["a"] == "tune, all done"


def test_lines_take_the_place_of_bars_where_there_is_no_terminal(clock: Clock) -> None:
    out = io.StringIO()
    with PlanProgress({"a": 3.0, "b": 1.0}, Console(file=out, width=200)) as bars:
        bars.step("a", "compress", 0.5)
        assert out.getvalue() == ""
        clock.now += progress.LINE_EVERY_S + 1
        bars.finish("b", "b: 80 %")
        bars.finish("a", "a: 70 %")
    first, line, last = out.getvalue().splitlines()
    assert first.startswith("b: 80 % (") and first.endswith(" to go)")
    assert line.startswith(f"{100 * (3 * 0.425 + 1) / 4:.0f} % done, ")
    assert last == "a: 70 % (all done)"

"""The whole line on this very processor: compress to a latency, land by the clock, tune, read by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.record.model import read
from bench.setup import workload
from bench.setup.request import Request
from bench.setup.setup import prepare, reopen
from shared.meters import MeterError, Reading
from shared.networks import structure
from shared.platforms import MeasuredPlatform
from tests.bench.conftest import Command
from tests.shared.platforms.played import reading_of

ARGUMENTS = ["--device", "cpu", "--metric", "latency", "--protocol", "smoke"]
REQUEST = Request(device="cpu", metric="latency", protocol="smoke")


@pytest.fixture
def profiled(in_cache: Path, short_runs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a profile that was not read: as long as the network has multiply-adds, 100 µs for the dense one."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    with torch.device("meta"):
        table = structure(workload.get("mobilenet", "fashion-mnist").build())
    dense = float(table.macs(table.upper_bounds))

    def played(self: Any, subject: Any, widths: Sequence[Sequence[int]], batch: int, settings: Any) -> list[Reading]:
        amounts = [1e-4 * (0.1 + 0.9 * float(table.macs(list(row))) / dense) for row in widths]
        return [reading_of(amount) for amount in amounts]

    with monkeypatch.context() as patch:
        patch.setattr(MeasuredPlatform, "read", played)
        patch.setattr(MeasuredPlatform, "inference_batch", lambda self, subject: 64)
        with pytest.raises(MeterError, match="a whole profile in the cache"):
            reopen(REQUEST)
        setup = prepare(REQUEST)
    assert setup.unit == "s" and setup.inference_batch == 64 and setup.reach.dense_reading == pytest.approx(1e-4)
    again = reopen(REQUEST)
    assert again.profile.key == setup.profile.key and again.dense.accuracy > 0.9
    return tmp_path


def test_a_latency_budget_from_end_to_end(profiled: Path, command: Command) -> None:
    out = profiled / "runs"
    arguments = ("run", *ARGUMENTS, "--methods", "uniform", "--budgets", "0.8", "--out", str(out))
    code, printed, errors = command(*arguments)
    assert code == 0, printed[-600:] + errors
    assert printed.startswith("profile: 140 networks are in ")
    assert "\ncpu: measured seconds per image by clock (wall time) of " in printed
    assert "of readings\n" in printed  # said before they begin
    (folder,) = (path.parent for path in out.glob("*-cpu-measured-latency-smoke/*/record.json"))
    record = read(folder)
    assert record.status == "ok" and record.measures is not None and record.budget is not None
    assert (record.platform.unit, record.platform.source, record.platform.inference_batch) == ("s", "measured", 64)
    low, high = record.measures.interval
    assert 0 < low <= record.measures.reading <= high  # a clock truly read it
    assert record.measures.estimate <= record.budget.amount
    assert record.measures.reference is not None and record.measures.reference > 0
    assert record.landing is not None and record.cost is not None
    assert record.landing.after.interval[1] <= record.budget.amount
    moved = record.landing.removed_channels > 0
    assert moved == (record.landing.before.interval[1] > record.budget.amount) == (record.cost.landing_readings > 1)
    assert sum(record.landing.widths) - record.landing.removed_channels == sum(record.measures.widths)
    (page,) = out.glob("*.md")
    text = page.read_text()
    assert "## Landing" in text and "Within budget after landing: 1 of 1." in text
    assert "joule" not in text.split("## Claimed")[0].replace("per joule", "")

    code, printed, _ = command(*arguments)
    assert code == 0 and "1 of 1 runs are finished already" in printed
    assert read(folder) == record

"""The shipped dense weights belong to the code and data as they are now."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import dense, workload
from bench.plan import Request
from shared import data
from shared.networks import build
from shared.training import accuracy


def test_shipped_weights_are_current_and_as_good_as_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.delattr(dense, "train")  # found, not made now
    request = Request()
    work, images = workload.get(request.network, request.dataset), data.load(request.dataset)
    shipped = dense.obtain(work, images, lambda *_: None)
    assert shipped.accuracy >= 0.92
    assert not shipped.network.training
    assert accuracy(shipped.network, images.test, 1_000) >= 0.90
    assert build(**shipped.network.config).state_dict().keys() == shipped.network.state_dict().keys()  # type: ignore[arg-type]

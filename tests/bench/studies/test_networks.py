"""The page of torchvision's networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.setup.request import Request
from bench.studies import networks as study

REPORTS = Path(__file__).parents[3] / "reports"


def test_the_committed_page_is_what_its_records_make() -> None:
    assert study.check(REPORTS) == []
    rows = json.loads((REPORTS / "records/networks.json").read_bytes())
    assert list(rows) == list(study.NETWORKS)
    for name, row in rows.items():
        if "refused" not in row:
            least = 0.5 if name.startswith("shufflenet") else 0.8
            assert row["prunable_share"] >= least and row["difference"] < 1e-4
            assert 0.9 < row["ecc"]["estimate"] <= 1.0


def test_a_page_of_other_records_is_told(tmp_path: Path) -> None:
    assert study.check(tmp_path) == []
    (tmp_path / "records").mkdir()
    (tmp_path / "records/networks.json").write_bytes((REPORTS / "records/networks.json").read_bytes())
    (tmp_path / "networks.md").write_text("another page\n")
    assert study.check(tmp_path) == ["networks.md: not what records/networks.json makes"]


def test_a_network_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, in_channels):\n"
        "    layers = nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU()\n"
        "    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes))\n"
        "def odd(num_classes, in_channels):\n"
        "    layers = nn.Conv2d(in_channels, 8, 28), nn.LocalResponseNorm(2), nn.Flatten()\n"
        "    return nn.Sequential(*layers, nn.Linear(8, num_classes))\n"
    )
    asked = Request(network=f"{tmp_path}/own.py:net", protocol="smoke", meter="sim", methods="ecc", image_size="12")
    row = study.tried(asked)
    assert (row["units"], row["prunable_share"]) == (2, 1.0) and row["difference"] < 1e-10
    assert row["parameters"] == 80 + 876 + 130 and 0.8 < row["ecc"]["estimate"] <= 1
    refused = study.tried(Request(network=f"{tmp_path}/own.py:odd", protocol="smoke", meter="sim", image_size="28"))
    assert "LocalResponseNorm at '1'" in refused["refused"]
    text = study.page({"net": row, "odd": refused})
    assert "| net " in text and "- `odd`: expected operations" in text

"""The commands that reports/paper.md prints, as a person types them who has the data: on miniature trees."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from bench.cli import app as cli
from bench.run import cost
from bench.setup import protocols, workload

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "reports" / "paper.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m bench (.*)$", PAGE, re.MULTILINE)
ON_FILES = [command for command in COMMANDS if " --data DIR" in command]


def typed(command: str, data: Path, weights: Path) -> list[str]:
    """The command's arguments with DIR and FILE filled in, on a machine without a GPU."""
    own = {"DIR": str(data), "FILE": str(weights), "cuda:0": "cpu"}
    return [own.get(part, part) for part in shlex.split(command)]


def checkpoint(network: str, dataset: str, folder: Path) -> Path:
    """A state dict of the dense network with weights that nobody trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(workload.get(network, dataset).build().state_dict(), folder / "dense.pth")
    return folder / "dense.pth"


def value(command: str, option: str) -> str:
    parts = shlex.split(command)
    return parts[parts.index(option) + 1]


def call(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    return cli.main()


def test_the_page_has_commands_for_every_experiment() -> None:
    asked = {(command.split()[0], value(command, "--network"), value(command, "--dataset")) for command in ON_FILES}
    pairs = {("mobilenet", "imagenet"), ("alexnet", "imagenet"), ("erfnet", "cityscapes")}
    assert asked == {(kind, *pair) for kind in ("dense", "run") for pair in pairs}
    assert len(ON_FILES) == 3 + 2 * 3 and all(command.startswith(("dense ", "run ")) for command in COMMANDS)


@pytest.mark.parametrize("command", ON_FILES)
def test_all_that_a_command_lacks_is_the_folder(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    weights = checkpoint(value(command, "--network"), value(command, "--dataset"), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert call(monkeypatch, typed(command, tmp_path / "nowhere", weights)) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and f"got no folder {tmp_path / 'nowhere'}; try" in told
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "cache") == before


def test_without_dense_weights_nothing_starts(
    imagenet_tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    command = next(line for line in ON_FILES if line.startswith("run ") and "--network alexnet" in line)
    assert call(monkeypatch, typed(command, imagenet_tree, tmp_path)) == 2
    told = capsys.readouterr()
    wanted = "`python -m bench dense --network alexnet --dataset imagenet --data DIR --weights FILE`"
    assert told.out == "" and len(told.err.splitlines()) == 1
    assert wanted in told.err and wanted.strip("`") in PAGE and "torchvision's alexnet-owt-7be5be79.pth" in told.err
    assert not list((tmp_path / "cache").rglob("*.*")) and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [command for command in ON_FILES if command.startswith("run ")])
def test_every_experiment_is_priced_without_its_data(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cost, "_prices", lambda setup: (1.0, 0.001))
    parts = shlex.split(command)
    parts = [part for place, part in enumerate(parts) if "--data" not in parts[max(0, place - 1) : place + 1]]
    assert call(monkeypatch, ["plan", *typed(shlex.join(parts[1:]), tmp_path, tmp_path)]) == 0
    told = capsys.readouterr().out
    published = tomllib.loads(protocols.PUBLISHED.read_text())["dense"]
    (dense,) = (entry for entry in published if entry["network"] == value(command, "--network"))
    joules = float(re.findall(r"inference batch 1 at .*dense network ([\d.]+) J", told)[0])
    assert joules == pytest.approx(dense["joules"][value(command, "--device")], rel=0.01)  # as the paper's, metered
    assert "no --data: prices are for as many images as " in told and "`python -m bench dense --network " in told
    assert len(re.findall(r"^  \w+-[\d.]+-s0: .* J, about .* (?:h|days)$", told, re.MULTILINE)) == 12

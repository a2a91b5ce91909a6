"""A board that measures by itself: by hand through a folder, over SSH by programs that are played, and its mistakes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.errors import BadInput
from shared.meters import SHORT, MeterError
from shared.networks import build, structure
from shared.platforms import Subject, choose, get
from shared.platforms.board import ON_CPU, BoardPlatform

WATTS = 5.0
BATCH = 2
SETTINGS = replace(SHORT, window_s=0.05, runs=2, warmup_s=0.0)
ROWS = [(2, 3, 4, 5, 6, 7, 8), (9, 8, 7, 6, 5, 4, 3)]


@pytest.fixture
def subject() -> Subject:
    model = build("alexnet", width_multiplier=0.125, input_size=64, num_classes=10)

    def never(widths: tuple[int, ...]) -> Any:
        raise AssertionError("the board builds its networks by itself")

    return Subject(structure(model), never)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A TX2's device tree, and its VDD_IN at 5 W and 20 V."""
    sensor = tmp_path / "sys/bus/i2c/drivers/ina3221x/0-0041/iio:device1"
    tree = tmp_path / "sys/firmware/devicetree/base"
    for folder in (sensor, tree):
        folder.mkdir(parents=True)
    for name, text in {"rail_name_0": "VDD_IN", "in_power0_input": "5000", "in_voltage0_input": "20000"}.items():
        (sensor / name).write_text(text + "\n")
    (tree / "model").write_bytes(b"NVIDIA Jetson TX2 Developer Kit\0")
    return tmp_path / "sys"


def by_hand(command: str, folder: Path, sysfs: Path) -> None:
    """What a person types on the board, in a copy of the folder, with its sensor played."""
    asked = shlex.split(command)
    assert asked[:2] == ["python3", "runner.py"]
    options = ["--sysfs", str(sysfs), "--period", "0.005", "--idle", "0.05"]
    done = subprocess.run(
        [sys.executable, "-I", *asked[1:], *options], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_by_hand_through_a_folder(tmp_path: Path, sysfs: Path, subject: Subject) -> None:
    folder = tmp_path / "errands"
    platform = choose("tx2", "energy", f"board:VDD_IN@{folder}/")
    assert isinstance(platform, BoardPlatform)
    assert (platform.source, platform.unit) == ("measured", "J") and "VDD_IN" in platform.meter
    with pytest.raises(MeterError, match="got none yet; try in a copy of that folder on the board: python3") as stopped:
        platform.read(subject, ROWS, BATCH, SETTINGS)
    with pytest.raises(MeterError) as again:
        platform.read(subject, ROWS, BATCH, SETTINGS)
    assert str(stopped.value) == str(again.value)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".py"} and len(list(folder.iterdir())) == 2

    by_hand(stopped.value.hint.partition(": ")[2], folder, sysfs)
    readings = platform.read(subject, ROWS, BATCH, SETTINGS)
    assert len(readings) == 2
    (document,) = (json.loads(path.read_text()) for path in folder.glob("operations-*.json"))
    forth = [[3, *ROWS[0]], [3, *ROWS[1]]]
    positions = [row[: len(forth[0])] for row in document["positions"]]
    assert positions == [forth[0], forth[1], forth[1], forth[0]] * 2  # there and back, so that drift meets both alike
    for reading in readings:
        assert reading.amount == pytest.approx(WATTS * reading.seconds, rel=1e-3)  # per image, both
        assert len(reading.amounts) == SETTINGS.visits and reading.repeats >= SETTINGS.visits * SETTINGS.runs
        low, high = reading.interval
        assert low < reading.amount < high and high - low >= reading.quantum > 0
        assert reading.idle_watts == (pytest.approx(WATTS), pytest.approx(WATTS))
        assert (reading.meter, reading.unit, reading.method, reading.simulated) == ("board", "J", "integral", False)
        assert reading.sensor["board"] == "NVIDIA Jetson TX2 Developer Kit"
        assert (ON_CPU in reading.flags) == (not torch.cuda.is_available())
    (measured,) = folder.glob("measured-*.json")
    windows = json.loads(measured.read_text())["windows"]
    seconds = [(window["end_s"] - window["start_s"]) / window["repeats"] / BATCH for window in windows]
    assert readings[0].seconds == pytest.approx(sum(seconds[place] for place in (0, 3, 4, 7)) / 4)


def test_the_profile_s_rows_go_in_one_errand_by_hand_only(tmp_path: Path, subject: Subject) -> None:
    host, folder = choose("tx2", "latency", "board:jetson"), choose("tx2", "latency", f"board:{tmp_path}/")
    assert isinstance(host, BoardPlatform) and isinstance(folder, BoardPlatform)
    assert (host.block, folder.block) == (10, 150) and host.unit == folder.unit == "s"
    assert host.calibration != folder.calibration
    table = subject.structure
    assert host.inference_batch(subject) == get("tx2").inference_batch(table.operations, table.position_bounds)


def play(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def played_ssh(tmp_path: Path, sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ssh and scp that reach a folder of this machine, where python3 finds a played sensor."""
    bin_, home = tmp_path / "bin", tmp_path / "home"
    bin_.mkdir()
    home.mkdir()
    play(bin_, "ssh", f'cat >/dev/null; shift 6; [ "${{1#me@}}" = jetson ] || exit 255; cd {home} && sh -c "$2"')
    # of seven words before the files; "jetson:" is the home
    play(
        bin_, "scp", f'shift 7; for a; do set -- "$@" "$(echo "$a" | sed s,^.*jetson:,{home}/,)"; shift; done; cp "$@"'
    )
    play(bin_, "python3", f'exec {sys.executable} -I "$@" --sysfs {sysfs} --period 0.005 --idle 0.05')
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return home


@pytest.mark.parametrize("place", ["jetson", "me@jetson"])
def test_over_ssh_in_one_go(place: str, played_ssh: Path, tmp_path: Path, subject: Subject) -> None:
    platform, said = choose("tx2", "energy", f"board:VDD_IN@{place}"), list[str]()
    assert isinstance(platform, BoardPlatform)
    platform.say = said.append
    readings = platform.read(subject, ROWS, BATCH, SETTINGS)
    assert [reading.amount for reading in readings] == pytest.approx([WATTS * r.seconds for r in readings], rel=1e-3)
    assert len(said) == 1 and said[0].startswith(f"{place} measures operations-")
    shutil.rmtree(played_ssh)  # the second time nothing is asked
    assert platform.read(subject, ROWS, BATCH, SETTINGS) == readings


def test_what_is_typed_meanwhile_is_left_to_the_command(played_ssh: Path, subject: Subject, tmp_path: Path) -> None:
    """ssh reads what it finds there: the rest of a script that is piped into a shell, say."""
    (tmp_path / "script").write_text("next command")
    platform, own = choose("tx2", "latency", "board:jetson"), os.dup(0)
    assert isinstance(platform, BoardPlatform)
    try:
        with (tmp_path / "script").open() as script:
            os.dup2(script.fileno(), 0)
            platform.read(subject, ROWS, BATCH, SETTINGS)
            assert os.lseek(0, 0, os.SEEK_CUR) == 0
    finally:
        os.dup2(own, 0)
        os.close(own)


def test_times_alone(played_ssh: Path, subject: Subject) -> None:
    platform = choose("tx2", "latency", "board:jetson")
    assert isinstance(platform, BoardPlatform)
    for reading in platform.read(subject, ROWS, BATCH, SETTINGS):
        assert reading.amount == reading.seconds > 0 and reading.unit == "s" and reading.idle_watts is None
        assert reading.method == "clock" and reading.scope == "wall time" and reading.interval[0] <= reading.amount


def failing(name: str, says: str) -> Callable[[Path], None]:
    return lambda folder: play(folder.parent / "bin", name, f"echo noise >&2; echo '{says}' >&2; exit 255")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (failing("ssh", "no route to host"), "ssh to jetson to succeed, got 'no route to host'; try ssh jetson by"),
        (failing("scp", "disk full"), "scp to jetson to succeed, got 'disk full'"),
        (failing("python3", "expected a rail"), "ssh to jetson to succeed, got 'expected a rail'"),
        (lambda home: (home.parent / "bin/ssh").unlink(), "the program ssh"),
    ],
)
def test_a_board_that_cannot_be_reached(
    played_ssh: Path,
    tmp_path: Path,
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{_without_ssh(tmp_path)}")
    spoil(played_ssh)
    platform = choose("tx2", "energy", "board:VDD_IN@jetson")
    assert isinstance(platform, BoardPlatform)
    with pytest.raises(MeterError) as stopped:
        platform.read(subject, ROWS, BATCH, SETTINGS)
    assert message in str(stopped.value)
    assert not list((tmp_path / "cache").rglob("measured-*"))


def _without_ssh(folder: Path) -> Path:
    """A folder with the few programs that the played ones need."""
    tools = folder / "tools"
    tools.mkdir()
    for tool in ("sh", "sed", "cp", "cat", "mkdir", "echo"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    return tools


def edited(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda measured: measured | changes


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edited(versions={"board": "NVIDIA Jetson Nano"}), "measurements of a Jetson TX2 in .*got NVIDIA Jetson Nano"),
        (edited(versions={}), "got a board that doesn't tell its model"),
        (edited(rail=None), "measurements of VDD_IN in .*, got times alone"),
        (lambda measured: measured | {"windows": measured["windows"][:3]}, "a window for each row of .*, got 3"),
    ],
)
def test_measurements_of_something_else_are_refused(
    tmp_path: Path,
    sysfs: Path,
    subject: Subject,
    edit: Callable[[dict[str, Any]], dict[str, Any]],
    message: str,
) -> None:
    platform = choose("tx2", "energy", f"board:VDD_IN@{tmp_path / 'errands'}/")
    assert isinstance(platform, BoardPlatform)
    with pytest.raises(MeterError) as stopped:
        platform.read(subject, ROWS, BATCH, SETTINGS)
    by_hand(stopped.value.hint.partition(": ")[2], platform.folder, sysfs)
    (path,) = platform.folder.glob("measured-*.json")
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(BadInput, match=message):
        platform.read(subject, ROWS, BATCH, SETTINGS)


@pytest.mark.parametrize(
    ("device", "metric", "meter", "message"),
    [
        ("1080ti", "energy", "board:VDD_IN@jetson", "--device tx2 for --meter board, got 1080ti"),
        ("cpu", "latency", "board:jetson", "--device tx2 for --meter board, got cpu"),
        ("tx2", "energy", "board:jetson", "a rail and a place for --metric energy"),
        ("tx2", "latency", "board:VDD_IN@jetson", "a place alone for latency"),
        ("tx2", "energy", "board:VDD_IN@", "a rail and a place"),
        ("tx2", "energy", "board", "a rail and a place"),
        ("tx2", "energy", "board:VDD_IN@-oProxyCommand=x", "a rail and a place"),
        ("tx2", "energy", "board:VDD_IN@..", "a rail and a place"),
    ],
)
def test_mistakes_in_the_option(device: str, metric: str, meter: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        choose(device, metric, meter)


def test_a_folder_that_cannot_be_written(tmp_path: Path, subject: Subject) -> None:
    (tmp_path / "file").write_text("")
    platform = choose("tx2", "latency", f"board:{tmp_path}/file/")
    assert isinstance(platform, BoardPlatform)
    with pytest.raises(BadInput, match=r"a folder for the board's files, got .*file"):
        platform.read(subject, ROWS, BATCH, SETTINGS)


def test_each_list_and_rail_has_its_files(tmp_path: Path, subject: Subject) -> None:
    asked = [(rail, rows) for rail in ("", "VDD_IN@", "VDD_SYS_GPU@") for rows in (ROWS, ROWS[:1])]
    for _ in range(2):  # the second time they are there
        for rail, rows in asked:
            platform = choose("tx2", "energy" if rail else "latency", f"board:{rail}{tmp_path}/")
            assert isinstance(platform, BoardPlatform)
            with pytest.raises(MeterError):
                platform.read(subject, rows, BATCH, SETTINGS)
    assert len(list(tmp_path.glob("operations-*.json"))) == len(asked)

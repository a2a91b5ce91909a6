"""The command line as a person meets it: exit codes, one line for bad input, nothing written."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer

from bench.authors import skeleton
from bench.cli import app as cli
from bench.cli import options
from bench.run.runner import Finished
from bench.setup import workload
from bench.setup.request import Request
from methods import registry
from shared import platforms
from shared.cache import cache_dir
from shared.data import Dataset
from shared.data.files import FileSplit
from shared.errors import BadFile, BadInput
from shared.meters import probing
from tests.bench.conftest import Command
from tests.shared.meters.jetson.test_ina3221 import hwmon, iio, write
from tests.shared.meters.nvml.nvml_stub.fake import COUNTER, Board, FakeNvml

ROOT = Path(__file__).parents[3]


def bench(*arguments: str, cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {"BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment = os.environ | own | variables
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding=variables.get("PYTHONIOENCODING", "utf-8"),
        check=False,
    )


def without_seconds(path: Path) -> dict[str, Any]:
    """A record without seconds, and without the commit, which may move while the tests run."""
    record = json.loads(path.read_bytes())
    del record["environment"]["commit"], record["environment"]["dirty"]
    seconds = {name for name in record["cost"] if name.endswith("_s") or "_s_per_" in name}
    assert len(seconds) == 4
    return record | {"cost": {name: value for name, value in record["cost"].items() if name not in seconds}}


def test_help_needs_no_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bench", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported and not imported & {"torch", "numpy", "pandas", "matplotlib"}
    assert "run" in done.stdout


SERVERS = """
import multiprocessing, runpy, sys
sys.argv = ["bench", "networks"]
try:
    runpy.run_module("bench", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["bench.cli.app", "shared.errors"])
with context.Pool(1) as pool:
    for name in ("bench", "methods", "shared", "shared.errors"):
        print(pool.apply(eval, (f"repr(__import__('sys').modules.get({name!r}) or __import__({name!r}))",)))
"""
FOREIGN = {
    "modules": ("shared.py", "methods.py", "typer.py"),
    "packages": ("shared/__init__.py", "shared/errors.py", "methods/__init__.py", "typer/__init__.py"),
    "folders": ("shared/errors.py", "methods/registry.py", "bench/cli.py", "bench/__main__.py", "typer/x.py"),
}


@pytest.mark.parametrize("variables", [{}, {"PYTHONSAFEPATH": "1"}, {"PYTHONPATH": ""}, {"PYTHONPATH": ":"}], ids=str)
@pytest.mark.parametrize("kind", FOREIGN)
def test_own_files_of_the_same_names_do_no_harm(kind: str, variables: dict[str, str], tmp_path: Path) -> None:
    """Of a user, where the command is typed: neither in its process nor in those that runs are forked from."""
    for name in FOREIGN[kind]:
        if variables.get("PYTHONPATH") == ":" and "typer" in name:
            continue  # there the user asks for modules of the working directory; the suite's own alone are ours
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('a user's own file')\n")
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=plain | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "mobilenet" in python("-m", "bench", "networks").splitlines()
    *_, bench_, methods_, shared_, errors = python("-c", SERVERS).splitlines()
    for told, file in zip(
        (bench_, methods_, shared_, errors),
        ("bench/__init__.py", "methods/__init__.py", "shared/__init__.py", "shared/errors.py"),
        strict=True,
    ):
        assert str(ROOT / file) in told


def test_the_suite_runs_from_its_own_folder_and_leaves_a_scripts_path_alone(tmp_path: Path) -> None:
    """Where nothing is installed; and a script that imports the suite finds its own modules beside it."""
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    site = next(path for path in sys.path if path.endswith("site-packages"))
    run = f"import runpy, sys; sys.path += [{site!r}]; sys.argv = ['', 'networks']; runpy.run_module('bench.__main__')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", run], cwd=ROOT, env=plain, capture_output=True, text=True, check=False
    )
    assert "mobilenet" in done.stdout, done.stderr
    (tmp_path / "mine.py").write_text("import bench, methods.registry, shared.errors, other\nprint(other.x)\n")
    (tmp_path / "other.py").write_text("x = 'found'\n")
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, env=plain, capture_output=True, text=True, check=False
    )
    assert done.stdout == "found\n", done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--methods", "nope"),
        ("--device", "nope"),
        ("--network", "nope"),
        ("--dataset", "nope"),
        ("--budgets", "0.0001"),
        ("--budgets", "0"),
        ("--budgets", "abc"),
        ("--budgets", "2"),
        ("--budgets", "3.2ms"),
        ("--metric", "latency", "--budgets", "0.01J"),
        ("--metric", "seconds"),
        ("--metric", "seconds", "--budgets", "0.4"),
        ("--meter", "nope"),
        ("--meter", "nvmlx"),
        ("--device", "cpu", "--meter", "sim"),
        ("--device", "cpu", "--meter", "replay:"),
        ("--device", "cpu", "--meter", "clock"),
        ("--energy-model", "nope"),
        ("--seeds", "x"),
        ("--seeds", "1.5"),
        ("--protocol", "nope"),
        ("--data", "somewhere"),
        ("--jobs", "x"),
        ("--nope",),
    ],
)
def test_bad_arguments_exit_with_2_one_line_and_no_trace(
    arguments: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    code, _, error = command("run", "--protocol", "smoke", "--out", str(tmp_path / "runs"), *arguments)
    assert code == 2
    assert len(error.splitlines()) == 1, error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--jobs", "0"), "Invalid value for '--jobs': "),
        (("table",), "Missing argument "),
        (("run", "--nope"), "No such option: --nope"),
        (("nope",), "No such command 'nope'"),
        (("table", "."), "a file for the table, got the folder .; try lookup.json"),
    ],
)
def test_what_is_wrong_with_a_command_is_named(arguments: tuple[str, ...], words: str, command: Command) -> None:
    code, _, error = command(*arguments)
    assert code == 2 and words in error and len(error.splitlines()) == 1


def test_damaged_training_images_are_named_before_anything_starts(
    command: Command, cityscapes_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders, check = list[str](), FileSplit.check

    def watched(split: FileSplit, read: Callable[[int], None]) -> None:
        holders.extend(path.read_text() for path in (cache_dir() / "locks").glob("cpu.user-*.holder"))
        check(split, read)

    monkeypatch.setattr(FileSplit, "check", watched)
    root = tmp_path / "tree"
    shutil.copytree(cityscapes_tree, root)
    bad = root / "leftImg8bit/train/bremen/bremen_000004_000019_leftImg8bit.png"
    bad.write_bytes(bad.read_bytes()[:-2000])
    weights = tmp_path / "erfnet.pth"
    torch.save(workload.get("erfnet", "cityscapes").build().state_dict(), weights)
    which = ("--network", "erfnet", "--dataset", "cityscapes", "--data", str(root))
    code, told, error = command("dense", *which, "--weights", str(weights))
    assert code == 2 and len(error.splitlines()) == 1 and f"a whole image in {bad}, got OSError" in error
    assert told == f"reading all 25 images in {root} once, to find damaged files now\n"
    assert not (cache_dir() / "dense").exists()
    assert holders == [f"process {os.getpid()} (checking cityscapes)"]  # so nobody reads the processor meanwhile


def test_a_run_checks_its_files_first(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(dataset: Dataset, console: object) -> None:
        raise BadFile(f"whole images of {dataset.name}", "half of one", "fetching it again")

    monkeypatch.setattr(cli.say, "check_files", check)
    out = tmp_path / "runs"
    code, _, error = command("run", "--methods", "uniform", "--protocol", "smoke", "--out", str(out))
    assert code == 2 and error == "expected whole images of fashion-mnist, got half of one; try fetching it again\n"
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "work"),
    [
        (("plan", "--protocol", "smoke", "--methods", "uniform"), "bench.run.cost.estimate"),
        (("dense", "--weights", "FILE"), "bench.setup.dense.load"),
    ],
)
def test_what_computes_beside_a_run_holds_the_processor(
    arguments: tuple[str, ...], work: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no reading of another process is taken meanwhile."""
    holders = list[str]()

    def look(*_: object) -> None:
        holders.extend(path.read_text() for path in (cache_dir() / "locks").glob("cpu.user-*.holder"))
        raise BadInput("nothing", "enough", "seeing")

    torch.save(workload.get("mobilenet", "fashion-mnist").build().state_dict(), tmp_path / "FILE")
    monkeypatch.setattr(work, look)
    code, _, _ = command(*(str(tmp_path / "FILE") if part == "FILE" else part for part in arguments))
    assert code == 2 and len(holders) == 1 and holders[0].startswith(f"process {os.getpid()} (")
    assert not list((cache_dir() / "locks").glob("cpu.user-*"))


def test_bad_arguments_as_the_shell_sees_them(cache: Path, tmp_path: Path) -> None:
    done = bench("run", "--methods", "nope", "--out", str(tmp_path / "runs"), cache=cache)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "'nope'" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("out", ["file/below", "n" * 300, "a/" * 3000])
def test_an_output_folder_that_cannot_be_written_is_refused(out: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, error = command("run", "--protocol", "smoke", "--out", str(tmp_path / out))
    assert code == 2
    assert len(error.splitlines()) == 1 and "that can be written" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_pages_that_were_never_published_cannot_be_written_again(command: Command, tmp_path: Path) -> None:
    for form in ("markdown", "csv"):
        code, _, error = command("report", "--again", "--to", str(tmp_path / "none"), "--format", form)
        assert code == 2 and "pages that were published before for --again" in error
        assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("arguments", [("dense",), ("tune", "--protocol", "smoke"), ("report",)])
@pytest.mark.parametrize("to", ["file", "n" * 300])
def test_folders_are_checked_before_the_work(
    arguments: tuple[str, ...], to: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    code, out, error = command(*arguments, "--to", str(tmp_path / to))
    assert code == 2 and out == ""
    assert len(error.splitlines()) == 1 and error.startswith("expected --to to be a folder"), error


@pytest.mark.parametrize("name", ["run", "plan", "profile", "dense", "tune"])
def test_a_cache_that_cannot_be_written_is_refused(
    name: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.chdir(tmp_path)
    code, out, error = command(name)
    assert code == 2 and out == ""
    assert len(error.splitlines()) == 1 and "BENCH_CACHE=" in error, error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_run_and_plan_take_the_same_options() -> None:
    """`plan` with the arguments of `run` says what they would cost; every field of a request has an option."""
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    run, plan = (
        {one.name: (one.opts, one.default, one.required, one.help) for one in commands[name].params}
        for name in ("run", "plan")
    )
    assert run == plan and list(inspect.signature(cli.run).parameters) == list(inspect.signature(cli.plan_).parameters)
    assert {field.name: field.default for field in fields(Request)}.items() <= {
        name: option[1] for name, option in run.items()
    }.items()
    assert run.keys() - {field.name for field in fields(Request)} == {"executor", "out", "fresh", "jobs"}


def test_a_request_is_what_was_typed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Request]()

    def make(request: Request, *_: object, **__: object) -> None:
        asked.append(request)
        raise BadInput("nothing", "enough", "seeing")

    typed = {
        "methods": "uniform",
        "device": "tx2",
        "network": "alexnet",
        "dataset": "imagenet",
        "protocol": "standard",
        "budgets": "0.5,3.2ms",
        "seeds": "1,2",
        "data": "/somewhere",
        "metric": "latency",
        "meter": "sim",
        "energy_model": "bilinear+linear",
        "compute": "cuda:1",
    }
    words = [word for name, value in typed.items() for word in (f"--{name.replace('_', '-')}", value)]
    monkeypatch.setattr("bench.setup.plan.make", make)
    for name in ("run", "plan"):
        assert command(name, *words, "--compile")[0] == command(name)[0] == 2
    assert asked == [Request(**typed, compile=True), Request()] * 2


@pytest.mark.parametrize("name", ["run", "plan"])
def test_a_gpu_that_is_not_there_is_one_line(
    name: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    code, out, error = command(name, "--protocol", "smoke", "--compute", "cuda:0")
    assert code == 2 and out == "" and len(error.splitlines()) == 1
    assert "--compute cuda:0" in error and "; try " in error
    assert not list(tmp_path.iterdir())


def test_processes_share_no_gpu_unless_asked_to() -> None:
    assert options.Work().processes("cpu") == options.CORES
    assert options.Work().processes("cuda:1") == 1
    assert options.Work(jobs=3).processes("cuda:1") == 3


def test_options_as_the_simulator_needs_them(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    built = ("--meter", "sim", "--metric", "energy", "--compute", "cpu", "--executor", "local")
    arguments = ("plan", "--methods", "uniform", "--protocol", "smoke")
    code, out, error = command(*arguments, *built)
    assert code == 0 and "uniform-0.4-s0" in out, error
    for name in ("plan", "run"):
        code, out, error = command(name, *arguments[1:], "--executor", "ray")
        assert code == 2 and out == "" and len(error.splitlines()) == 1
        assert error.startswith("expected --executor local, got 'ray'; try ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_output_that_is_not_utf_8_ends_no_command(encoding: str, cache: Path, tmp_path: Path) -> None:
    """The first line has a ×, the line of a wrong budget repeats what was typed."""
    arguments = ("plan", "--methods", "uniform", "--protocol", "smoke")
    done = bench(*arguments, cache=cache, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 runs: 60 training iterations")
    done = bench(*arguments, "--budgets", "5 μJ–6", cache=cache, PYTHONIOENCODING=encoding)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("expected a positive budget") and "5 ?J?6" in done.stderr


@pytest.mark.parametrize("plain", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_skeleton_is_utf_8_whatever_the_locale(plain: dict[str, str], cache: Path, tmp_path: Path) -> None:
    done = bench("new-method", "my-own", "--to", str(tmp_path), cache=cache, **plain)
    assert done.returncode == 0, done.stderr
    place = tmp_path / "bench-my-own"
    texts = {path.name: path.read_bytes().decode("utf-8") for path in place.iterdir()}
    assert set(texts) == {"pyproject.toml", "bench_my_own.py"}
    assert tomllib.loads(texts["pyproject.toml"])["project"]["name"] == "bench-my-own"
    compile(texts["bench_my_own.py"], "bench_my_own.py", "exec")
    expected = skeleton.write("my-own", tmp_path / "again")
    assert {path.name: path.read_bytes() for path in expected} == {k: v.encode() for k, v in texts.items()}


def test_methods_lists_a_broken_one_with_a_note(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    points = [EntryPoint("guest", "no_such_package:Method", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    code, out, _ = command("methods")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert tuple(lines) == (*registry.BUILT_IN, "guest")
    assert "cannot be used" in lines["guest"] and "no_such_package" in lines["guest"]
    assert not any("cannot be used" in lines[name] for name in registry.BUILT_IN)


def test_lists(command: Command) -> None:
    assert {"ecc", "netadapt", "amc"} <= {line.split()[0] for line in command("methods")[1].splitlines()}
    assert command("networks")[1].split() == ["alexnet", "erfnet", "mobilenet", "resnet18"]
    assert command("datasets")[1].split() == ["fashion-mnist", "garment-scenes", "imagenet", "cityscapes"]


def nothing(root: Path) -> list[str]:
    return ["none   INA3221 rails: expected an INA3221 in", "none   RAPL package: expected a zone named package"]


def processor(root: Path) -> list[str]:
    zone = root / "sys/class/powercap/intel-rapl:0"
    write(zone, name="package-0", energy_uj=123456, max_energy_range_uj=262143328850)
    return [
        "cpu      energy   measured by rapl (processor package) on ",
        "found  RAPL package: package-0",
        "none   RAPL dram: expected a zone named dram",
    ]


def jetson(root: Path) -> list[str]:
    folder = iio(root / "sys", "0-0041/iio:device0", 0, "VDD_IN", 4321)
    iio(root / "sys", "0-0041/iio:device0", 1, "VDD_SYS_CPU", 539)
    (folder / "in_power1_input").unlink()
    return [
        "found  INA3221 VDD_IN: 4.321 W, rail VDD_IN (whole module)",
        "none   INA3221 VDD_SYS_CPU: expected a sensor",
    ]


def newer_jetson(root: Path) -> list[str]:
    hwmon(root / "sys", "1-0040/hwmon/hwmon3", 3, "VDD_IN", 2000)
    return ["found  INA3221 VDD_IN: 10.000 W"]


@pytest.mark.parametrize("set_up", [nothing, processor, jetson, newer_jetson])
@pytest.mark.parametrize("card", [True, False])
def test_devices_tells_what_was_found_and_how_to_get_the_rest(
    set_up: Callable[[Path], list[str]], card: bool, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_s, board = time.monotonic(), Board([(0.013 * k, 60.0 + k % 7) for k in range(2000)])
    board.lacking(*(() if card else ("nvmlInit",)), COUNTER, code=3 if card else 12)
    nvml = FakeNvml(board, lambda: time.monotonic() - began_s)
    monkeypatch.setattr(platforms, "choose", partial(platforms.choose, root=tmp_path))
    monkeypatch.setattr(probing, "probe", partial(probing.probe, tmp_path, nvml))
    expected = set_up(tmp_path)
    expected += ["1080ti   energy   simulated by simulator, ", "cpu      latency  measured by clock (wall time) on "]
    expected += ["found  clock wall time: monotonic"]
    if card:
        expected += [
            "found  NVML library: driver 580.95",
            "none   GTX 1080 Ti GPU-1080aaaa-0000 energy counter: expected",
        ]
        expected += ["found  GTX 1080 Ti GPU-1080aaaa-0000 power usage: update period "]
    else:
        expected += ["none   NVML library: expected initialisation from NVML, got LIBRARY_NOT_FOUND; try installing"]
    code, told, _ = command("devices")
    assert code == 0
    for line in expected:
        assert sum(found.startswith(line) for found in told.splitlines()) == 1, (line, told)
    assert all("; try " in line for line in told.splitlines() if line.startswith("none "))


def test_run_end_to_end_then_again_then_fresh(
    command: Command, short_runs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a report at first; no training the second time; the same networks, bit for bit, and the same
    records but for seconds, in a fresh store with a fresh cache.
    """
    arguments = ("run", "--protocol", "smoke", "--methods", "ecc,netadapt,amc,uniform", "--jobs", "2", "--out")
    code, printed, error = command(*arguments, str(tmp_path / "a"))
    assert code == 0, printed + error
    assert printed.startswith("1080ti: simulated")
    (page,) = (tmp_path / "a").glob("*.md")
    assert page.name == "mobilenet-fashion-mnist-1080ti-simulated-smoke.md" and "simulated" in page.read_text()
    records = {path: path.read_bytes() for path in (tmp_path / "a").rglob("record.json")}
    assert len(records) == 4

    code, printed, _ = command(*arguments, str(tmp_path / "a"))
    assert code == 0 and "4 of 4 runs are finished already" in printed
    assert all(path.read_bytes() == data for path, data in records.items())

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    assert command(*arguments, str(tmp_path / "b"))[0] == 0
    assert {path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("record.json")} == {
        path.relative_to(tmp_path / "a") for path in records
    }
    for path in records:
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert without_seconds(path) == without_seconds(other), path
        assert str(tmp_path) not in path.read_text()
    networks = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("network.safetensors")]
    assert len(networks) == 4
    for path in networks:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_a_miss_is_recorded_and_the_plan_goes_on(command: Command, short_runs: None, tmp_path: Path) -> None:
    """AMC leaves every layer a fifth of its channels, which is above this budget."""
    arguments = ("run", "--methods", "uniform,amc", "--protocol", "smoke", "--budgets", "0.15", "--jobs", "2")
    code, printed, error = command(*arguments, "--out", str(tmp_path / "runs"))
    assert code == 1 and error == "", error
    paths = (tmp_path / "runs").rglob("record.json")
    records = {record["method"]: record for record in (json.loads(path.read_bytes()) for path in paths)}
    assert {name: record["status"] for name, record in records.items()} == {"uniform": "ok", "amc": "miss"}
    assert records["uniform"]["reason"] is None and records["uniform"]["measures"] is not None
    reason = records["amc"]["reason"]
    assert reason and reason in printed
    (page,) = (tmp_path / "runs").glob("*.md")
    assert reason in page.read_text()
    code, printed, _ = command("plan", *arguments[1:], "--seeds", "0,1", "--out", str(tmp_path / "runs"))
    assert code == 0 and "2 of 4 runs are finished already" in printed  # a miss is finished, too
    assert "uniform-0.15-s1" in printed and "uniform-0.15-s0" not in printed
    typed = "python -m bench run --methods uniform,amc --protocol smoke --budgets 0.15"
    assert records["amc"]["environment"]["command"] == typed


def test_a_folder_s_name_is_no_markup(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rich's eyes "[/x]" would close what nobody opened."""
    monkeypatch.chdir(tmp_path)
    out = "runs[/x]"
    monkeypatch.setattr("bench.report.render", lambda records, folder: [folder / "page.md"])
    monkeypatch.setattr("bench.report.summary_table", lambda records: f"{len(records)} records")
    records: list[Any] = [SimpleNamespace(status="ok")]
    monkeypatch.setattr(
        "bench.run.runner.run", lambda plan, store, **_: Finished(records, {plan.jobs[0]: f"{store.root} is full"})
    )
    code, told, error = command("run", "--methods", "uniform", "--protocol", "smoke", "--out", out)
    assert (code, error) == (1, "")
    assert f"report: {out}/page.md\n" in told and f"is still open: {tmp_path / out} is full" in told


def test_a_plan_of_open_runs_alone_says_why_and_makes_no_report(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bench.run.runner.run", lambda plan, *_, **__: Finished([], dict.fromkeys(plan.jobs, "no memory"))
    )
    options = ("--protocol", "smoke", "--out", str(tmp_path / "runs"))
    code, told, error = command("run", "--methods", "uniform,magnitude", *options)
    assert (code, error) == (1, "") and "report:" not in told
    assert told.count("is still open: no memory; the same command tries it again\n") == 2
    code, _, error = command("report", "--out", str(tmp_path / "runs"))
    assert code == 2 and "expected run folders with a record.json" in error


def test_an_interrupt_says_that_finished_runs_are_kept(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> tuple[str, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr("shared.data.names", interrupt)
    code, _, errors = command("datasets")
    assert code == 130
    assert len(errors.splitlines()) == 1 and "finished runs are kept" in errors


def test_a_lookup_table_of_a_platform(command: Command, tmp_path: Path) -> None:
    code, printed, error = command("table", str(tmp_path / "table.json"), "--device", "tx2")
    assert code == 0 and printed.startswith("tx2: simulated"), error
    assert "readings of single operations" in printed
    assert json.loads((tmp_path / "table.json").read_text())["platform"] == "tx2"
    code, _, error = command("table", "/proc/nowhere/table.json")
    assert code == 2 and error.count("\n") == 1


def test_the_page_of_energy_models_is_checked_like_the_others(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.report.check", lambda folder: [])
    shutil.copytree(ROOT / "reports", tmp_path / "reports")
    check = ("report", "--check", "--to", str(tmp_path / "reports"))
    assert command(*check)[0] == 0
    page = tmp_path / "reports/energy-models.md"
    page.write_text(page.read_text().replace("%", "per cent", 1))
    code, printed, _ = command(*check)
    assert code == 1 and "energy-models.md: not what records/energy-models.json makes" in printed


def test_fit_writes_the_study_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.cli import study
    from bench.studies import energy_models as energy_study

    asked = []
    monkeypatch.setattr(energy_study, "write", lambda folder, *, jobs, say: asked.append((folder, jobs)) or folder)
    study.fit(tmp_path, 3)
    assert asked == [(tmp_path, 3)]


def test_profile_prints_the_errors_near_budgets(command: Command) -> None:
    code, printed, error = command("profile", "--protocol", "smoke", "--budgets", "0.4,0.3")
    assert code == 0, error
    near = [line for line in printed.splitlines() if line.startswith("near ")]
    assert [line.split(":")[0] for line in near] == ["near 0.4", "near 0.3"]
    assert all("mean error" in line and "1,000 networks" in line for line in near)
    code, printed, error = command("profile", "--protocol", "smoke", "--budgets", "0.4,much")
    assert code == 2 and printed == "" and len(error.splitlines()) == 1
    code, _, error = command("profile", "--protocol", "smoke", "--budgets", "0.01")
    assert code == 2 and "reachable range" in error


def test_profile_shows_where_the_joules_go(command: Command, tmp_path: Path) -> None:
    asked = ("profile", "--protocol", "smoke", "--device", "eyeriss", "--layers", "--out", str(tmp_path))
    code, printed, error = command(*asked)
    assert (code, error) == (0, "")
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    shares = {row[0].strip(): float(row[2]) for row in rows[2:]}
    assert shares.pop("all layers") == 100.0 and sum(shares.values()) == pytest.approx(100, abs=1.5)
    (figure,) = tmp_path.glob("*.svg")
    assert figure.name == "mobilenet-fashion-mnist-eyeriss-energy-batch-16-layers.svg"
    assert f"figure: {figure}" in printed
    code, _, error = command("profile", "--protocol", "smoke", "--device", "cpu", "--metric", "latency", "--layers")
    assert code == 2 and "expected a simulated or counted platform for --layers, got a measured one" in error


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--device", "eyeriss", "--bits", "3.5"), "Invalid value for '--bits'"),
        (("--device", "eyeriss", "--bits", "0"), "expected --bits from 1 to 16 for eyeriss, got 0"),
        (("--device", "eyeriss", "--inference-batch", "0"), "expected --inference-batch of 1 or more images, got 0"),
        (
            ("--bits", "8"),
            "expected --bits with --device eyeriss or --metric size, got --device 1080ti --metric energy",
        ),
        (("--device", "eyeriss", "--budgets", "0.001"), "expected a budget within the reachable range"),
        (("--metric", "size", "--budgets", "3mJ"), "expected a budget for --metric size as a fraction or in B, kB"),
    ],
)
def test_bits_and_images_that_cannot_be_are_refused(command: Command, asked: tuple[str, ...], message: str) -> None:
    code, printed, error = command("plan", "--protocol", "smoke", *asked)
    assert code == 2 and printed == "" and error.count("\n") == 1 and message in error


def test_bits_and_an_inference_batch_name_a_page_of_their_own(command: Command, tmp_path: Path) -> None:
    asked = ("run", "--protocol", "smoke", "--methods", "uniform", "--device", "eyeriss", "--bits", "8")
    code, printed, _ = command(*asked, "--inference-batch", "1", "--out", str(tmp_path))
    assert code == 0 and "mobilenet-fashion-mnist-eyeriss-8bit-simulated-batch1-smoke.md" in printed
    page = (tmp_path / "mobilenet-fashion-mnist-eyeriss-8bit-simulated-batch1-smoke.md").read_text()
    assert "--bits 8 --inference-batch 1" in page

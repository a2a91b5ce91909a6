"""A file of the zoo that can't be used is named with its error, and the other networks work on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.setup import workload
from shared import networks
from shared.errors import BadInput
from shared.networks import build, zoo
from shared.networks.pretrained import load_checkpoint

ROOT = Path(__file__).parents[3]
CLASS = "class Own:\n    def forward(self, images): return images\n"
BROKEN = {
    "syntax": ("def f(:\n", "SyntaxError"),
    "tab": ("if True:\n\tx = 1\n        y = 2\n", "TabError"),
    "null byte": ("x = 1\0\n", "null byte"),
    "import": ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
    "name": ("from torch import no_such_name\n", "ImportError: cannot import name 'no_such_name'"),
    "raises": ("1 / 0\n", "ZeroDivisionError: division by zero"),
    "two lines": ("raise RuntimeError('one\\ntwo')\n", "RuntimeError: one two"),
    "exits": ("import sys; sys.exit('bye')\n", "SystemExit: bye"),
    "recursion": ("def f(): f()\nf()\n", "RecursionError"),
    "empty": ("", "no NETWORK"),
    "other name": (CLASS + "Network = Own\n", "no NETWORK"),
    "none": ("NETWORK = None\n", "no NETWORK"),
    "instance": (CLASS + "NETWORK = Own()\n", "NETWORK = <"),
    "no module": ("class Own: pass\nNETWORK = Own\n", "NETWORK = <class"),
    "list": (CLASS + "Own.trained_on = ['fashion-mnist']\nNETWORK = Own\n", "['fashion-mnist']"),
    "number": (CLASS + "Own.trained_on = {'fashion-mnist': 0.5}\nNETWORK = Own\n", "{'fashion-mnist': 0.5}"),
    "pixels": (CLASS + "Own.scaled_pixels = (0.5, 0.5)\nNETWORK = Own\n", "(0.5, 0.5)"),
}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A file of the zoo that can't be used, and what is told of it. Its id comes before all others."""
    code, told = BROKEN[request.param]
    (tmp_path / "aa_broken.py").write_text(code)
    monkeypatch.setattr(zoo, "__path__", [*zoo.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"{zoo.__name__}.aa_broken", raising=False)
    monkeypatch.delattr(zoo, "aa_broken", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path / "aa_broken.py", told


@pytest.mark.parametrize(
    "ask",
    [
        lambda: build("aa_broken"),
        lambda: networks.trained_on("aa_broken"),
        lambda: networks.scaled_pixels("aa_broken", "fashion-mnist"),
        lambda: networks.published_weights("aa_broken", "fashion-mnist"),
        lambda: workload.get("aa_broken", "fashion-mnist"),
    ],
)
def test_a_file_that_can_t_be_used_is_named(ask: Callable[[], Any], broken: tuple[Path, str]) -> None:
    path, told = broken
    with pytest.raises(BadInput) as caught:
        ask()
    (line,) = str(caught.value).splitlines()
    assert str(path) in line and told in line and len(line) < 500 + len(str(path))


def test_others_work_on(broken: tuple[Path, str], tmp_path: Path) -> None:
    assert networks.names()[0] == "aa_broken"
    with torch.device("meta"):
        assert isinstance(workload.get("mobilenet", "fashion-mnist").build(), nn.Module)
    with pytest.raises(BadInput, match=r"a network that is made for garment-scenes \(erfnet\), got 'mobilenet'"):
        workload.get("mobilenet", "garment-scenes")
    with pytest.raises(BadInput, match="a network out of aa_broken, alexnet"):
        workload.get("nosuch", "fashion-mnist")
    other = build("resnet18", width_multiplier=0.125)
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(BadInput, match="got one of resnet18"):
        load_checkpoint(build("mobilenet", width_multiplier=0.25), tmp_path / "weights.pth")


def test_an_unknown_name_is_no_file() -> None:
    with pytest.raises(BadInput, match="expected a network, got 'nosuch'; try its id"):
        networks.trained_on("nosuch")


LISTED = """
import sys
from shared.networks import zoo
zoo.__path__.append(sys.argv[1])
from bench.cli.app import main
for words in (["networks"], ["profile", "--network", "aa_broken"], ["profile", "--network", "nosuch"]):
    sys.argv = ["bench", *words]
    print(main(), flush=True)
"""


def test_the_command_line_lists_and_names_it(tmp_path: Path) -> None:
    (tmp_path / "aa_broken.py").write_text("def f(:\n")
    done = subprocess.run(
        [sys.executable, "-c", LISTED, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"BENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *others, code = done.stdout.splitlines()[:-2]
    assert first.startswith("aa_broken ") and f"cannot be used: expected a network in {tmp_path}" in first
    assert [*others, code] == ["alexnet", "erfnet", "mobilenet", "resnet18", "0"]
    assert done.stdout.splitlines()[-2:] == ["2", "2"]
    asked, unknown = done.stderr.splitlines()
    assert f"expected a network in {tmp_path / 'aa_broken.py'}, got SyntaxError: " in asked
    assert "expected a network out of aa_broken, alexnet" in unknown and "got 'nosuch'" in unknown

"""Networks by file, module and package: what they are built with, and the form they are brought into."""

from __future__ import annotations

import copy
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shared import networks
from shared.errors import BadInput
from shared.networks import build, foreign, structure

CODE = '''
import beside
import torch
from torch import nn

class Net(nn.Module):
    """Two heads in training, a dict of two outputs, dropout and an argument of its own."""
    def __init__(self, num_classes=7, in_channels=3, width=6):
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout2d(0.5)
        self.second = nn.Conv2d(width, beside.WIDTH, 3, padding=1)
        self.fc = nn.Linear(beside.WIDTH, num_classes)
        self.aux = nn.Linear(width, num_classes)

    def forward(self, images, features=False):
        maps = self.drop(torch.relu(self.norm(self.first(images))))
        out = self.fc(torch.nn.functional.dropout(self.second(maps), 0.5, self.training).mean((2, 3)))
        if features:
            return maps
        return {"out": out, "aux": self.aux(maps.mean((2, 3)))} if self.training else {"out": out, "maps": maps}

class Colours(Net):
    def __init__(self):
        super().__init__(num_classes=4, in_channels=3)

def hooked():
    net = Net()
    net.second.register_forward_hook(lambda layer, inputs, maps: maps + maps.abs().mean(1, keepdim=True))
    return net

class Unnamed(Net):
    def forward(self, images):
        return {"logits": super().forward(images)["out"]}

def frozen():
    net = Net()
    net.second.requires_grad_(False)
    return net

class Large(Net):
    def __init__(self, in_channels=3):
        super().__init__(in_channels=in_channels)
        self.second = nn.Conv2d(6, beside.WIDTH, 9)

class LargeColours(Large):
    def __init__(self):
        super().__init__()

class Gated(Net):
    """A gate of one channel that another layer reads."""
    def __init__(self):
        super().__init__()
        self.gate, self.third = nn.Conv2d(3, 1, 1), nn.Conv2d(1, beside.WIDTH, 1)

    def forward(self, images):
        gate = self.gate(images)
        return self.fc((self.second(self.norm(self.first(images)) * gate) + self.third(gate)).mean((2, 3)))

def bare():
    return nn.Sequential(nn.Flatten(), nn.Linear(75, 5))

class Aliased(Net):
    def forward(self, images):
        maps = self.first(images)
        kept = maps
        maps += self.norm(maps)
        return self.fc(self.second(kept).mean((2, 3)))

class Functional(Net):
    def forward(self, images):
        n = self.norm
        maps = torch.nn.functional.batch_norm(self.first(images), n.running_mean, n.running_var, training=self.training)
        return self.fc(self.second(maps).mean((2, 3)))

ready, number = Net(num_classes=3), 5

def broken():
    raise RuntimeError("no such\\nluck")
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 9\n")
    (tmp_path / "nets.py").write_text(CODE)
    return tmp_path / "nets.py"


def made(file: Path, name: str = "Net", channels: int = 3, **options: Any) -> nn.Module:
    return build(f"{file}:{name}", in_channels=channels, input_size=5, **options)


def test_a_file_s_class_gets_the_sizes_that_it_names_and_its_own_arguments(file: Path) -> None:
    net = made(file, num_classes=8, width=4)
    table = structure(net)
    assert table.position_bounds == (3, 4, 9, 8)
    assert net.config == {
        **{"name": "nets.py:Net", "widths": None, "num_classes": 8, "in_channels": 3, "width_multiplier": 1.0},
        **{"input_size": [5, 5], "width": 4, "source": foreign.find(f"{file}:Net").source},
    }
    assert str(file.parent) not in str(net.config)


def test_it_is_taken_as_it_is_in_evaluation_mode(file: Path) -> None:
    net = made(file)
    assert "aux.weight" not in net.state_dict() and set(net.state_dict()) >= {"first.weight", "norm.running_mean"}
    images = torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        for twin in (net, copy.deepcopy(net)):
            twin.train()
            assert torch.equal(twin(images), twin(images))  # no dropout; batch norm by the batch in both
            assert twin(images).shape == (4, 7)
    before = net.norm.running_mean.clone()
    net.train()(images)
    assert not torch.equal(net.norm.running_mean, before)
    clone = copy.deepcopy(net)
    assert clone.config == net.config and clone.input_shape == net.input_shape == (3, 5, 5)


def test_a_grey_image_stands_for_all_colours_where_a_network_wants_them(file: Path) -> None:
    net, colours = made(file, "Colours", channels=1).eval(), made(file, "Colours").eval()
    colours.load_state_dict(net.state_dict())
    images = torch.randn(2, 1, 5, 5)
    with torch.no_grad():
        assert torch.equal(net(images), colours(images.expand(-1, 3, -1, -1)))
    assert structure(net).image_channels == 1
    assert structure(net).macs((6, 9)) == structure(colours).macs((6, 9))
    grey = made(file, channels=1)
    assert structure(grey).macs((6, 9)) < structure(net).macs((6, 9))  # this one takes a grey image


@pytest.mark.parametrize("name", ["Large", "LargeColours"])
def test_images_that_are_too_small_are_told_where_they_are_grey(name: str, file: Path) -> None:
    with pytest.raises(BadInput, match=r"at 'second', got .*[Kk]ernel size"):
        made(file, name, channels=1)


def test_a_function_and_a_module_are_networks_too(file: Path) -> None:
    net = made(file, "ready")
    assert structure(net).outputs == 3
    with torch.no_grad():
        net.fc.bias.fill_(5)
    assert made(file, "ready").fc.bias.max() < 5  # a copy each time
    assert structure(build("torchvision.models:resnet18", in_channels=3, input_size=32)).outputs == 1000


def test_networks_of_packages_have_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("their-net", "torchvision.models:resnet18", networks.GROUP)
    points = lambda group: (entry,) if group == networks.GROUP else ()  # noqa: E731
    monkeypatch.setattr(networks, "entry_points", points)
    monkeypatch.setattr(foreign, "entry_points", points)
    foreign.find.cache_clear()
    assert "their-net" in networks.names()
    net = build("their-net", in_channels=3, input_size=32, num_classes=4)
    assert structure(net).outputs == 4 and net.config["name"] == "their-net"
    foreign.find.cache_clear()


def test_another_file_of_the_name_is_refused(file: Path) -> None:
    config = made(file).config
    foreign.find.cache_clear()
    file.write_text(CODE + "\n# changed\n")
    with pytest.raises(BadInput, match=r"nets.py:Net of source .*the file that it was made from"):
        build(**{**config, "name": f"{file}:Net"})
    foreign.find.cache_clear()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "module 'bench_network_.*' has no attribute 'nothing'"),
        ("number", "a class, a function or a module as .*int"),
        ("broken", r"nets.py:broken with \(\), got no such luck \(in nets.py, line"),
        ("Net.forward", "missing 2 required positional"),
        ("Aliased", "a forward pass that torch.fx traces as it is, got a difference"),
        ("Functional", "batch norm as a layer"),
        ("Unnamed", "a dict with the entry 'out', got 'logits'"),
        ("frozen", "parameters that train, got 'second.weight' frozen"),
    ],
)
def test_what_is_no_network_is_one_line(name: str, words: str, file: Path) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        made(file, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.py:Net", "a file missing.py, got no file"),
        ("no.such.package:net", "No module named 'no'"),
        ("torchvision.models:", "its id, FILE.py:NAME or package.module:NAME"),
        (":net", "its id, FILE.py:NAME or package.module:NAME"),
    ],
)
def test_what_is_not_there_is_one_line(name: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        build(name, in_channels=3, input_size=5)


def test_names_that_are_no_utf_8(file: Path) -> None:
    odd = os.fsdecode(b"net\xff")
    folder = file.parent / odd
    folder.mkdir()
    for name in ("beside.py", "nets.py"):
        (folder / name).write_text((file.parent / name).read_text())
    assert structure(made(folder / "nets.py")).outputs == 7
    (folder / "nets.py").rename(folder / f"{odd}.py")
    with pytest.raises(BadInput, match=r"a file with a name in UTF-8, got .*udcff"):
        made(folder / f"{odd}.py")


def test_arguments_that_it_does_not_take_are_named(file: Path) -> None:
    with pytest.raises(BadInput, match=r"unexpected keyword argument 'depth'.*--network-arg"):
        made(file, depth=3)
    with pytest.raises(BadInput, match="to take a width multiplier"):
        made(file, width_multiplier=0.5)
    with pytest.raises(BadInput, match="no in_channels and no input_size"):
        build(f"{file}:Net")


def test_what_a_trace_can_t_see_shows_when_it_is_cut(file: Path) -> None:
    foreign.check(made(file))
    with pytest.raises(BadInput, match="a cut network that computes what the masked one does"):
        foreign.check(made(file, "hooked"))
    with pytest.raises(BadInput, match="units that stay apart, got 3 units, and 2 where each has one channel"):
        foreign.check(made(file, "Gated"))
    with pytest.raises(BadInput, match="a network with channels that can be removed, got none"):
        foreign.check(made(file, "bare"))


def test_files_that_import_others_of_one_name_keep_theirs_apart(tmp_path: Path) -> None:
    for folder, width in (("a", 8), ("b", 16)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "blocks.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / folder / "own.py").write_text(
            "import blocks\nfrom torch import nn\n"
            "net = nn.Sequential(nn.Conv2d(3, blocks.WIDTH, 3), nn.Flatten(), nn.Linear(9 * blocks.WIDTH, 4))\n"
        )
    widths = [
        structure(build(f"{tmp_path}/{folder}/own.py:net", in_channels=3, input_size=5)).upper_bounds for folder in "ab"
    ]
    assert widths == [(8,), (16,)]


def test_modules_of_two_files_have_two_sources(tmp_path: Path) -> None:
    sources = set()
    for width in (8, 16):
        path = tmp_path / f"own{width}.py"
        path.write_text(
            f"from torch import nn\nnet = nn.Sequential(nn.Conv2d(3, {width}, 3), nn.Conv2d({width}, 4, 3))\n"
        )
        sources.add(foreign.find(f"{path}:net").source)
    assert len(sources) == 2

"""A board's runner builds from an operation list what the network is, and gets along with Python 3.6."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shared import networks
from shared.board import runner
from shared.board.exchange import operation_list
from shared.board.wiring import wired
from shared.errors import BadInput
from shared.networks.operations import Channels

BUILDS: dict[str, dict[str, Any]] = {
    "mobilenet": {"width_multiplier": 0.25, "input_size": 28, "in_channels": 1, "num_classes": 10},
    "alexnet": {"width_multiplier": 0.125, "input_size": (127, 95), "num_classes": 10},
    "erfnet": {"input_size": (32, 64), "num_classes": 5},
    "resnet18": {"width_multiplier": 0.25, "input_size": (40, 56), "num_classes": 10},
}
SILENT = (nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten)


class Branched(nn.Module):
    """Residual blocks with and without a convolution in the shortcut, a dense block, pooling with padding, bilinear
    upsampling, a sum of a tensor with itself, a ReLU6 beside another reader."""

    def __init__(self, widths: tuple[int, ...] = (6, 9, 5)) -> None:
        super().__init__()
        first, second, inner = widths
        self.input_shape = (3, 23, 17)
        self.stem = nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.BatchNorm2d(first)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.shrink = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.shrink_norm = nn.BatchNorm2d(second)
        self.keep = nn.Conv2d(second, second, 3, padding=1)
        self.shortcut = nn.Conv2d(first, second, 1, stride=2)
        self.block = nn.Conv2d(second, second, 3, padding=1)
        self.block_norm = nn.BatchNorm2d(second)
        self.grow = nn.Conv2d(second, 4, 3, padding=1)
        self.wide = nn.Conv2d(second + 4, inner, 3, padding=2, dilation=2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.fc = nn.Linear(2 * inner, 7)
        self.relu, self.relu6 = nn.ReLU(), nn.ReLU6()

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem_norm(self.stem(images))))
        inner = self.keep(self.relu(self.shrink_norm(self.shrink(x))))
        x = self.relu(inner + self.shortcut(x))
        x = self.relu(self.block_norm(self.block(x)) + x)
        x = self.wide(torch.cat([x, self.grow(x)], 1))
        x = self.up(x)
        x = x + x
        x = torch.cat([x, self.relu6(x)], 1)
        return self.fc(x.mean([2, 3]))


def built(model: nn.Module, positions: Any, batch: int) -> tuple[runner.Network, dict[str, Any]]:
    """The runner's network for the model's structure at one row of positions, and its document."""
    document = operation_list(networks.structure(model).operations, [positions], batch=batch)
    return runner.Network(document, 0, "cpu"), document


class Seen(NamedTuple):
    """What a layer is and has done: its class, shapes, and settings by name, each for both sides."""

    kind: str
    source: tuple[int, ...]
    output: tuple[int, ...]
    weight: Any  # its shape, None without one
    settings: dict[str, Any]


def settings_of(layer: nn.Module) -> dict[str, Any]:
    """Kernel, stride, paddings, dilation and so on, as far as the layer has them."""
    names = ("kernel_size", "stride", "padding", "dilation", "output_padding", "groups", "ceil_mode", "padding_mode")
    found = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    return {name: (value, value) if isinstance(value, int) else tuple(value) for name, value in found.items()}


def launched(model: Any, layers: list[nn.Module], images: Tensor) -> list[Seen]:
    """Each layer that works, in order of execution."""
    seen: list[Seen] = []

    def note(layer: nn.Module, given: Any, output: Tensor) -> None:
        kind = type(layer).__name__
        weight = getattr(layer, "weight", None)
        source = tuple(given[0].shape) if kind != "Linear" else tuple(given[0].flatten(1).shape)
        shape = None if weight is None else tuple(weight.shape)
        seen.append(Seen(kind, source, tuple(output.shape), shape, settings_of(layer)))

    handles = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return seen


def counted(seen: list[Seen], biases: int) -> tuple[int, int]:
    """Multiply-adds of the batch and parameters, from concrete tensors alone."""
    macs = parameters = 0
    for kind, source, output, weight, _ in seen:
        size = 0 if weight is None else torch.Size(weight).numel()
        parameters += 2 * size if kind == "BatchNorm2d" else size
        if kind in ("Conv2d", "Linear"):
            macs += torch.Size(output).numel() * size // weight[0]
        if kind == "ConvTranspose2d":
            macs += torch.Size(source).numel() * size // weight[0]
    return macs, parameters + biases


def conv_biases(layers: list[nn.Module]) -> int:
    """Entries of all biases but those of batch norms."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return sum(layer.bias.numel() for layer in layers if isinstance(layer, kinds) and layer.bias is not None)


@pytest.mark.parametrize("name", BUILDS)
@settings(max_examples=5, phases=[Phase.generate])  # a network is too slow to shrink over
@given(data=st.data())
def test_the_same_layers_run_at_any_widths(name: str, data: st.DataObject) -> None:
    """Dense structure and widths alone against the module that is built at those widths."""
    dense = networks.build(name, **BUILDS[name])
    structure = networks.structure(dense)
    widths = [data.draw(st.integers(1, bound)) for bound in structure.upper_bounds]
    small = networks.build(name, widths=widths, **BUILDS[name]).eval()
    network, document = built(dense, structure.positions(widths), batch=2)
    images = torch.randn(2, *small.input_shape)
    leaves = [layer for layer in small.modules() if not list(layer.children())]
    got_layers = [layer for layer in network.layers if isinstance(layer, nn.Module)]
    expected = launched(small, [layer for layer in leaves if not isinstance(layer, SILENT)], images)
    got = launched(network, got_layers, images)
    assert got == expected and len(got) > 20 - 5 * (name == "alexnet")
    macs, parameters = counted(got, conv_biases(got_layers))
    assert macs == 2 * int(structure.macs(widths)) and parameters == sum(p.numel() for p in small.parameters())
    assert runner.build_callable(document, 2)().shape == small(images).shape


@pytest.mark.parametrize("name", [*BUILDS, "branched"])
def test_with_the_networks_own_weights_it_computes_the_same(name: str) -> None:
    """Every operation is the module's own and reads what it should: with weights and eps copied, outputs agree."""
    torch.manual_seed(0)
    model = (Branched() if name == "branched" else networks.build(name, **BUILDS[name])).eval()
    structure = networks.structure(model)
    network, _ = built(model, structure.position_bounds, batch=2)
    for operation, layer in zip(structure.operations, network.layers, strict=True):
        if operation.module is None:
            continue
        original = model.get_submodule(operation.module)
        layer.load_state_dict(original.state_dict())
        if isinstance(original, nn.BatchNorm2d):
            nn.init.uniform_(original.running_mean)
            layer.running_mean.copy_(original.running_mean)
            layer.eps = original.eps
    for layer in (model, *network.layers):
        if isinstance(layer, nn.Module):
            layer.double()  # hundreds of layers magnify what float32 rounds off
    images = torch.randn(2, *model.input_shape, dtype=torch.float64)
    before = images.clone()
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(images))
    assert torch.equal(images, before)


class Alone(nn.Module):
    """One layer, or one call of a function, behind an image of this size."""

    def __init__(self, layer: Callable[[Tensor], Tensor], size: tuple[int, int]) -> None:
        super().__init__()
        self.input_shape = (4, *size)
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


def agree(layer: Callable[[Tensor], Tensor], size: tuple[int, int]) -> None:
    """The board's layer computes what this one does."""
    model = Alone(layer, size).eval()
    network, _ = built(model, networks.structure(model).position_bounds, batch=2)
    if isinstance(layer, nn.Module):
        network.layers[0].load_state_dict(layer.state_dict())
    images = 4 * torch.randn(2, 4, *size)
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(images))


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@given(
    kernel=pairs(1, 4),
    stride=pairs(1, 3),
    padding=pairs(0, 3),
    dilation=pairs(1, 3),
    extra=pairs(0, 2),
    kind=st.sampled_from([nn.Conv2d, "depthwise", nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d]),
    bias=st.booleans(),
)
def test_a_layer_with_a_kernel_is_the_same_on_a_board(
    kernel: Any, stride: Any, padding: Any, dilation: Any, extra: Any, kind: Any, bias: bool
) -> None:
    """Torch's own layer is the oracle, at sizes from which no other choice of settings can be told."""
    pooled = tuple(min(pad, taps // 2) for pad, taps in zip(padding, kernel, strict=True))  # as torch demands it
    less = tuple(min(out, step - 1) for out, step in zip(extra, stride, strict=True))
    layers: dict[Any, Callable[[], nn.Module]] = {
        nn.Conv2d: lambda: nn.Conv2d(4, 5, kernel, stride, padding, dilation, bias=bias),
        "depthwise": lambda: nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups=4, bias=bias),
        nn.ConvTranspose2d: lambda: nn.ConvTranspose2d(4, 5, kernel, stride, padding, less, 1, bias, dilation),
        nn.MaxPool2d: lambda: nn.MaxPool2d(kernel, stride, pooled, dilation),
        nn.AvgPool2d: lambda: nn.AvgPool2d(kernel, stride, pooled),
    }
    agree(layers[kind](), (13, 11))


@pytest.mark.parametrize(
    "layer",
    [
        nn.ReLU(),
        nn.ReLU6(),
        F.relu6,
        nn.Conv2d(4, 3, (3, 5), padding="same", dilation=(3, 1)),
        nn.Conv2d(4, 3, (3, 5), padding="valid"),
        nn.AdaptiveAvgPool2d((4, 3)),
        nn.AdaptiveAvgPool2d((11, 20)),
        nn.AdaptiveMaxPool2d((5, 1)),
        nn.AvgPool2d(3, stride=2, padding=0, count_include_pad=False),
        nn.Upsample(scale_factor=2),
        nn.Upsample(scale_factor=(2.5, 3), mode="bilinear"),
        nn.Upsample(size=(17, 23), mode="bilinear", align_corners=True),
        nn.Upsample(scale_factor=1.3, mode="bilinear", recompute_scale_factor=True),
        lambda images: F.interpolate(images, (5, 31)),
        lambda images: F.interpolate(images, None, 2, "bilinear", False),
        lambda images: F.interpolate(images, size=(5, 31), mode="bilinear", align_corners=True),
    ],
    ids=lambda layer: getattr(layer, "__name__", str(layer)),
)
def test_other_layers_are_the_same_on_a_board(layer: Callable[[Tensor], Tensor]) -> None:
    agree(layer, (10, 9))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 3, (3, 4), padding="same"),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(3, padding=1, count_include_pad=False),
        nn.AvgPool2d(3, divisor_override=5),
        nn.Upsample(scale_factor=1.3, mode="bilinear"),
        nn.Upsample(scale_factor=2, mode="bicubic"),
        lambda images: F.interpolate(images, size=(5, 4), mode="bilinear", antialias=True),
    ],
    ids=lambda layer: getattr(layer, "__name__", str(layer)),
)
def test_what_a_list_cannot_say_has_a_price_and_is_refused_on_boards(layer: Callable[[Tensor], Tensor]) -> None:
    (operation,) = networks.structure(Alone(layer, (9, 9))).operations
    assert operation.variant == "other"
    with pytest.raises(BadInput, match=f"of '{operation.name}' as a list has them, got another {operation.kind}"):
        wired((operation,))


def test_tensors_are_let_go_and_generators_left_alone() -> None:
    """A branch's source lives as long as it is read; only sole readers work in place."""
    model = Branched().eval()
    state = torch.get_rng_state()
    network, document = built(model, networks.structure(model).position_bounds, batch=2)
    runner.build_callable(document, 2)()
    assert torch.equal(torch.get_rng_state(), state)
    done = [source for _, _, gone in network._steps for source in gone]
    assert sorted(done) == list(range(len(network.layers)))  # each tensor but the last, once
    inplace = [layer.inplace for layer in network.layers if isinstance(layer, nn.ReLU | nn.ReLU6)]
    assert inplace == [True] * 4 + [False]  # the last one reads what is concatenated too
    outputs = [runner.build_callable(document, 2)() for _ in range(2)]
    assert torch.equal(*outputs) and outputs[0].std() > 0.01 and torch.isfinite(outputs[0]).all()


def test_a_list_that_says_too_little_is_refused() -> None:
    first, second, *rest = networks.structure(Branched()).operations
    with pytest.raises(BadInput, match="a tensor that 'stem_norm' can read, got none"):
        wired((first, replace(second, inputs=Channels(None, 99)), *rest))
    with pytest.raises(BadInput, match=r"the output size of 'stem' by its kernel, got \(23, 17\) to \(40, 9\)"):
        wired((replace(first, output_size=(40, 9)), second, *rest))
    cat = next(index for index, operation in enumerate(rest) if operation.kind == "cat")
    wider = replace(rest[cat], inputs=Channels(None, 500), outputs=Channels(None, 500))
    with pytest.raises(BadInput, match="tensors that 'cat' can join"):
        wired((first, second, *rest[:cat], wider))
    with pytest.raises(BadInput, match=r"the output size of 'stem' by its kernel"):
        wired((replace(first, padding=(2, 2)), second, *rest))
    document = operation_list([first], [[3, 6, 9, 5, 7]], batch=1)
    for change, message in (({"kind": "fft"}, "'fft'"), ({"variant": "deformable"}, "conv of variant 'deformable'")):
        entry = document["operations"][0] | change
        with pytest.raises(runner.MeterError, match=message):
            runner.Network(document | {"operations": [entry]}, 0, "cpu")


@pytest.mark.parametrize("positions", [[3, 6], [], [[3, 0]], [[3, 1.5]], [[3, float("inf")]]])
def test_positions_must_be_rows_of_counts(positions: Any) -> None:
    with pytest.raises(BadInput, match="whole numbers"):
        operation_list(networks.structure(Branched()).operations, positions, batch=1)


def test_positions_must_be_enough() -> None:
    operations = networks.structure(Branched()).operations
    with pytest.raises(BadInput, match="7 positions a row, got 3"):  # the image, five widths, the outputs
        operation_list(operations, [[3, 6, 9]], batch=1)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"batch": 1, "repeats": 0}, {"batch": 1, "window_s": -1.0}])
def test_counts_must_be_positive(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="a batch and repeats"):
        operation_list(networks.structure(Branched()).operations, [[3, 6, 9, 9, 4, 5, 7]], **wrong)


STANDARD = {"argparse", "csv", "errno", "glob", "hashlib", "json", "math", "os", "platform", "re", "sys", "threading"}
STANDARD |= {"time", "typing"}
NEWER = {
    "removeprefix",
    "removesuffix",
    "prod",
    "comb",
    "dist",
    "isqrt",
    "nullcontext",
    "monotonic_ns",
    "fromisoformat",
}
TYPING_OF_3_6 = {"Any", "Callable", "Dict", "List", "NamedTuple", "Optional", "Tuple"}


def newer_than_python_3_6(source: str) -> list[str]:
    """What Python 3.6 would not run, as far as it can be told from the text."""
    found = []
    try:
        tree = ast.parse(source, feature_version=(3, 6))
    except SyntaxError as error:
        return [str(error)]
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [str(node.module)]
            found += [alias.name for alias in node.names if node.module == "typing" and alias.name not in TYPING_OF_3_6]
        found += [name for name in modules if name not in STANDARD | {"torch"}]
        if isinstance(node, ast.Attribute) and node.attr in NEWER:
            found.append(node.attr)
        subscripted = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
        if subscripted and node.value.id in {"dict", "list", "set", "tuple", "type"}:  # type: ignore[attr-defined]
            found.append("subscripted built-in")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            found.append("union by |")
        if isinstance(node, ast.NamedExpr | ast.Match):
            found.append(type(node).__name__)
    return found + re.findall(r"""f["'][^"']*\{[^{}"']*=\}""", source)


def test_the_runner_is_one_file_for_python_3_6() -> None:
    assert newer_than_python_3_6(Path(runner.__file__).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import dataclasses",
        "from __future__ import annotations",
        "from shared import errors",
        "from typing import Protocol",
        "def f(x: list[int]): pass",
        "def f(x: int | None): pass",
        "print(f'{x=}')",
        "math.prod(x)",
        "x = {} | {}",
        "def f(a, /): pass",
        "(x := 1)",
        "match x:\n    case 1: pass",
    ],
)
def test_newer_python_is_found(line: str) -> None:
    assert newer_than_python_3_6(line)

"""Checkpoints of every public form load, and all that is wrong with one is a clear line, before anything changes."""

from __future__ import annotations

import argparse
import copy
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import BadInput
from shared.networks import build, names, structure
from shared.networks.pretrained import load_checkpoint

OPTIONS: dict[str, dict[str, Any]] = {
    "alexnet": {"width_multiplier": 1 / 32, "num_classes": 7, "input_size": 64},
    "erfnet": {"width_multiplier": 0.25, "num_classes": 4, "input_size": 16},
    "mobilenet": {"width_multiplier": 0.25, "num_classes": 7, "input_size": 32},
    "resnet18": {"width_multiplier": 0.125, "num_classes": 7, "input_size": 32},
}


def network(name: str, seed: int = 0, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(name, **{**OPTIONS[name], **options})


def saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def line(model: nn.Module, path: Path) -> str:
    """The one line that refuses `path`; the model is as before."""
    before = copy.deepcopy(model)
    with pytest.raises(BadInput) as caught:
        load_checkpoint(model, path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) < 500
    assert same(model, before)
    return message


# --- what loads

FORMS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "plain": lambda tensors: tensors,
    "wrapped": lambda tensors: {"state_dict": tensors, "epoch": 3, "best": 0.5},
    "wrapped twice": lambda tensors: {"model": {"state_dict": tensors}},
    "parallel": lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
    "compiled": lambda tensors: {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()},
    "lightning": lambda tensors: {"state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}},
    "old": lambda tensors: {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")},
    "half": lambda tensors: {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()},
}


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_state_dict_loads(name: str, form: str, tmp_path: Path) -> None:
    theirs, ours = network(name, 1), network(name, 2)
    if form == "half":
        theirs = theirs.half().float()
    load_checkpoint(ours, saved(FORMS[form](theirs.state_dict()), tmp_path))
    assert same(ours, theirs)
    assert next(ours.parameters()).dtype == torch.float32


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.bin", os.fsdecode(b"\xe9.safetensors")])
def test_safetensors_load_whatever_the_file_is_called(file: str, tmp_path: Path) -> None:
    theirs, ours = network("mobilenet", 1), network("mobilenet", 2)
    (tmp_path / file).write_bytes(save({f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}))
    load_checkpoint(ours, tmp_path / file)
    assert same(ours, theirs)


def test_a_file_of_torch_before_zip_loads(tmp_path: Path) -> None:
    """As torchvision's AlexNet is."""
    theirs, ours = network("alexnet", 1), network("alexnet", 2)
    torch.save(theirs.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_checkpoint(ours, tmp_path / "old.pth")
    assert same(ours, theirs)


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_torchvision_s_own_files_load(name: str, tmp_path: Path) -> None:
    theirs = getattr(torchvision.models, name)(num_classes=7).eval()
    ours = build(name, num_classes=7, input_size=64).eval()
    load_checkpoint(ours, saved(theirs.state_dict(), tmp_path))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_erfnet_s_published_head_of_the_encoder_is_left_out(tmp_path: Path) -> None:
    theirs, ours = network("erfnet", 1), network("erfnet", 2)
    published = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    published |= {
        "module.encoder.output_conv.weight": torch.ones(4, 32, 1, 1),
        "module.encoder.output_conv.bias": torch.ones(4),
    }
    load_checkpoint(ours, saved(published, tmp_path))
    assert same(ours, theirs)


class SamePad(nn.Module):
    """What TensorFlow's SAME adds before a 3x3 convolution: the odd pixel to the right and below."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        amounts = []
        for side in (maps.shape[3], maps.shape[2]):
            total = max((-(-side // self.stride) - 1) * self.stride + 3 - side, 0)
            amounts += [total // 2, total - total // 2]
        return F.pad(maps, amounts)


class PublishedMobileNet(nn.Module):
    """Laid out as in hyang1990/energy_constrained_compression, with TensorFlow's padding."""

    def __init__(self, channels: list[int], strides: list[int], classes: int) -> None:
        super().__init__()

        def step(inputs: int, outputs: int, **options: Any) -> list[nn.Module]:
            conv = nn.Conv2d(inputs, outputs, bias=False, **options)
            return [conv, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU6()]

        blocks = [[SamePad(strides[0]), *step(3, channels[0], kernel_size=3, stride=strides[0])]]
        for inputs, outputs, stride in zip(channels, channels[1:], strides[1:], strict=False):
            filters = step(inputs, inputs, kernel_size=3, stride=stride, groups=inputs)
            blocks.append([SamePad(stride), *filters, *step(inputs, outputs, kernel_size=1)])
        self.model = nn.Sequential(*(nn.Sequential(*block) for block in blocks), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.model(images).flatten(1))


IMAGENET_STRIDES = [2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]


def published_mobilenet(classes: int, channels: list[int], seed: int = 3) -> PublishedMobileNet:
    """With weights and statistics that leave no layer's output at zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        theirs = PublishedMobileNet(channels, IMAGENET_STRIDES, classes).eval()
        for tensor in theirs.buffers():
            if tensor.is_floating_point():
                nn.init.uniform_(tensor, 0.02, 0.1)
    return theirs


@pytest.mark.parametrize("size", [(224, 224), (128, 100)])  # all sides even, and some odd
@pytest.mark.parametrize("background", [1, 0])
def test_mobilenet_of_the_paper_s_published_code_loads(background: int, size: tuple[int, int], tmp_path: Path) -> None:
    """Logits of the file's own network with TensorFlow's padding, without the background's."""
    ours = network("mobilenet", 1, input_size=size).eval()
    theirs = published_mobilenet(7 + background, list(structure(ours).upper_bounds))
    parallel = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    load_checkpoint(ours, saved({"state_dict": parallel}, tmp_path))
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.double()(images)[:, background:]
        torch.testing.assert_close(ours.double()(images), expected, rtol=0, atol=1e-10)
        mirrored = ours(images.flip(3))
    assert expected.std() > 1e-3 and (expected - mirrored).abs().max() > 1e-4  # 1e-10 is not what any image gives


@pytest.mark.parametrize("size", [96, (64, 96)])  # at 160 both rules give the same strides
def test_published_weights_want_the_strides_that_they_were_trained_with(size: Any, tmp_path: Path) -> None:
    """By its own rule the network would halve a smaller image less often, which is another function."""
    small = network("mobilenet", 1, input_size=size)
    theirs = saved(published_mobilenet(7, list(structure(small).upper_bounds)).state_dict(), tmp_path)
    with pytest.raises(BadInput, match="strides 'imagenet'"):
        load_checkpoint(small, theirs)
    ours = network("mobilenet", 1, input_size=size, strides="imagenet")
    load_checkpoint(ours, theirs)
    assert [layer.stride[0] for layer in ours.modules() if isinstance(layer, nn.Conv2d)].count(2) == 5


def test_mobilenet_keeps_the_background_where_it_has_that_class(tmp_path: Path) -> None:
    ours = network("mobilenet", 1, input_size=224).eval()
    theirs = published_mobilenet(7, list(structure(ours).upper_bounds))
    load_checkpoint(ours, saved(theirs.state_dict(), tmp_path))
    assert torch.equal(ours.fc.weight, theirs.fc.weight)


def test_a_mobilenet_saved_here_is_loaded_as_it_is(tmp_path: Path) -> None:
    theirs, ours = network("mobilenet", 1, input_size=224), network("mobilenet", 2, input_size=224)
    load_checkpoint(ours, saved(theirs.state_dict(), tmp_path))
    assert same(ours, theirs)
    eight = network("mobilenet", 1, input_size=224, num_classes=8)
    assert "expected 7 classes" in line(ours, saved(eight.state_dict(), tmp_path))  # nothing says what the first is


# --- what does not


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_runs_code_is_refused_and_nothing_is_run(protocol: int, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": Evil(mark)}, protocol=protocol))
    message = line(network("alexnet"), path)
    assert "system (nothing was run)" in message and str(path) in message
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # it is a real one
    assert mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_code_inside_of_a_file_of_torch_is_refused(zipped: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    content = {**network("alexnet").state_dict(), "extra": Evil(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "nothing was run" in line(network("alexnet"), path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_refusal_names_what_is_there_under_every_protocol(zipped: bool, protocol: int, tmp_path: Path) -> None:
    """A name's parts may come from the pickle's memo; protocols that torch's safe loading can't read are told."""
    path, theirs, ours = tmp_path / "weights.pth", network("resnet18", 1), network("resnet18", 2)

    def save(content: object) -> None:
        torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)

    save({"args": [argparse.Namespace(), "argparse"], "state_dict": theirs.state_dict(), "more": argparse.Namespace()})
    asked = "argparse.Namespace" if protocol >= 2 else "copy_reg._reconstructor"
    assert f"got a pickle that asks for {asked} (nothing was run);" in line(ours, path)
    save({"places": {"argparse", complex(1, 2)}, "state_dict": theirs.state_dict(), "module": nn.Sequential(nn.ReLU())})
    asked = "torch.nn.modules.container.Sequential" if protocol >= 2 else "copy_reg._reconstructor"
    assert f"a pickle that asks for {asked} (nothing was run);" in line(ours, path)
    save(theirs.state_dict())
    if protocol in (2, 3):
        load_checkpoint(ours, path)
        assert same(ours, theirs)
    else:
        assert f"expected pickle protocol 2 in {path}, got protocol {protocol}; try torch.save(" in line(ours, path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_of_tensors_is_refused(protocol: int, tmp_path: Path) -> None:
    """Its tensors are loaded by a function of torch that runs whatever they hold."""
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(dict(network("resnet18").state_dict()), protocol=protocol))
    assert "torch.storage._load_from_bytes (nothing was run)" in line(network("resnet18"), path)


def test_a_damaged_archive_of_code_is_refused(tmp_path: Path) -> None:
    path = saved({"where": argparse.Namespace(), "state_dict": {}}, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"Namespace", b"Namesp4ce"))  # its checksum is now wrong
    assert "a file that can't be read" in line(network("alexnet"), path)


def test_a_dict_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    assert "got a dict with model;" in line(network("alexnet"), saved(content, tmp_path))


@pytest.mark.parametrize("key", ["two\nlines", "two\u2028lines", "x" * 100_000])
def test_names_out_of_a_file_don_t_break_the_line(key: str, tmp_path: Path) -> None:
    model = network("alexnet")
    assert "1 unexpected (" in line(model, saved({**model.state_dict(), key: torch.zeros(1)}, tmp_path))
    assert "a dict with " in line(model, saved({key: 1}, tmp_path))
    sparse = {**model.state_dict(), key: torch.zeros(1).to_sparse()}
    assert "(torch.sparse_coo)" in line(model, saved(sparse, tmp_path))


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    message = line(network("alexnet"), saved(network("alexnet"), tmp_path))
    assert "a pickle that asks for shared.networks.zoo.alexnet.AlexNet" in message and "state_dict()" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a checkpoint in"),
        (b"<html>not found</html>", "a checkpoint in"),
        (b"PK\x03\x04 not a zip", "a checkpoint in"),
        (b"\x10\0\0\0\0\0\0\0{broken", "a checkpoint in"),
    ],
)
def test_files_that_are_none(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    message = line(network("alexnet"), path)
    assert words in message and str(path) in message


def test_truncated_files(tmp_path: Path) -> None:
    path = saved(network("alexnet").state_dict(), tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in line(network("alexnet"), path)
    path = tmp_path / "w.safetensors"
    save_file(network("alexnet").state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in line(network("alexnet"), path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert "No such file" in line(network("alexnet"), tmp_path / "none.pth")
    assert "Is a directory" in line(network("alexnet"), tmp_path)


def test_content_that_is_no_state_dict(tmp_path: Path) -> None:
    model = network("alexnet")
    assert "got list" in line(model, saved([1, 2], tmp_path))
    assert "got Tensor" in line(model, saved(torch.zeros(3), tmp_path))
    assert "got a dict with epoch, lr;" in line(model, saved({"epoch": 3, "lr": 0.1}, tmp_path))
    assert "nothing in it" in line(model, saved({}, tmp_path))


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    model = network("alexnet")
    tensors = dict(model.state_dict())
    del tensors["features.3.bias"]
    assert "got 1 missing (features.3.bias);" in line(model, saved(tensors, tmp_path))
    tensors |= {f"extra.{index}": torch.zeros(1) for index in range(5)}
    message = line(model, saved(tensors, tmp_path))
    assert "got 1 missing (features.3.bias) and 5 unexpected (extra.0, extra.1, extra.2, …);" in message


@pytest.mark.parametrize("name", names())
def test_a_checkpoint_of_another_network_is_named(name: str, tmp_path: Path) -> None:
    for other in names():
        if other != name:
            parallel = {f"module.{key}": tensor for key, tensor in network(other).state_dict().items()}
            message = line(network(name), saved(parallel, tmp_path))
            assert f"expected a checkpoint of {name} in" in message and f"got one of {other};" in message


@pytest.mark.parametrize("name", names())
def test_another_number_of_classes_is_named(name: str, tmp_path: Path) -> None:
    path = saved(network(name, num_classes=11).state_dict(), tmp_path)
    assert f"expected {OPTIONS[name]['num_classes']} classes in {path}, got 11;" in line(network(name), path)


def test_another_width_is_named(tmp_path: Path) -> None:
    model, wider = network("resnet18"), network("resnet18", width_multiplier=0.25)
    message = line(model, saved(wider.state_dict(), tmp_path))
    assert "conv1.weight of resnet18 as (8, 3, 7, 7)" in message and "got (16, 3, 7, 7), and " in message
    grey = network("resnet18", in_channels=1)
    message = line(model, saved(grey.state_dict(), tmp_path))
    assert "got (8, 1, 7, 7);" in message


@pytest.mark.parametrize("shape", [(), (1, 1, 1)])
def test_a_head_of_another_rank_is_named(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Of which nobody can say for how many classes it is."""
    model = network("alexnet")
    last = next(reversed(model.state_dict())).rpartition(".")[0]
    tensors = {n: torch.zeros(shape) if n.startswith(last) else t for n, t in model.state_dict().items()}
    assert f"expected {last}.weight of alexnet as" in line(model, saved(tensors, tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_named(value: float, tmp_path: Path) -> None:
    model = network("alexnet", 1)
    tensors = dict(model.state_dict())
    tensors["features.3.bias"] = torch.full_like(tensors["features.3.bias"], value)
    assert "infinity or NaN in features.3.bias" in line(model, saved(tensors, tmp_path))


def test_so_are_those_that_the_network_s_precision_can_t_hold(tmp_path: Path) -> None:
    model = network("alexnet", 1)
    tensors = dict(model.state_dict())
    tensors["features.3.bias"] = torch.full_like(tensors["features.3.bias"], 1e300, dtype=torch.float64)
    assert "infinity or NaN in features.3.bias" in line(model, saved(tensors, tmp_path))


FLOAT8 = [kind for kind in vars(torch).values() if isinstance(kind, torch.dtype) and "float8" in str(kind)]


@pytest.mark.parametrize("kind", FLOAT8, ids=str)
@pytest.mark.parametrize("published", [False, True])
def test_every_float8_loads_as_its_numbers(kind: torch.dtype, published: bool, tmp_path: Path) -> None:
    """Those of a published file, too, whose kernels are turned."""

    def float8(tensor: Tensor) -> Tensor:  # 1, 2 and 4 in turn, which all of them hold
        numbers = 2.0 ** (torch.arange(tensor.numel()) % 3).reshape(tensor.shape)
        return numbers.to(kind) if tensor.is_floating_point() else tensor

    ours = network("mobilenet", 1, input_size=224)
    theirs = published_mobilenet(7, list(structure(ours).upper_bounds)) if published else network("mobilenet", 2)
    tensors = {name: float8(tensor) for name, tensor in theirs.state_dict().items()}
    folder = tmp_path / "wide"
    folder.mkdir()
    load_checkpoint(ours, saved(tensors, tmp_path))
    wanted = network("mobilenet", 3, input_size=224)
    wide = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    load_checkpoint(wanted, saved(wide, folder))
    assert same(ours, wanted) and len(FLOAT8) >= 4
    if not published:
        assert ours.fc.weight.flatten()[:4].tolist() == [1.0, 2.0, 4.0, 1.0]


@pytest.mark.parametrize("kind", FLOAT8, ids=str)
def test_a_float8_that_is_no_number_is_named(kind: torch.dtype, tmp_path: Path) -> None:
    model = network("alexnet", 1)
    bits = torch.full(model.state_dict()["features.3.bias"].shape, 0x80 if "fnuz" in str(kind) else 0xFF)
    not_numbers = bits.to(torch.uint8).view(kind)
    assert torch.isnan(not_numbers.float()).all()
    tensors = {**model.state_dict(), "features.3.bias": not_numbers}
    assert "infinity or NaN in features.3.bias" in line(model, saved(tensors, tmp_path))


@pytest.mark.parametrize("statistic", ["running_var", "running_mean", "num_batches_tracked"])
@given(value=st.floats(width=32))
@settings(max_examples=20)
def test_statistics_that_no_batch_has_are_named(
    statistic: str, value: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = network("resnet18", 1)
    name = f"layer1.0.bn1.{statistic}"
    tensor = model.state_dict()[name].clone()
    if statistic == "num_batches_tracked":
        assume(abs(value) < 2**62)
        value = math.trunc(value)
    tensor.view(-1)[0] = value
    path = saved({**model.state_dict(), name: tensor}, tmp_path_factory.mktemp("file"))
    if not math.isfinite(value):
        assert f"infinity or NaN in {name}" in line(model, path)
    elif value < 0 and statistic != "running_mean":
        assert f"a number below 0 in {name}" in line(model, path)
    else:
        load_checkpoint(model, path)
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensor: tensor.to_sparse(), "torch.sparse_coo"),
        (lambda tensor: tensor.to(torch.complex64), "torch.complex64"),
        (lambda tensor: tensor.to(torch.int8), "torch.int8"),
        (lambda tensor: tensor.to("meta"), "on meta"),
        (lambda tensor: torch.nested.nested_tensor([tensor, tensor]), "nested torch.float32"),
        (lambda tensor: torch.empty(tensor.shape, dtype=torch.float4_e2m1fn_x2), "torch.float4_e2m1fn_x2"),
        (lambda tensor: torch.empty(tensor.shape, dtype=torch.bits8), "torch.bits8"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "torch.qint8"),
    ],
    ids=["sparse", "complex", "int8", "meta", "nested", "float4", "bits", "quantized"],
)
def test_tensors_that_are_no_plain_numbers_are_named(
    change: Callable[[Tensor], Tensor], told: str, tmp_path: Path
) -> None:
    model = network("alexnet", 1)
    tensors = dict(model.state_dict())
    tensors["features.3.weight"] = change(tensors["features.3.weight"])
    message = line(model, saved(tensors, tmp_path))
    assert "features.3.weight" in message and told in message


def test_bare_bits_are_no_count_of_batches(tmp_path: Path) -> None:
    model = network("resnet18", 1)
    tensors = {**model.state_dict(), "bn1.num_batches_tracked": torch.empty((), dtype=torch.bits8)}
    assert "bn1.num_batches_tracked of torch.bits8" in line(model, saved(tensors, tmp_path))


def test_so_are_those_of_a_published_file(tmp_path: Path) -> None:
    """Whose kernels are turned as they are loaded: torch knows no turned sparse tensor."""
    ours = network("mobilenet", 1, input_size=224)
    tensors = published_mobilenet(7, list(structure(ours).upper_bounds)).state_dict()
    tensors["model.1.1.weight"] = tensors["model.1.1.weight"].to_sparse()
    assert "expected dense tensors in" in (told := line(ours, saved(tensors, tmp_path))) and "model.1.1.weight" in told


def test_half_precision_is_taken(tmp_path: Path) -> None:
    model, other = network("alexnet", 1), network("alexnet", 2)
    load_checkpoint(model, saved({name: tensor.half() for name, tensor in other.state_dict().items()}, tmp_path))
    for one, wanted in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, wanted.half().float())

"""Every pair of a network and a data set fits together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from bench.setup import workload
from bench.setup.request import Request
from shared import data, networks
from shared.data import imagenet
from shared.errors import BadInput
from shared.networks import structure

PAIRS = [(network, dataset) for network in networks.names() for dataset in networks.trained_on(network)]
EMBEDDED = ("fashion-mnist", "garment-scenes")


@pytest.mark.parametrize(("network", "dataset"), PAIRS)
def test_networks_are_built_for_what_data_sets_declare(network: str, dataset: str) -> None:
    with torch.device("meta"):
        model = workload.get(network, dataset).build()
    declared = data.network_arguments(dataset)
    assert structure(model).outputs == declared["num_classes"] and model.input_shape[0] == declared["in_channels"]


@pytest.mark.parametrize(("network", "dataset"), [pair for pair in PAIRS if pair[1] in EMBEDDED])
def test_images_and_classes_are_what_the_network_is_built_for(network: str, dataset: str) -> None:
    work = workload.get(network, dataset)
    images = work.load_data()
    with torch.device("meta"):
        model = work.build()
    assert model.input_shape == images.input_shape
    assert structure(model).outputs == len(images.classes) == data.network_arguments(dataset)["num_classes"]
    model = model.to_empty(device="cpu").eval()
    batch, labels = images.search.take(torch.arange(2))
    assert model(batch).shape == (2, len(images.classes), *images.label_shape)
    assert labels.shape == (2, *images.label_shape)


def test_alexnet_gets_fashion_mnist_at_64_pixels_and_mobilenet_as_it_is() -> None:
    shapes = [workload.get(network, "fashion-mnist").load_data().input_shape for network in ("alexnet", "mobilenet")]
    assert shapes == [(1, 64, 64), (1, 28, 28)]
    untouched = workload.get("mobilenet", "fashion-mnist").load_data()
    assert untouched.fingerprint == data.load("fashion-mnist").fingerprint and untouched.train.size is None


@pytest.mark.parametrize(
    ("network", "dataset", "told"),
    [
        ("lenet", "fashion-mnist", "a network out of alexnet, erfnet"),
        ("erfnet", "mnist", "a data set out of fashion-mnist, garment-scenes"),
        ("mobilenet", "garment-scenes", r"made for garment-scenes \(erfnet\), got 'mobilenet'; try --network erfnet"),
    ],
)
def test_what_does_not_fit_is_named(network: str, dataset: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        workload.get(network, dataset)


def test_mobilenet_sees_imagenet_as_its_published_weights_do(imagenet_tree: Path) -> None:
    """Between -1 and 1; others see it by its own mean and deviation."""
    ours = workload.get("mobilenet", "imagenet").load_data(imagenet_tree)
    plain = workload.get("alexnet", "imagenet").load_data(imagenet_tree)
    assert ours.fingerprint != plain.fingerprint == data.load("imagenet", imagenet_tree).fingerprint
    for split in ("train", "search", "test"):
        (scaled, _), (normal, _) = (getattr(images, split).take(torch.arange(2)) for images in (ours, plain))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (imagenet.MEAN, imagenet.STD))
        torch.testing.assert_close(scaled, 2 * (normal * std + mean) - 1, atol=1e-5, rtol=0)


NET = """
from torch import nn

def net(num_classes, in_channels, width=4):
    head = nn.Linear(width, num_classes)
    return nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
"""


def asked(network: str, **options: object) -> workload.Workload:
    return workload.of(Request(network=network, **options))  # type: ignore[arg-type]


def test_a_network_of_one_s_own_fits_the_data_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(NET)
    work = asked(f"{tmp_path}/own.py:net", image_size="20x24", network_arg=["width=6"])
    work.check()
    assert structure(work.build()).position_bounds == (1, 6, 10) and work.build().input_shape == (1, 20, 24)
    assert work.load_data().input_shape == (1, 20, 24)
    assert structure(work.build((2,))).upper_bounds == (2,)


def test_labels_tell_networks_of_one_name_apart(tmp_path: Path) -> None:
    """They name pages, weights and keys, so no folder is in them."""
    labels = []
    for folder, code in (("a", NET), ("b", NET), ("c", NET + "# another\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(code)
        labels.append(asked(f"{tmp_path}/{folder}/own.py:net").label)
    first, same, other = labels
    assert first == same != other and re.fullmatch(r"net-[0-9a-f]{8}", first)
    changed = [
        asked(f"{tmp_path}/a/own.py:net", **options).label
        for options in ({"network_arg": ["width=5"]}, {"image_size": "32"})
    ]
    assert len({first, *changed}) == 3
    assert asked("mobilenet").label == "mobilenet"
    assert asked("mobilenet", network_arg=["width_multiplier=0.5"]).label != "mobilenet"
    assert structure(asked("mobilenet", network_arg=["width_multiplier=0.5"]).build()).upper_bounds[0] == 16


def test_the_command_of_a_network_in_a_file_names_no_folder() -> None:
    request = Request(network="/home/me/nets/own.py:Net", network_arg=["a=1", "b=x y"], image_size="32")
    assert request.command == (
        "python -m bench run --network own.py:Net --network-arg a=1 --network-arg 'b=x y' --image-size 32"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network_arg": ["width"]}, "--network-arg NAME=VALUE, got 'width'"),
        ({"network_arg": ["=3"]}, "--network-arg NAME=VALUE, got '=3'"),
        ({"image_size": "big"}, "--image-size of a height, or HEIGHTxWIDTH, in pixels, got 'big'"),
        ({"image_size": "0"}, "an input size in pixels"),
        ({"dataset": "nowhere"}, "a data set out of"),
    ],
)
def test_bad_arguments_of_a_network_are_one_line(options: dict[str, object], words: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(NET)
    with pytest.raises(BadInput, match=words):
        asked(f"{tmp_path}/own.py:net", **options).build()


def test_another_number_of_classes_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        NET.replace("num_classes, in_channels", "classes=7, in_channels=1").replace("num_classes", "classes")
    )
    with pytest.raises(BadInput, match=r"10 outputs of .* for fashion-mnist, got 7; try --network-arg NAME=10"):
        asked(f"{tmp_path}/own.py:net").check()


def test_images_with_label_maps_keep_their_size() -> None:
    work = asked("torchvision.models.segmentation:fcn_resnet50", dataset="garment-scenes", image_size="32")
    with pytest.raises(BadInput, match="label maps, 48x64, got 32x32"):
        work.stand_in_data()

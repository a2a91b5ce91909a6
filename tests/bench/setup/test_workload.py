"""Every pair of a network and a data set fits together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.setup import workload
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

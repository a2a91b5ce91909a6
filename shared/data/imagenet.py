"""ImageNet, the 1000 classes of ILSVRC 2012, in the layout of torchvision's ImageFolder.

DIR/train/<wnid>/*.JPEG     1,281,167 images; ten of each class are held out as the search split
DIR/val/<wnid>/*.JPEG       50,000 images, the test split
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from shared.cache import content_key
from shared.data.files import FileSplit, Pairs, checked_folder, held_out, open_image, sizes
from shared.data.images import Dataset
from shared.errors import BadInput

CLASSES = 1000
TRAIN, VAL = 1_281_167, 50_000  # images in the complete data set
SEARCH_PER_CLASS = 10  # as in the NetAdapt of ECC's published code
RESIZED, SIDE = 256, 224  # pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's pretrained weights
LAYOUT = "ILSVRC 2012 as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG"

_CENTRE = v2.Compose([v2.Resize(RESIZED), v2.CenterCrop(SIDE), v2.PILToTensor()])
_ANYWHERE = v2.Compose([v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip(), v2.PILToTensor()])


def evaluation(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
    """Resize the shorter side to 256 and crop the central 224x224; uint8 (3, 224, 224) and int64 ()."""
    return _CENTRE(image), torch.tensor(label)


def training(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
    """Augmentation: random crop of 8 % to 100 % of the area, resized to 224x224, and random flip (Szegedy, 2015)."""
    return _ANYWHERE(image), torch.tensor(label)


def load(folder: Path | None = None) -> Dataset:
    """ImageNet in `folder`: ten images of each class of train as search, the others as train, and val as test.

    A class with fewer than 20 images gives half of them to search. Raises BadInput for a missing folder, a number of
    classes other than 1000, classes that differ between train and val, and a class without images. An image that can't
    be decoded raises it when it is read. The split depends on file names; the fingerprint on names and sizes.
    """
    folder = checked_folder(folder, "ImageNet", ("train", "val"), LAYOUT)
    classes_of = {part: _class_folders(folder / part) for part in ("train", "val")}
    for part, classes in classes_of.items():
        if len(classes) != CLASSES:
            raise BadInput(f"{CLASSES} classes, a folder each, in {folder / part}", len(classes), LAYOUT)
    if different := sorted(set(classes_of["train"]) ^ set(classes_of["val"])):
        here, other = ("train", "val") if different[0] in classes_of["train"] else ("val", "train")
        raise BadInput(f"the same classes in {folder}/train and val", f"{different[0]} in {here}, not {other}", LAYOUT)
    given, test = (_images(folder / part) for part in ("train", "val"))

    labels = torch.tensor(given.targets)
    starts = [0, *(labels.diff().nonzero().flatten() + 1).tolist(), len(labels)]  # ImageFolder lists class by class
    search: list[int] = []
    for first, end in pairwise(starts):
        if end - first < 2:
            raise BadInput(f"two images or more of every class in {folder / 'train'}", given.samples[first][0], LAYOUT)
        names = [os.path.basename(path) for path, _ in given.samples[first:end]]
        search += [first + index for index in held_out(names, min(SEARCH_PER_CLASS, (end - first) // 2))]
    train = sorted(set(range(len(labels))) - set(search))

    files = [sizes(folder, (path for path, _ in images.samples)) for images in (given, test)]
    return Dataset(
        name="imagenet",
        train=_split(Subset(given, train)),
        search=_split(Subset(given, search)),
        test=_split(Subset(test, range(len(test)))),
        classes=tuple(given.classes),
        folder=folder,
        fingerprint=content_key(files, search, RESIZED, SIDE, MEAN, STD),
    )


def stand_in() -> Dataset:
    """A placeholder: as many images as ImageNet has, all grey, for a plan without the files."""
    image = Image.new("RGB", (500, 375), "grey")  # a frequent size
    search = CLASSES * SEARCH_PER_CLASS
    train, search_, test = (_split([(image, 0)] * count) for count in (TRAIN - search, search, VAL))
    return Dataset("imagenet", train, search_, test, tuple(map(str, range(CLASSES))), content_key("no ImageNet"))


def _split(pictures: Pairs) -> FileSplit:
    return FileSplit(pictures, evaluation, training, (3, SIDE, SIDE), MEAN, STD)


def _class_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _images(folder: Path) -> ImageFolder:
    try:
        return ImageFolder(str(folder), loader=open_image)
    except FileNotFoundError as error:  # its message names the empty classes
        raise BadInput(f"images of every class in {folder}", " ".join(str(error).split())[:200], LAYOUT) from None

"""ImageNet, the 1000 classes of ILSVRC 2012, in the layout of torchvision's ImageFolder and its own file extensions.

DIR/train/<wnid>/*.JPEG     1,281,167 images; ten of each class are held out as the search split
DIR/val/<wnid>/*.JPEG       50,000 images, the test split

imagenet_wnids.txt has the classes' names, ids of WordNet 3.0. They only serve to tell which folder is too many or
missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as Pictures
from torch.utils.data import Subset
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file
from torchvision.transforms import v2

from shared.cache import content_key
from shared.data.files import FileSplit, Pairs, checked_folder, groups, held_out, once, open_image, pictures, sizes
from shared.data.images import Dataset
from shared.data.listing import Picture
from shared.errors import BadInput

CLASSES = 1000
TRAIN, VAL = 1_281_167, 50_000  # images in the complete data set
SEARCH_PER_CLASS = 10  # as in the NetAdapt of ECC's published code
RESIZED, SIDE = 256, 224  # pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's pretrained weights
PARTS = ("train", "val")
FEW = 5  # names of folders in a message
LAYOUT = "ILSVRC 2012 as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG"

_CENTRE = v2.Compose([v2.Resize(RESIZED), v2.CenterCrop(SIDE), v2.PILToTensor()])
_ANYWHERE = v2.Compose([v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip(), v2.PILToTensor()])


def evaluation(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
    """Resize the shorter side to 256 and crop the central 224x224; uint8 (3, 224, 224) and int64 ()."""
    return _CENTRE(image), torch.tensor(label)


def training(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
    """Augmentation: random crop of 8 % to 100 % of the area, resized to 224x224, and random flip (Szegedy, 2015)."""
    return _ANYWHERE(image), torch.tensor(label)


class Labelled(Pictures[tuple[Image.Image, int]]):
    """Pairs of a picture and the number of its class.

    Attributes:
        samples: Path of each picture and its class number, in the order of the classes.
        classes: Names of the classes' folders.
    """

    def __init__(self, listed: Sequence[Picture], classes: Sequence[str]) -> None:
        number = {name: place for place, name in enumerate(classes)}
        self.samples = [(picture.path, number[picture.group]) for picture in listed]
        self.classes = classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        return open_image(path), label


def load(folder: Path | None = None) -> Dataset:
    """ImageNet in `folder`: ten images of each class of train as search, the others as train, and val as test.

    A class with fewer than 20 images gives half of them to search. Links may lead to any folder or picture; a picture
    counts once, and hidden files and folders don't count. Raises BadInput for a missing folder, a number of classes
    other than 1000, classes that differ between train and val, a class without images and an image of unknown class.
    An image that can't be decoded raises it when it is read. The split depends on file names; the fingerprint on names
    and sizes.
    """
    folder = checked_folder(folder, "ImageNet", PARTS, LAYOUT)
    classes = _classes(folder)
    given, test = (
        Labelled(listed, classes) for listed in once(*(pictures(folder / part, is_image_file) for part in PARTS))
    )
    for part, images in zip(PARTS, (given, test), strict=True):
        present = {label for _, label in images.samples}
        if missing := [name for label, name in enumerate(classes) if label not in present]:
            expected = f"images of every class in {folder / part}, as {', '.join(IMG_EXTENSIONS)}"
            raise BadInput(expected, f"none that lies there alone in {_told(missing)}", LAYOUT)

    labels = torch.tensor([label for _, label in given.samples])
    starts = [0, *(labels.diff().nonzero().flatten() + 1).tolist(), len(labels)]
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
        classes=tuple(classes),
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


def _classes(folder: Path) -> list[str]:
    """The names of the class folders, which train and val share. Raises BadInput naming those too many or missing."""
    train, val = (groups(folder / part) for part in PARTS)
    for part, classes, other, others in (("train", train, "val", val), ("val", val, "train", train)):
        if len(classes) != CLASSES:
            expected = f"{CLASSES} classes, a folder each, in {folder / part}"
            raise BadInput(expected, len(classes), _odd(folder / part, classes, other, others) or LAYOUT)
    if different := sorted(set(train) ^ set(val)):
        here, other = ("train", "val") if different[0] in train else ("val", "train")
        raise BadInput(f"the same classes in {folder}/train and val", f"{different[0]} in {here}, not {other}", LAYOUT)
    return train


def _odd(folder: Path, classes: Sequence[str], other: str, others: Sequence[str]) -> str:
    """What to do with the few class folders that are too many or missing in `folder`; "" where they can't be told."""
    wnids = (Path(__file__).parent / "imagenet_wnids.txt").read_text(encoding="ascii").split()
    if len(classes) < CLASSES:
        found = [(f"in {other}", set(others) - set(classes)), ("a class of ImageNet", set(wnids) - set(classes))]
    else:
        found = [
            (f"not in {other}", set(classes) - set(others)),
            ("no class of ImageNet", set(classes) - set(wnids)),
            ("no name of a class", {name for name in classes if not re.fullmatch(r"n\d{8}", name)}),
            (
                "empty",
                {name for name in classes if os.access(folder / name, os.R_OK) and not os.listdir(folder / name)},
            ),
        ]
    advice = "adding {}, {}" if len(classes) < CLASSES else "moving {} away, {}"
    return next((advice.format(_told(sorted(names)), why) for why, names in found if 0 < len(names) <= FEW), "")


def _told(names: Sequence[str]) -> str:
    more = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" and {more} more" if more > 0 else "")

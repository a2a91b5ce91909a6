"""Cityscapes (Cordts et al., CVPR 2016): fine annotations in the original layout, at the ECC paper's 512x1024 pixels.

    DIR/leftImg8bit/{train,val}/<city>/*_leftImg8bit.png        2,975 and 500 images
    DIR/gtFine/{train,val}/<city>/*_gtFine_labelIds.png         their label maps

A tenth of train is held out as the search split. val is the test split, since the labels of Cityscapes' own test split
are not public.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as Pictures
from torch.utils.data import Subset
from torchvision import datasets, tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from shared.cache import content_key
from shared.data.files import FileSplit, Pairs, checked_folder, decoded, held_out, once, open_image, pictures, sizes
from shared.data.images import Dataset
from shared.data.listing import Picture
from shared.errors import BadInput, printable
from shared.objective import segmentation

HEIGHT, WIDTH = 512, 1024
TRAIN, VAL = 2_975, 500  # images in the complete data set
SHIFT = 2  # pixels each way, as in ERFNet's published training
IGNORED = 19  # class number of pixels that count neither in the loss nor in the score
# ERFNet's published class weights for training the decoder; the ignored class has weight 0
CLASS_WEIGHTS = (
    *(2.8149, 6.9850, 3.7890, 9.9428, 9.7702, 9.5111, 10.3114, 10.0265, 4.6323, 9.5608),
    *(7.8698, 9.5169, 10.3737, 6.6616, 10.2605, 10.2879, 10.2898, 10.4054, 10.1381, 0.0),
)
SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelIds.png"
HIGHEST_TRAIN_ID = 19  # as ERFNet's published training numbers what is ignored; Cityscapes' own scripts end at 18
LABELS = "the *_gtFine_labelIds.png of gtFine_trainvaltest.zip"
LAYOUT = "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, unpacked there"
# label ids 0 to 33; the license plate's id, -1, is in no label map
_KNOWN = [label for label in datasets.Cityscapes.classes if label.id >= 0]
UNKNOWN = 255
TRAIN_IDS = np.full(256, UNKNOWN, np.uint8)
for _label in _KNOWN:
    TRAIN_IDS[_label.id] = _label.train_id if _label.train_id < IGNORED else IGNORED
CLASSES = (*(label.name for label in sorted(_KNOWN, key=lambda label: label.train_id)[:IGNORED]), "ignored")

_MOVED = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.Pad(SHIFT, fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORED}),
        v2.RandomCrop((HEIGHT, WIDTH)),
    ]
)


class Scenes(Pictures[tuple[Image.Image, Image.Image]]):
    """Pairs of an image and its map of class numbers 0 to 19, at the files' size and in the files' order.

    Raises BadInput for an image without a label map, and for a city without any label id above 19. Vegetation (21), sky
    (23) and cars (26) are in every city, while train ids end at 18, or at 19 for what is ignored. A single map of train
    ids between label maps can't be told for sure; a map without an id above 19 gives a warning when it is read.
    """

    def __init__(self, root: Path, split: str, listed: Sequence[Picture]) -> None:
        self.images_dir, labels_dir = root / "leftImg8bit" / split, root / "gtFine" / split
        if not listed:
            raise BadInput(f"images in {self.images_dir}", "none", LAYOUT)
        self.files: list[tuple[str, str]] = []
        cities: dict[Path, list[str]] = {}
        for image, city in sorted((picture.path, picture.group) for picture in listed):
            target = os.path.join(labels_dir, city, os.path.basename(image).removesuffix(SUFFIX) + LABEL_SUFFIX)
            if not os.path.isfile(target):
                raise BadInput("a label map for every image", f"no file {target}", LAYOUT)
            self.files.append((image, target))
            cities.setdefault(labels_dir / city, []).append(target)
        for folder, maps in cities.items():
            highest = 0
            for path in maps:  # one map is enough in a city of label ids
                if (highest := max(highest, _highest_id(path))) > HIGHEST_TRAIN_ID:
                    break
            else:
                expected = f"label ids above {HIGHEST_TRAIN_ID}, as of vegetation and sky, in {folder}"
                raise BadInput(expected, f"ids up to {highest}, which may be train ids", LABELS)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:
        image_path, label_path = self.files[index]
        image, labels = open_image(image_path), decoded(label_path)
        if labels.mode != "L" or labels.size != image.size:
            raise BadInput(
                f"8-bit label ids of {image.width}x{image.height} pixels in {label_path}",
                f"mode {labels.mode}, {labels.width}x{labels.height}",
                LAYOUT,
            )
        ids = np.asarray(labels)
        classes = TRAIN_IDS[ids]
        if (unknown := classes == UNKNOWN).any():
            first = int(ids[unknown][0])
            got = f"{first}, as in train ids" if first == UNKNOWN else first
            raise BadInput(f"label ids 0 to {_KNOWN[-1].id} in {label_path}", got, LABELS)
        if ids.max() <= HIGHEST_TRAIN_ID:
            name = printable(label_path)
            warnings.warn(f"{name} has ids up to {ids.max()}: if they are train ids, try {LABELS}", stacklevel=2)
        return image, Image.fromarray(classes)


def _highest_id(path: str) -> int:
    """The highest id in a label map; `UNKNOWN` for a file that can't be used, which is named when it is read."""
    try:
        return int(np.asarray(decoded(path)).max())
    except BadInput:
        return UNKNOWN


def evaluation(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
    """Resize to 512x1024: image bilinear, uint8 (3, h, w); classes by nearest neighbour, int64 (h, w)."""
    size = (WIDTH, HEIGHT)
    pixels = functional.pil_to_tensor(image.resize(size, Image.Resampling.BILINEAR))
    classes = functional.pil_to_tensor(label.resize(size, Image.Resampling.NEAREST)).squeeze(0)
    return pixels, classes.long()


def training(image: Image.Image, label: Any) -> tuple[Tensor, Tensor]:
    """Augmentation: random flip and shift by up to `SHIFT` pixels, padded with black and the ignored class."""
    pixels, classes = evaluation(image, label)
    moved, classes = _MOVED(tv_tensors.Image(pixels), tv_tensors.Mask(classes))
    return moved.as_subclass(Tensor), classes.as_subclass(Tensor)


def load(folder: Path | None = None) -> Dataset:
    """Cityscapes in `folder`: 19 classes and the ignored one; train without a tenth, that tenth as search, val as test.

    Links and hidden files are as in ImageNet. Raises BadInput for a missing folder, a folder without images, a missing
    label map, and train ids under the names of label ids as `Scenes` tells them. A file that can't be decoded and an
    unknown label id raise it when they are read. The split depends on file names; the fingerprint on names and sizes.
    """
    parts = [f"{kind}/{split}" for kind in ("leftImg8bit", "gtFine") for split in ("train", "val")]
    folder = checked_folder(folder, "Cityscapes", parts, LAYOUT)
    listed = (pictures(folder / "leftImg8bit" / split, _is_scene, deep=False) for split in ("train", "val"))
    given, test = (Scenes(folder, split, found) for split, found in zip(("train", "val"), once(*listed), strict=True))
    names = [os.path.basename(image) for image, _ in given.files]
    if len(names) < 2:
        raise BadInput(f"two images or more in {given.images_dir}", len(names), LAYOUT)
    search = held_out(names, max(1, len(names) // 10))
    train = sorted(set(range(len(names))) - set(search))

    files = [sizes(folder, (path for pair in scenes.files for path in pair)) for scenes in (given, test)]
    return Dataset(
        name="cityscapes",
        train=_split(Subset(given, train)),
        search=_split(Subset(given, search)),
        test=_split(Subset(test, range(len(test)))),
        classes=CLASSES,
        folder=folder,
        fingerprint=content_key(files, search, HEIGHT, WIDTH, CLASS_WEIGHTS),
    )


def stand_in() -> Dataset:
    """A placeholder: as many images as Cityscapes has, all grey and ignored, for a plan without the files."""
    image, label = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), "grey"), Image.new("L", (2 * WIDTH, 2 * HEIGHT), IGNORED)
    search = TRAIN // 10
    train, search_, test = (_split([(image, label)] * count) for count in (TRAIN - search, search, VAL))
    return Dataset("cityscapes", train, search_, test, CLASSES, content_key("no Cityscapes"))


def _is_scene(name: str) -> bool:
    return name.endswith(SUFFIX)


def _split(pictures: Pairs) -> FileSplit:
    return FileSplit(
        pictures,
        evaluation,
        training,
        (3, HEIGHT, WIDTH),
        mean=(0.0,) * 3,  # ERFNet is trained on images scaled to 0..1 without further normalisation
        std=(1.0,) * 3,
        label_shape=(HEIGHT, WIDTH),
        objective=segmentation(IGNORED, CLASS_WEIGHTS),
    )

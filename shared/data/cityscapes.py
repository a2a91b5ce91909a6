"""Cityscapes (Cordts et al., CVPR 2016): fine annotations in the original layout, at the ECC paper's 512x1024 pixels.

    DIR/leftImg8bit/{train,val}/<city>/*_leftImg8bit.png        2,975 and 500 images
    DIR/gtFine/{train,val}/<city>/*_gtFine_labelIds.png         their label maps

A tenth of train is held out as the search split. val is the test split, since the labels of Cityscapes' own test split
are not public.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset
from torchvision import datasets, tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from shared.cache import content_key
from shared.data.files import FileSplit, Pairs, checked_folder, held_out, open_image, sizes
from shared.data.images import Dataset
from shared.errors import BadInput
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


class Scenes(datasets.Cityscapes):
    """Pairs of an image and its map of class numbers 0 to 19, at the files' size and in the files' order."""

    def __init__(self, root: Path, split: str) -> None:
        try:
            super().__init__(root, split, mode="fine", target_type="semantic")
        except NotADirectoryError as error:
            raise BadInput("nothing but folders of cities", f"the file {error.filename}", "moving it away") from None
        pairs = ((image, target) for image, (target,) in zip(self.images, self.targets, strict=True))
        # torchvision lists every file in a city's folder, also one that is no image
        self.files = sorted(pair for pair in pairs if pair[0].endswith(SUFFIX))
        if not self.files:
            raise BadInput(f"images in {self.images_dir}", "none", LAYOUT)
        for _, target in self.files:
            if not os.path.isfile(target):
                raise BadInput("a label map for every image", f"no file {target}", LAYOUT)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, Image.Image]:
        image_path, label_path = self.files[index]
        image, labels = open_image(image_path), open_image(label_path, mode=None)
        if labels.mode != "L" or labels.size != image.size:
            raise BadInput(
                f"8-bit label ids of {image.width}x{image.height} pixels in {label_path}",
                f"mode {labels.mode}, {labels.width}x{labels.height}",
                LAYOUT,
            )
        ids = np.asarray(labels)
        classes = TRAIN_IDS[ids]
        if (unknown := classes == UNKNOWN).any():
            raise BadInput(f"label ids 0 to {_KNOWN[-1].id} in {label_path}", int(ids[unknown][0]), LAYOUT)
        return image, Image.fromarray(classes)


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

    Raises BadInput for a missing folder, a folder without images and a missing label map. A file that can't be decoded
    and an unknown label id raise it when they are read. The split depends on file names; the fingerprint on names and
    sizes.
    """
    parts = [f"{kind}/{split}" for kind in ("leftImg8bit", "gtFine") for split in ("train", "val")]
    folder = checked_folder(folder, "Cityscapes", parts, LAYOUT)
    given, test = Scenes(folder, "train"), Scenes(folder, "val")
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
